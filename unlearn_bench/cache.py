"""Where downloads and conversions live, and how they get there whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

logger = logging.getLogger(__name__)

# What is being written of a file or folder: its name, and what tempfile puts after a prefix.
UNFINISHED = re.compile(r"\.(.+?)\.(?:old\.)?[a-z0-9_]{8}")


def default_cache() -> Path:
    """`$UNLEARN_BENCH_CACHE`, else the platform's cache folder for unlearn-bench."""
    chosen = os.environ.get("UNLEARN_BENCH_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("unlearn-bench")


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` so that a reader sees either the old file or the whole new one.

    Raises OSError (disk full, no permission); the old file is then intact.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def alone(final: Path) -> Iterator[None]:
    """Wait until no other process makes `final`, and keep others waiting. What is there then may be
    what the other one made: look again. What a killed one had of it is deleted. The lock ends with
    the process, however that ends; its file stays, under a name that no search for `final` finds.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(final.name.encode()).hexdigest()[:16]
    with (final.parent / f".{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("another process makes %s: waiting for it", final)
            fcntl.flock(lock, fcntl.LOCK_EX)
        remove_unfinished(final.parent, final.name)
        yield


def remove_unfinished(folder: Path, name: str = "") -> None:
    """Delete what a killed process was writing in `folder`: of `name`, or with none of anything.

    Only for who knows that no other process is writing it. What cannot be deleted stays.
    """
    with suppress(OSError):
        for path in folder.iterdir():
            found = UNFINISHED.fullmatch(path.name)
            if found and name in ("", found[1]):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder beside `final`; rename it to `final` when the block succeeds.

    An existing `final` is replaced only then. A failing block (an exception, Ctrl-C) leaves
    nothing behind, so the existence of `final` means that its content is complete.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}."))
    try:
        yield work
        work.chmod(0o755)  # mkdtemp's 0700 would hide a shared cache from other users
        _rename_over(work, final)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _rename_over(work: Path, final: Path) -> None:
    if not final.exists():
        os.replace(work, final)
        return
    # A folder that holds files cannot be renamed over: step it aside first.
    aside = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}.old."))
    os.replace(final, aside / final.name)
    try:
        os.replace(work, final)
    except OSError:
        os.replace(aside / final.name, final)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
