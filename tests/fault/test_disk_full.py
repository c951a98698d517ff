"""No space left: a clear error, nothing half-written, everything old intact."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from unlearn_bench.errors import DiskFullError, UsageError
from unlearn_bench.runs import store

ROOT = Path(__file__).parents[2]


def no_space(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_the_old_file_survives_and_no_temporary_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "record.json"
    store.write_file(path, b"old")
    monkeypatch.setattr(os, call, no_space)
    with pytest.raises(DiskFullError) as caught:
        store.write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["record.json"]
    assert caught.value.next_step
    assert caught.value.exit_code == 3


def test_other_failures_keep_their_own_meaning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        store.write_file(tmp_path / "x", b"new")


def test_a_file_where_the_folder_should_be_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError), store.exclusive(tmp_path / "out"):
        pass


# A model that is saved under `ulimit -f`, in a process of its own.
PREPARING = """
import resource, signal, sys
from pathlib import Path
import numpy
from safetensors.numpy import save_file
from tests.unit.run_doubles import SmallSteps, cell, plan
from unlearn_bench.errors import UnlearnBenchError
from unlearn_bench.runs.execute import execute
from unlearn_bench.runs.progress import Reporter

output = Path(sys.argv[1])

class Preparing(SmallSteps):
    def prepare(self, tick):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        save_file({"w": numpy.zeros(100_000)}, output / "model.safetensors")

try:
    execute(plan(output, cell("npo")), Preparing, Reporter())
except UnlearnBenchError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_disk_that_fills_while_models_are_prepared_ends_the_run_with_three(
    tmp_path: Path,
) -> None:
    """What safetensors says of it is no OSError."""
    done = subprocess.run(
        [sys.executable, "-c", PREPARING, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "UNLEARN_BENCH_CACHE": "/the/cache"},
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "no space is left on the disk" in done.stdout
    assert "where: /the/cache" in done.stdout
    assert not list(tmp_path.glob("cells/*"))


@pytest.mark.parametrize(
    ("words", "full"),
    [
        ("I/O error: No space left on device (os error 28)", True),
        ("I/O error: File too large (os error 27)", True),
        ("I/O error: Disk quota exceeded (os error 122)", True),
        ("I/O error: Input/output error (os error 5)", False),
        ("I/O error: Connection refused (os error 111)", False),
    ],
)
def test_safetensors_words_for_a_full_disk(words: str, full: bool) -> None:
    assert store.is_disk_full(Exception(f"Error while serializing: {words}")) == full


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A 256 KiB file system of its own, where the machine lets us mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs rights this machine does not give")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_really_full(tiny_disk: Path) -> None:
    folder = tiny_disk / "cells" / "a"
    files = {"scores.json": store.write_json(folder / "scores.json", [])}
    record = store.Record("npo", 0, "k", "success", files=files)
    store.write_record(folder, record)
    with pytest.raises(DiskFullError):
        store.write_file(folder / "samples.parquet", os.urandom(400_000))
    assert store.read_record(folder, "k") == record
    assert sorted(item.name for item in folder.iterdir()) == ["record.json", "scores.json"]
