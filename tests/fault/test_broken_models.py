"""Damaged or half-written model folders: named, refused, never half loaded."""

from __future__ import annotations

import os
import shutil
import signal
import struct
from pathlib import Path

import pytest

from unlearn_bench.cache import alone, new_folder, write_atomically
from unlearn_bench.errors import CorruptDataError, MissingDataError
from unlearn_bench.models.fingerprint import fingerprint
from unlearn_bench.models.load import load_model
from unlearn_bench.models.open import open_model


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.mark.parametrize("kept", [0, 5, 40, -1, -1000])
def test_truncated_weights_are_named(folder: Path, kept: int) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:kept] if kept >= 0 else content[: len(content) + kept])
    with pytest.raises(CorruptDataError, match=r"model\.safetensors is not a whole") as caught:
        open_model(str(folder))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"[]",
        b'{"w": {"dtype": "F32", "shape": [1]}}',
        b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [-9, -5]}}',
        b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
    ],
)
def test_forged_header_is_refused(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(CorruptDataError, match="not a whole safetensors file"):
        fingerprint(tmp_path)


def test_tensor_in_two_files_is_refused(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder / "model-2.safetensors")
    with pytest.raises(CorruptDataError, match="stored twice"):
        open_model(str(folder))


def test_broken_config_names_file_and_place(folder: Path) -> None:
    (folder / "config.json").write_text('{\n  "model_type": "llama",\n  oops\n}')
    with pytest.raises(CorruptDataError, match="line 3") as caught:
        open_model(str(folder))
    assert "config.json" in str(caught.value)


def test_unknown_architecture_is_an_error_of_ours(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "no_such_model"}')
    with pytest.raises(CorruptDataError, match="cannot open the model"):
        load_model(folder)


def test_broken_tokenizer_is_an_error_of_ours(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(CorruptDataError, match="tokenizer"):
        load_model(folder)


def test_empty_folder_and_absent_folder(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent" / "deep" / "model"):
        with pytest.raises(MissingDataError):
            open_model(str(place))


def test_interrupted_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "record.json"
    write_atomically(target, b"old")

    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unlearn_bench.cache.os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_interrupted_folder_never_appears(tmp_path: Path) -> None:
    def write_half() -> None:
        with new_folder(tmp_path / "model") as work:
            (work / "model.safetensors").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_failed_replacement_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    with new_folder(tmp_path / "model") as work:
        (work / "a").write_bytes(b"old")
    real, calls = os.replace, []

    def fails_second(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr("unlearn_bench.cache.os.replace", fails_second)
    with pytest.raises(OSError, match="No space left"), new_folder(tmp_path / "model") as work:
        (work / "a").write_bytes(b"new")
    assert (tmp_path / "model" / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_a_killed_process_was_making_goes_with_the_next_lock(tmp_path: Path) -> None:
    """Its own half folders and files, and nobody else's: those may be in work."""
    final = tmp_path / "model-v1"
    killed = os.fork()
    if not killed:
        for name in (".model-v1.old.abcdefg1", ".model-v1.abcdefg2"):  # in the midst of a rename
            (tmp_path / name).mkdir()
        with new_folder(final) as work:
            (work / "model.safetensors").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(killed, 0)
    others = {tmp_path / name for name in (".model-v1.1.abcdefg3", ".model.abcdefg4", ".hidden")}
    for path in others:
        path.mkdir()
    assert len(list(tmp_path.iterdir())) == 3 + len(others)
    with alone(final):
        locked = {path for path in tmp_path.iterdir() if path.suffix != ".lock"}
    assert locked == others
