"""What the C library does with freed memory: kept within a step, returned between steps."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools

from unlearn_bench.runs.progress import Tick

# glibc's mallopt parameters (malloc.h) and our values for them, in bytes. Logits and embeddings
# are larger than 64 MB: among smaller blocks they would leave holes that nothing else fits.
TRIM_THRESHOLD, NEVER_TRIM = -1, (1 << 31) - 1
MMAP_THRESHOLD, LARGE_BLOCK = -3, 64 << 20
TRIM_EVERY = 4  # training steps
NO_MEMORY = (
    "out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc",
    "could not create a primitive",  # oneDNN's words, when its own buffers find no room
)  # fmt: skip


def reuse_memory() -> None:
    """Let freed blocks serve the next tensors.

    glibc maps every large block afresh and unmaps it when freed: with vLLM in the process a
    training step spends a tenth of its time on page faults. Other C libraries have no such setting.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(MMAP_THRESHOLD, LARGE_BLOCK)
        library.mallopt(TRIM_THRESHOLD, NEVER_TRIM)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that no memory is left, in whichever library's words."""
    if isinstance(error, RuntimeError | OSError):  # torch's own, for a GPU, is a RuntimeError
        return any(words in str(error).lower() for words in NO_MEMORY)
    return isinstance(error, MemoryError)


def return_memory() -> None:
    """Give freed memory back to the system.

    What the many tensors of an edit leave behind would otherwise add to the next edit's peak. Other
    C libraries return memory by themselves, or cannot.
    """
    gc.collect()
    _trim()


def trimmed(progress: Tick) -> Tick:
    """`progress`, which a training calls at every step, and at every fourth the holes given back.

    Each step frees what the next needs, but in other sizes and another order, and what was touched
    once stays: docs/design/target.md has the figures.
    """
    steps = itertools.count(1)

    def report(what: str, done: int, total: int) -> None:
        if next(steps) % TRIM_EVERY == 0:
            _trim()
        progress(what, done, total)

    return report


def _trim() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
