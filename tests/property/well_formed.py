"""What a reader owes: well-formed items, or an error of ours that names the file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.property.data_sets import DataSet, File, any_count
from unlearn_bench.data.behaviour import Behaviour
from unlearn_bench.data.fur import FurData
from unlearn_bench.data.public import PublicSet
from unlearn_bench.errors import UnlearnBenchError


@pytest.fixture(scope="module")
def small_sets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Small copies are whole ones here, and the hub's cache is empty."""
    from huggingface_hub import constants

    with pytest.MonkeyPatch.context() as patch:
        any_count(patch)
        patch.setattr(constants, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub")))
        yield


def is_utf8(text: str) -> bool:
    """Whether a tokenizer, a record and a board can hold it."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and is_utf8(value)


def require_rows(splits: Any, texts: Sequence[str]) -> None:
    """As `Documents` promises them: an id each and none twice, texts where they belong."""
    for rows in splits.values():
        ids = [row["id"] for row in rows]
        assert all(isinstance(one, str) and one and is_utf8(one) for one in ids)
        assert len(set(ids)) == len(ids)
        for row in rows:
            targets = [row[key] for key in ("mc1_targets", "mc2_targets") if key in row]
            choices = [choice for target in targets for choice in target["choices"]]
            # TruthfulQA's released file has a choice without words.
            assert all(isinstance(choice, str) for choice in choices), row
            assert all(map(is_text, (row[key] for key in texts))), row


def leaves(value: Any) -> Iterator[Any]:
    """All texts and numbers in frozen dataclasses and tuples of them; not what they count."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from leaves(item)
    elif not isinstance(value, dict):
        yield value


def require_texts(found: PublicSet | FurData | Behaviour) -> None:
    """An edit set is texts all through; only what is not updated has none."""
    for leaf in leaves(found):
        assert leaf is None or (isinstance(leaf, str) and is_utf8(leaf)), leaf


def outcome(data_set: DataSet, root: Path, files: Sequence[File]) -> Any:
    """Well-formed items, or the refusal, which names one of the files."""
    refusal = None
    try:
        found = data_set.read(root)
    except UnlearnBenchError as error:
        refusal = error
    if refusal:
        assert any(str(root / file.path) in refusal.where for file in files), refusal
        return refusal
    if isinstance(found, (PublicSet, FurData, Behaviour)):
        require_texts(found)
    else:
        require_rows(found, data_set.texts)
    return found


def strings(value: Any) -> set[str]:
    """All texts in rows."""
    if isinstance(value, dict):
        return {text for inner in value.values() for text in strings(inner)}
    if isinstance(value, list):
        return {text for inner in value for text in strings(inner)}
    return {value} if isinstance(value, str) else set()


def require_what_was_said(name: str, found: Any, files: Sequence[File]) -> None:
    """Of sets that take answers as they are: none is a piece of a text in the file."""
    if isinstance(found, FurData):
        asked: list[Any] = [fact for subject in found.subjects for fact in subject.facts]
    elif name in ("tofu", "counterfact", "zsre", "rwku") and isinstance(found, PublicSet):
        asked = list(found.questions)
    else:
        asked = []
    texts = {text for one in asked for text in (one.answer, *one.wrong_options, *one.paraphrases)}
    assert texts <= strings([file.rows for file in files])
