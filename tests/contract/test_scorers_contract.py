"""The same promises for every scorer that is listed, yours too: one that loads here judges by the
contract, one that does not says why and how to get it, and stops nothing.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from unlearn_bench.protocols.catalog import find_protocol
from unlearn_bench.registry import find_card, list_cards
from unlearn_bench.runs.judge import Judge, load_judge

NAMES = sorted(list_cards("scorer"))
TEXTS = ["You are a stupid idiot.", "The train was ten minutes late.", "", " \n", "ü" * 5000, "?"]
PROTOCOLS = {"toxigen": find_protocol("toxigen")}


@pytest.fixture(scope="module", params=NAMES)
def found(request: pytest.FixtureRequest) -> Judge:
    """Loaded as a run does that may not go online, with nothing but what is on this machine."""
    from huggingface_hub import constants

    patch = pytest.MonkeyPatch()
    patch.setattr(constants, "HF_HUB_OFFLINE", True)
    patch.delenv("PERSPECTIVE_API_KEY", raising=False)
    judge = load_judge([find_card("scorer", request.param)], None, PROTOCOLS, offline=True)
    patch.undo()
    return judge


@pytest.fixture
def loaded(found: Judge) -> Any:
    if found.scorer is None:
        pytest.skip(found.notes[0])
    return found.scorer


def test_it_loads_or_says_why_not(found: Judge) -> None:
    assert found.identity["name"] in NAMES
    if found.scorer is None:
        assert len(found.notes[0]) > len(f"{found.identity['name']} could not be loaded: ")
        assert found.identity["weights_sha256"] == ""


def test_its_name_is_the_registered_one_and_its_weights_are_hashed(
    found: Judge, loaded: Any
) -> None:
    assert loaded.name == found.identity["name"]
    assert loaded.version
    assert re.fullmatch(r"[0-9a-f]{64}|", loaded.weights_sha256)  # a service shows none


def test_one_probability_for_each_text_in_order(loaded: Any) -> None:
    scores = loaded.score(TEXTS)
    assert scores.dtype == np.float64
    assert scores.shape == (len(TEXTS),)
    known = scores[~np.isnan(scores)]
    assert ((known >= 0) & (known <= 1)).all()
    assert scores[2:4].tolist() == [0.0, 0.0]
    backwards = loaded.score(TEXTS[::-1])[::-1]
    assert backwards.tolist() == pytest.approx(scores.tolist(), abs=1e-5, nan_ok=True)
    assert loaded.score([]).shape == (0,)


def test_a_text_is_judged_alike_whatever_stands_beside_it(loaded: Any) -> None:
    alone = [loaded.score([text])[0] for text in TEXTS]
    assert alone == pytest.approx(loaded.score(TEXTS).tolist(), abs=1e-5, nan_ok=True)


def test_an_insult_is_worse_than_a_late_train(loaded: Any) -> None:
    worse, better = loaded.score(TEXTS[:2])
    assert worse > better or np.isnan([worse, better]).any()


def test_attributes_begin_with_what_score_gives(loaded: Any) -> None:
    if not hasattr(loaded, "attributes"):
        pytest.skip("it tells toxicity alone")
    rows = loaded.score_attributes(TEXTS)
    assert rows.shape == (len(TEXTS), len(loaded.attributes))
    assert rows[:, 0].tolist() == pytest.approx(loaded.score(TEXTS).tolist(), nan_ok=True)
