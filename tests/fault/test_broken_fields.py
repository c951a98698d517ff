"""A field of another type in any released file is refused with file and line or record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.data_files import write_jsonl
from tests.unit.public_files import write_json
from unlearn_bench.data import gsm8k, realtoxicityprompts, toxigen, truthfulqa
from unlearn_bench.errors import CorruptDataError

NOT_A_TEXT = st.none() | st.booleans() | st.integers() | st.lists(st.text(), max_size=2)
NOT_A_TEXT |= st.dictionaries(st.text(), st.text(), max_size=2)
HERE = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def refused(path: Path, number: int, read: Callable[[], Any], unit: str = "line") -> None:
    with pytest.raises(CorruptDataError) as caught:
        read()
    assert caught.value.where == f"{path}, {unit} {number}"


@HERE
@given(value=NOT_A_TEXT, key=st.sampled_from(["question", "answer"]), line=st.integers(1, 3))
def test_gsm8k(value: Any, key: str, line: int, tmp_path: Path) -> None:
    rows = [{"question": f"Q{i}?", "answer": "#### 1"} for i in range(3)]
    for file in gsm8k.FOLDER_FILES.values():
        write_jsonl(tmp_path / file, rows)
    rows[line - 1][key] = value
    path = write_jsonl(tmp_path / gsm8k.FOLDER_FILES["test"], rows)
    refused(path, line, lambda: gsm8k.read_folder(tmp_path))


@HERE
@given(value=NOT_A_TEXT, key=st.sampled_from(["prompt", "group", "label"]), line=st.integers(1, 3))
def test_toxigen(value: Any, key: str, line: int, tmp_path: Path) -> None:
    rows = [{"prompt": f"- text {i}", "group": "g", "label": toxigen.LABELS[0]} for i in range(3)]
    rows[line - 1][key] = value
    path = write_jsonl(tmp_path / toxigen.FOLDER_FILE, rows)
    refused(path, line, lambda: toxigen.read_folder(tmp_path))


@HERE
@given(value=NOT_A_TEXT, line=st.integers(1, 3))
def test_realtoxicityprompts(value: Any, line: int, tmp_path: Path) -> None:
    rows = [
        {"prompt": {"text": f"Once {i}", "toxicity": 0.1}, "challenging": True} for i in range(3)
    ]
    write_jsonl(tmp_path / realtoxicityprompts.FOLDER_CHALLENGING, rows)
    pool = tmp_path / realtoxicityprompts.FOLDER_POOL
    if not isinstance(value, bool):
        write_jsonl(pool, [*rows[: line - 1], rows[line - 1] | {"challenging": value}])
        refused(pool, line, lambda: realtoxicityprompts.read_folder(tmp_path))
    write_jsonl(pool, [*rows[: line - 1], rows[line - 1] | {"prompt": {"text": value}}])
    refused(pool, line, lambda: realtoxicityprompts.read_folder(tmp_path))


@HERE
@given(value=NOT_A_TEXT, key=st.sampled_from(["question", "mc1_targets", "mc2_targets"]))
def test_truthfulqa(value: Any, key: str, tmp_path: Path) -> None:
    targets = {"Right.": 1, "Wrong.": 0}
    question = {"question": "Q?", "mc1_targets": targets, "mc2_targets": targets}
    path = write_json(tmp_path / "truthfulqa" / "mc_task.json", [question | {key: value}])
    (tmp_path / "truthfulqa" / "TruthfulQA.csv").write_text(
        "Category,Question,Best Answer,Correct Answers,Incorrect Answers\n"
        "A,Q?,Right.,Right.,Wrong.\n"
    )
    refused(path, 1, lambda: truthfulqa.read_folder(tmp_path), unit="record")
