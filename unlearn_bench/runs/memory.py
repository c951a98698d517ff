"""What the C library does with freed memory: kept within a step, returned between steps."""

from __future__ import annotations

import contextlib
import ctypes
import gc

# glibc's mallopt parameters (malloc.h), and values that no tensor of an edit reaches.
TRIM_THRESHOLD, NEVER_TRIM = -1, (1 << 31) - 1
MMAP_THRESHOLD, NEVER_MMAP = -3, 1 << 30


def reuse_memory() -> None:
    """Let freed blocks serve the next tensors.

    glibc maps every large block afresh and unmaps it when freed: with vLLM in the process a
    training step spends a tenth of its time on page faults. Other C libraries have no such setting.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(MMAP_THRESHOLD, NEVER_MMAP)
        library.mallopt(TRIM_THRESHOLD, NEVER_TRIM)


def return_memory() -> None:
    """Give freed memory back to the system.

    What the many tensors of an edit leave behind would otherwise add to the next edit's peak. Other
    C libraries return memory by themselves, or cannot.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
