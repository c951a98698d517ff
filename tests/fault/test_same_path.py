"""Other weights under the same path, of the same size and the same time: another model."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.unit.test_cli import invoke


def evaluate(target: Path, output: Path) -> str:
    done = invoke(
        *("evaluate", "--target", str(target), "--methods", "noop", "--offline"),
        *("--tasks", "toxigen_mini", "--limit", "13", "--engine", "transformers"),
        *("--scorer", "profanity_check", "--output", str(output)),
    )
    assert done.exit_code == 0, done.output
    return str(done.output)


def files(cell: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in cell.iterdir()}


def test_no_cell_of_the_old_weights_answers_for_the_new(
    make_tiny_model: Callable[..., Any], long_tiny_folder: Path, tmp_path: Path
) -> None:
    target, output = Path(shutil.copytree(long_tiny_folder, tmp_path / "model")), tmp_path / "out"
    evaluate(target, output)
    (old,) = output.glob("cells/*")
    kept = files(old)
    make_tiny_model(seed=1, max_position_embeddings=8192).save_pretrained(tmp_path / "other")
    weights = target / "model.safetensors"
    before = weights.stat()
    with weights.open("r+b") as stream:  # in place: the same inode, too
        stream.write((tmp_path / "other" / "model.safetensors").read_bytes())
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = weights.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
        *(before.st_ino, before.st_size, before.st_mtime_ns),
    )
    assert "already done" not in evaluate(target, output)
    (new,) = set(output.glob("cells/*")) - {old}
    assert files(old) == kept
    first, second = (json.loads((cell / "provenance.json").read_bytes()) for cell in (old, new))
    for name in ("weights_fingerprint", "target_fingerprint"):
        assert first[name] != second[name]
    assert (new / "samples.parquet").read_bytes() != kept["samples.parquet"][0]
    assert "already done" in evaluate(target, output)
