"""A baseline as one file, and the rules that are written to start from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.unit.stored_cells import items, write_cell
from tests.unit.test_cli import invoke
from unlearn_bench.board.starting_rules import render_rules
from unlearn_bench.compare import noise
from unlearn_bench.compare.measures import Measure, by_metric
from unlearn_bench.compare.noise import can_fail, suggest_margin
from unlearn_bench.compare.rules import load_rules
from unlearn_bench.compare.spreads import Spread
from unlearn_bench.errors import CorruptDataError
from unlearn_bench.runs import store
from unlearn_bench.runs.baseline import read_baseline, write_baseline
from unlearn_bench.runs.sides import read_side
from unlearn_bench.runs.tree import Tree

VALUES = [1.0, 0.0, math.nan, *[1.0] * 20]


@pytest.fixture(autouse=True)
def clean_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlearn_bench.runs.tree.source_tree", lambda: Tree("abc"))


def init(source: str, folder: Path, *more: str) -> Any:
    return invoke("gate", "init", source, "-o", str(folder), *more)


def test_a_baseline_comes_back_as_it_was(tmp_path: Path) -> None:
    write_cell(tmp_path / "run", "noop", items("acc", VALUES, clusters="a" * 12 + "b" * 11),
               tree=Tree("def", dirty=True))  # fmt: skip
    side = read_side(str(tmp_path / "run"))
    write_baseline(tmp_path / "baseline.json", side, Tree("abc", dirty=True))
    found = read_baseline(tmp_path / "baseline.json")
    assert found.tree == Tree("abc", dirty=True)
    (before,), (after,) = side.cells, found.side.cells
    assert after.tree == Tree("def", dirty=True)
    assert str(after.items) == str(before.items)  # NaN is not equal to itself
    assert after.measures == before.measures
    without = {name: value for name, value in before.facts.items() if name != "method"}
    assert after.facts == without
    for name in ("method", "seed", "key", "status", "suite", "weights", "limited", "tree"):
        assert getattr(after, name) == getattr(before, name)
    assert str(tmp_path) not in (tmp_path / "baseline.json").read_text()


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    write_cell(tmp_path / "run", "noop", items("acc", VALUES))
    for name in ("one", "two"):
        write_baseline(tmp_path / name, read_side(str(tmp_path / "run")), Tree("abc"))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def damaged(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "self_sha256": store.digest(body)}


@pytest.mark.parametrize(
    "change",
    [
        lambda body: {**body, "self_sha256": "0"},
        lambda body: damaged({**body, "format": 2}),
        lambda body: damaged({**body, "cells": []}),
        lambda body: damaged({**body, "cells": [{}]}),
        lambda body: damaged({**body, "tree": {"commit": "a", "more": 1}}),
        lambda body: damaged({**body, "cells": [{**body["cells"][0], "items": {"task": []}}]}),
        lambda body: [],
        lambda body: {**body, "cells": body["cells"][:0]},
    ],
)
def test_a_baseline_that_is_not_what_was_written_is_refused(tmp_path: Path, change: Any) -> None:
    write_cell(tmp_path / "run", "noop", items("acc", VALUES))
    path = tmp_path / "baseline.json"
    write_baseline(path, read_side(str(tmp_path / "run")), Tree())
    body = json.loads(path.read_text())
    body = {name: value for name, value in body.items() if name != "self_sha256"}
    path.write_text(json.dumps(change(body)))
    with pytest.raises(CorruptDataError, match="the baseline cannot be read"):
        read_baseline(path)


def test_init_writes_what_gate_takes(tmp_path: Path) -> None:
    write_cell(tmp_path / "run", "noop", items("acc", VALUES))
    result = init(str(tmp_path / "run"), tmp_path / "gate")
    assert result.exit_code == 0, result.output
    done = invoke(
        "gate", "--baseline", str(tmp_path / "gate" / "baseline.json"), "--candidate",
        str(tmp_path / "run"), "--rules", str(tmp_path / "gate" / "gate.yaml"),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "gate: pass" in done.output


def test_rules_that_are_there_are_kept_and_the_baseline_is_written_anew(tmp_path: Path) -> None:
    write_cell(tmp_path / "run", "noop", items("acc", VALUES))
    init(str(tmp_path / "run"), tmp_path / "gate")
    (tmp_path / "gate" / "gate.yaml").write_text("mine")
    write_cell(tmp_path / "new", "noop", items("acc", VALUES[:-1]))
    result = init(str(tmp_path / "new"), tmp_path / "gate")
    assert "is there already" in result.output
    assert (tmp_path / "gate" / "gate.yaml").read_text() == "mine"
    assert len(read_baseline(tmp_path / "gate" / "baseline.json").side.cells[0].items) == 22


def test_init_refuses_what_is_limited_changed_failed_or_too_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cell(tmp_path / "small", "noop", items("acc", VALUES), suite="quick-limit5")
    assert init(str(tmp_path / "small"), tmp_path / "gate").exit_code == 2
    assert init(str(tmp_path / "small"), tmp_path / "gate", "--allow-limited").exit_code == 0
    write_cell(tmp_path / "failed", "noop", [], status="failed")
    assert init(str(tmp_path / "failed"), tmp_path / "gate").exit_code == 3
    write_cell(tmp_path / "few", "noop", items("acc", [1, 0, 1, 1]))
    few = init(str(tmp_path / "few"), tmp_path / "gate")
    assert few.exit_code == 2
    assert "too few independent items with a value for any loss to fail" in few.output
    monkeypatch.setattr("unlearn_bench.runs.tree.source_tree", lambda: Tree("abc", dirty=True))
    write_cell(tmp_path / "run", "noop", items("acc", VALUES))
    assert init(str(tmp_path / "run"), tmp_path / "gate").exit_code == 2
    assert init(str(tmp_path / "run"), tmp_path / "gate", "--allow-dirty").exit_code == 0
    monkeypatch.setattr("unlearn_bench.runs.tree.source_tree", lambda: Tree("abc"))
    refused = invoke(
        "gate", "--baseline", str(tmp_path / "gate" / "baseline.json"), "--candidate",
        str(tmp_path / "run"), "--rules", str(tmp_path / "gate" / "gate.yaml"),
    )  # fmt: skip
    assert refused.exit_code == 2
    assert "the source that wrote the baseline is not that of its commit" in refused.output


def test_a_metric_without_values_gets_no_rule(tmp_path: Path) -> None:
    dead = items("toxicity", [math.nan] * 23)
    write_cell(tmp_path / "run", "noop", [*items("acc", VALUES), *dead], status="incomplete")
    assert init(str(tmp_path / "run"), tmp_path / "gate").exit_code == 0
    text = (tmp_path / "gate" / "gate.yaml").read_text()
    assert list(yaml.safe_load(text)["metrics"]) == ["quiz.acc"]
    assert '# not judged: "quiz.toxicity"' in text


MEASURE = Measure("quiz", "acc", "mean", "higher", "share")


def seeds(*rows: Any) -> list[Any]:
    return [by_metric(items("acc", values)) for values in rows]


def test_a_margin_from_seeds_by_hand() -> None:
    """Means 0.5, 0.6 and 0.7: differences 0.1, 0.1 and 0.2, their root mean square 0.1·√2."""
    rows = [[*[1.0] * ones, *[0.0] * (10 - ones)] for ones in (5, 6, 7)]
    found = suggest_margin(MEASURE, seeds(rows[0]), seeds(*rows))
    assert found.margin == pytest.approx(1.959964 * 0.1 * math.sqrt(2))
    assert "two of 3 seeds" in found.source


def test_a_margin_from_items_by_hand() -> None:
    """sd of 40 halves of 0 and 1 over √40, times √2, times (1.96 + 0.8416), and one item more."""
    found = suggest_margin(MEASURE, seeds([1.0, 0.0] * 20), [])
    error = math.sqrt(0.25 * 40 / 39 / 40)
    assert found.margin == pytest.approx(math.sqrt(2) * error * (1.959964 + 0.841621) + 1 / 40)
    assert "80% power by 40 independent items" in found.source
    values = np.random.default_rng(0).normal(size=40)
    error = float(values.std(ddof=1)) / math.sqrt(40)
    again = suggest_margin(MEASURE, seeds(values), [])
    assert again.margin == pytest.approx(math.sqrt(2) * error * (1.959964 + 0.841621))


def test_a_margin_from_edited_models_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.5 over √40 times (1.96 + 0.8416), of the logarithm: a share of the baseline's value."""
    spread = Spread(0.5, 7, binary=False, relative=True)
    monkeypatch.setattr(noise, "read_spreads", lambda: {"quiz_mini.acc": spread})
    found = suggest_margin(MEASURE, seeds([1.0, 0.0] * 20), [])
    assert found.margin == pytest.approx(0.5 / math.sqrt(40) * (1.959964 + 0.841621))
    assert "as those of 7 edited models from their targets on quiz_mini" in found.source
    (rule,) = yaml.safe_load(render_rules([found], []))["metrics"].values()
    assert rule == {"relative": pytest.approx(found.margin, rel=0.05)}
    seen = suggest_margin(MEASURE, seeds([1.0]), seeds([1.0] * 4, [1.0] * 3 + [0.0]))
    assert "seeds" in seen.source  # the baseline's own noise goes before it


def test_what_can_fail_needs_items_with_values() -> None:
    """2⁻⁴ is above 0.05 and 2⁻⁵ below it."""
    for values, able in (
        ([1.0] * 5, True), ([1.0] * 4, False), ([1.0] * 4 + [math.nan] * 9, False),
        ([math.nan] * 9, False), ([math.inf] * 9, False),
    ):  # fmt: skip
        assert can_fail(MEASURE, seeds(values), 0.05) == able


def test_seeds_that_do_not_differ_say_nothing_of_noise() -> None:
    same = [1.0, 0.0] * 20
    assert "independent items" in suggest_margin(MEASURE, seeds(same), seeds(same, same)).source
    nearly = [value * (1 + 1e-15) for value in same]  # sums in another order
    assert "independent items" in suggest_margin(MEASURE, seeds(same), seeds(same, nearly)).source
    alike = suggest_margin(MEASURE, seeds([1.0] * 20), [])
    assert alike.margin == pytest.approx(1 / 20)
    assert "alike" in alike.source


def test_the_comment_says_where_a_margin_comes_from(tmp_path: Path) -> None:
    """noop's seeds are the noise of whichever method is the baseline."""
    for seed in range(3):
        write_cell(tmp_path / "run", "noop", items("acc", [*[1.0] * (10 + seed), *[0.0] * 10]
                   [: 20]), seed=seed)  # fmt: skip
    write_cell(tmp_path / "run", "npo", items("acc", [1.0] * 10 + [0.0] * 10))
    init(f"{tmp_path / 'run'}:npo", tmp_path / "gate")
    text = (tmp_path / "gate" / "gate.yaml").read_text()
    assert "1.96 x the root mean square difference of two of 3 seeds" in text
    assert "not judged: \"quiz.toxicity\"" in text  # fmt: skip
    margin = load_rules(tmp_path / "gate" / "gate.yaml").metrics["quiz.acc"].margin
    exact = 1.959964 * 0.05 * math.sqrt(2)
    assert margin is not None
    assert exact <= margin <= exact * 1.1
    assert yaml.safe_load(text)["level"] == 0.05
