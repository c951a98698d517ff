"""Keep one step's memory out of the next one's peak."""

from __future__ import annotations

import contextlib
import ctypes
import gc


def return_memory() -> None:
    """Give freed memory back to the system.

    glibc keeps what the many tensors of an edit leave behind, and the next edit's peak would come
    on top of it. Other C libraries return memory by themselves, or cannot.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
