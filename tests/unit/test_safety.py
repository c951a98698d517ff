"""Artefacts that run code when opened are refused, and nothing of them has run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, dynamic_module_utils

from unlearn_bench.errors import CorruptDataError, MissingDataError, UnsafeArtefactError
from unlearn_bench.models.open import open_model
from unlearn_bench.models.safety import INDEX, refuse_unsafe


class Payload:
    """Creates a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def test_plain_folder_passes(tiny_folder: Path) -> None:
    refuse_unsafe(tiny_folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "last.ckpt"])
def test_pickled_weights_only_are_refused_unopened(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(Payload(tmp_path / "executed"), folder / name)
    with pytest.raises(UnsafeArtefactError, match="pickled") as caught:
        open_model(str(folder))
    assert caught.value.exit_code == 4
    assert not (tmp_path / "executed").exists()
    torch.load(folder / name, weights_only=False)  # the trap works, else nothing above could fail
    assert (tmp_path / "executed").exists()


def test_pickles_beside_safetensors_are_left_alone(folder: Path, tmp_path: Path) -> None:
    torch.save(Payload(tmp_path / "executed"), folder / "pytorch_model.bin")
    open_model(str(folder))
    assert not (tmp_path / "executed").exists()


def ask_for_code(folder: Path, name: str, marker: Path, *, nested: bool = False) -> None:
    """Let a JSON file of the model map classes to a module beside it, which makes `marker`."""
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(marker)!r})\nclass Model: pass\n")
    path = folder / name
    settings = json.loads(path.read_text())
    classes = {"AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.Model", None]}
    code = {"auto_map": classes}
    path.write_text(json.dumps(settings | ({"text_config": code} if nested else code)))


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("nested", [False, True])
def test_remote_code_is_refused_and_not_imported(
    folder: Path, tmp_path: Path, name: str, nested: bool
) -> None:
    marker = tmp_path / "executed"
    ask_for_code(folder, name, marker, nested=nested)
    with pytest.raises(UnsafeArtefactError, match="auto_map") as caught:
        open_model(str(folder))
    assert name in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "loader"),
    [("config.json", AutoModelForCausalLM), ("tokenizer_config.json", AutoTokenizer)],
)
def test_the_remote_code_would_run_where_it_is_trusted(
    folder: Path, tmp_path: Path, name: str, loader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nothing above could fail."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    marker = tmp_path / "executed"
    ask_for_code(folder, name, marker)
    with contextlib.suppress(AttributeError):  # its class is no model, which shows afterwards
        loader.from_pretrained(folder, trust_remote_code=True)
    assert marker.exists()


def test_empty_auto_map_is_no_code(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {}}))
    refuse_unsafe(folder)


def test_shard_index_may_not_leave_the_folder(folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {"w": "../other.safetensors"}}))
    with pytest.raises(UnsafeArtefactError, match="not a safetensors file of this folder"):
        refuse_unsafe(folder)


def test_missing_shard_is_named(folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {"w": "model-00002.safetensors"}}))
    with pytest.raises(CorruptDataError, match=r"model-00002\.safetensors is missing"):
        refuse_unsafe(folder)


def test_folder_without_weights_is_missing_not_unsafe(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingDataError, match=r"no \.safetensors weights"):
        refuse_unsafe(folder)
