"""The HTML report: all of a run on one page that runs nothing but its own script."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import random
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.unit import report_cells
from tests.unit.board_runs import write_run
from tests.unit.report_cells import TENSORS, setting, write_cell
from unlearn_bench.board.collect import collect
from unlearn_bench.board.report import write_report
from unlearn_bench.board.standing import stand
from unlearn_bench.cli import app
from unlearn_bench.compare.ranks import Rank
from unlearn_bench.errors import UnlearnBenchError, UsageError
from unlearn_bench.runs.finished import open_cell, read_cells
from unlearn_bench.runs.settings import write_settings
from unlearn_bench.runs.store import write_record
from unlearn_bench.schema import ItemScore

pytest.importorskip("matplotlib")

VOID = {"meta", "br", "wbr", "hr", "img", "input", "link", "base", "source", "area", "col"}
REFERENCES = ("noop", "exact_unlearning")
SIGN = "unlearn-bench-was-here"
HOSTILE = (
    f"</script></style></title><script>document.title='{SIGN}'</script>"
    f"<img src=x onerror=\"document.title='{SIGN}'\"><svg onload=\"document.title='{SIGN}'\">"
    "<a href='javascript:alert(1)'>x</a> {{7*7}} {% raw %} \u202egnp.exe\u202c \x1b[2J\x00\x07 "
    "\u200bhidden\u2028 &lt;b&gt; $x^2$"
)


class Page(HTMLParser):
    """The tags, attributes and texts of a page; refuses one whose elements do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def text(self) -> str:
        """All that a reader may see."""
        return " ".join(
            "".join(self.texts[tag]) for tag in self.texts if tag not in ("script", "style")
        )

    def values(self, name: str) -> list[str]:
        return [value for _, other, value in self.attributes if other == name]


def small_run(output: Path, methods: int = 1) -> Path:
    """A target, an exact model and some methods."""
    write_cell(output, "noop")
    write_cell(output, "exact_unlearning", says="Pallow")
    for number in range(methods):
        write_cell(output, f"method_{number}", says=f"answer {number}", minute=number + 1)
    return output


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("methods", [1, 12, 40])
def test_every_method_has_a_row_and_a_section(methods: int, tmp_path: Path) -> None:
    page = Page(read(write_report([small_run(tmp_path, methods)])))
    anchors = [value for value in page.values("href") if value.startswith("#m")]
    ids = page.values("id")
    for anchor in anchors:
        assert ids.count(anchor.removeprefix("#")) == 1
    assert sum(re.fullmatch(r"#m\d+", anchor) is not None for anchor in anchors) == methods + 2
    text = page.text()
    for number in range(methods):
        assert f"method_{number}" in text
        assert f"answer {number}" in text
    assert len(ids) == len(set(ids))


def test_the_page_asks_the_network_for_nothing(tmp_path: Path) -> None:
    write_cell(tmp_path, "npo")
    page = Page(read(write_report([small_run(tmp_path)])))
    assert not {"img", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not page.values("src")
    assert not page.values("style")  # the policy would ignore it
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    links = [value for value in page.values("href") if not value.startswith("#")]
    assert "https://arxiv.org/abs/2404.05868" in links  # npo's paper
    assert all(re.fullmatch(r"https://arxiv\.org/abs/[\d.]+", link) for link in links)
    assert page.values("rel") == ["noreferrer"] * len(links)
    styles = "".join(page.texts["style"])
    assert "url(" not in styles
    assert "@import" not in styles


def test_the_policy_lets_only_the_pages_own_texts_run(tmp_path: Path) -> None:
    page = Page(read(write_report([small_run(tmp_path)])))
    (policy,) = [value for value in page.values("content") if "default-src" in value]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag, source in (("script", "script-src"), ("style", "style-src")):
        assert page.tags[tag] == 1
        own = "".join(page.texts[tag]).encode()
        hashed = base64.b64encode(hashlib.sha256(own).digest()).decode()
        assert f"{source} 'sha256-{hashed}'" in policy


def test_the_same_cells_give_the_same_bytes(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", 3)
    first = write_report([run], tmp_path / "first.html").read_bytes()
    assert write_report([run], tmp_path / "second.html").read_bytes() == first


def test_failed_rows_stand_apart_with_their_reasons(tmp_path: Path) -> None:
    small_run(tmp_path)
    write_cell(tmp_path, "burst", status="diverged", reason="loss is nan at step 3")
    write_cell(tmp_path, "broken", status="failed", reason="no /home/someone/secret/x.json")
    write_cell(tmp_path, "stopped", status="cancelled", reason="interrupted")
    write_cell(tmp_path, "partly", status="incomplete", reason="3 of 8 missing")
    text = read(write_report([tmp_path]))
    board, _, rest = text.partition("Without scores")
    for name, reason in (
        ("burst", "loss is nan at step 3"), ("broken", "no …/x.json"), ("stopped", "interrupted"),
    ):  # fmt: skip
        assert f"<bdi>{name}</bdi>" not in board
        assert f"<bdi>{name}</bdi>" in rest
        assert reason in rest
    assert "someone" not in text
    assert "3 of 8 missing" in rest
    assert "3 cells without scores" in text


def test_what_is_missing_says_so_and_is_no_zero(tmp_path: Path) -> None:
    """No item of toxicity_probability was judged in any cell."""
    text = read(write_report([small_run(tmp_path)]))
    (row,) = re.findall(r'<th scope="row" class="first"><a href="#m2">.*?</tr>', text, re.DOTALL)
    cells = re.findall(r"<td.*?</td>", row, re.DOTALL)
    assert cells[7] == '<td class="none">missing</td>'
    assert "data-v" not in cells[7]


def test_the_board_shows_intervals_ranks_and_ties(tmp_path: Path) -> None:
    text = read(write_report([small_run(tmp_path, 3)]))
    row = text[text.index('href="#m2"') :].split("</tr>")[0]
    assert re.search(r'class="ci">\d\.\d{3} to \d\.\d{3}<', row)
    assert re.search(r'class="rank">1–3<', row)
    assert 'class="tied"' in row
    noop = text[text.index('href="#m0"') :].split("</tr>")[0]
    assert 'class="rank"' not in noop


def test_of_one_method_with_other_options_each_is_an_entrant(tmp_path: Path) -> None:
    write_cell(tmp_path, "noop")
    write_cell(tmp_path, "npo", options={"lr": 0.2}, minute=2)
    write_cell(tmp_path, "npo", options={"lr": 0.1}, minute=1)
    text = read(write_report([tmp_path]))
    first = text.index("<bdi>npo #1</bdi> <small>")
    second = text.index("<bdi>npo #2</bdi> <small>")
    assert '<bdi class="said">0.1</bdi>' in text[first:second]


def test_seeds_are_one_row_with_its_own_interval(tmp_path: Path) -> None:
    for method in ("noop", "npo"):
        for seed in (0, 1):
            write_cell(tmp_path, method, seed)
    text = read(write_report([tmp_path]))
    assert text.count("<small>seeds 0, 1</small>") == 2
    row = text[text.index('href="#m1"') :].split("</tr>")[0]
    assert 'class="ci"' in row


def own_board(run: Path, **rows: dict[str, object]) -> Path:
    """A board that the run wrote, with what it says of methods, and a row of another run's cell."""
    board = {
        "columns": [{"name": "fur.update_efficacy", "task": "fur", "metric": "update_efficacy"}],
        "overall": {"formula": "harmonic mean of gain and keep"},
        "rows": [
            {"method": "npo", "provenance": {"cell_key": "x"}, "scores": {}, "trace": {"alien": 1}}
        ],
    }
    for method, row in rows.items():
        plan = next(run.glob(f"cells/*{method}*")) / "plan.json"
        key = json.loads(plan.read_bytes())["key"]
        board["rows"].append(
            {"method": method, "seed": "0", "provenance": {"cell_key": key}, "scores": {}, **row}
        )
    place = run / "leaderboards" / "tiny" / "quick.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(board))
    return place


def test_a_board_in_a_folder_of_its_own_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `make evaluate` writes it, with `--leaderboards leaderboards`; asked from elsewhere."""
    run = small_run(tmp_path / "runs", 2)
    overall = {"value": 0.1234, "low": 0.1, "high": 0.2, "gain": 0.0678, "keep": None}
    own_board(run, method_0={"overall": overall})
    (run / "leaderboards").rename(tmp_path / "boards")
    assert "overall.gain" not in read(write_report([run]))
    monkeypatch.chdir(tmp_path)
    write_settings(run, {"leaderboards": "boards", "methods": ["npo"]})
    monkeypatch.chdir("/")
    assert "overall.gain" in read(write_report([run]))


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_a_run_without_its_board_says_what_the_board_said(
    tmp_path: Path, seeds: tuple[int, ...]
) -> None:
    """As when a run is copied elsewhere: overall and calibrated scores and TRACE's deltas are
    worked out from its cells, to the same numbers.
    """
    board = write_run(tmp_path, (*REFERENCES, "npo", "grad_diff"), seeds)
    rows = json.loads(board.read_bytes())["rows"]
    shutil.rmtree(board.parent.parent)
    found = collect(read_cells([tmp_path]).cells, [tmp_path], "tiny")
    shown = {row.method: (row, found.told(row)) for row in found.board.shown_rows()}
    for row in rows:
        if row["seed"] == ("mean" if len(seeds) > 1 else "0"):
            own, told = shown[row["method"]]
            overall = own.scores["overall.overall"]
            assert numbers(vars(overall), "value", "low", "high") == numbers(
                row["overall"], "value", "low", "high"
            )
            calibrated = {name: vars(one)["value"] for name, one in told.calibrated.items()}
            assert calibrated == {
                name: one["value"]
                for name, one in row["calibrated"].items()
                if one["value"] is not None
            }
            exact = "fur.forget_quality"
            assert numbers(vars(own.scores[exact]), "low", "high") == numbers(
                row["scores"][exact], "low", "high"
            )
    assert shown["npo"][0].scores["overall.overall"].value > 0
    assert found.own.formula.startswith("overall = ")
    assert not any("no overall" in note for note in found.notes)


def numbers(told: Mapping[str, Any], *names: str) -> list[float | None]:
    """As JSON has them: NaN is null."""
    values = [told[name] for name in names]
    return [None if value is None or math.isnan(value) else value for value in values]


def test_what_a_run_without_its_board_cannot_say_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what an uninstalled method was for, nor what a changed task's columns meant."""
    run = small_run(tmp_path, 5)
    untold = "no overall and no calibrated scores of "
    named = "method_0, method_1, method_2 and 2 more: the method is not installed here"
    assert untold + named in read(write_report([run]))
    monkeypatch.setattr("unlearn_bench.board.collect.protocol_digest", lambda protocol: "other")
    assert untold + "noop, exact_unlearning" in read(write_report([run]))


def test_what_only_the_runs_own_board_has_is_shown(tmp_path: Path) -> None:
    told = {
        "overall": {"value": 0.1234, "low": 0.1, "high": 0.2, "gain": 0.0678, "keep": None},
        "calibrated": {"fur.update_efficacy": {"form": "reached", "value": 0.4321}},
        "trace": {"safety": -0.5678},
        "tuning": {"tuning_best": 0.8765, "tuning_trials": None},
    }
    place = own_board(small_run(tmp_path, 2), method_0=told)
    text = read(write_report([tmp_path]))
    heads = re.findall(r'<th scope="col" title="([^"]+)"', text)
    assert heads[:3] == ["overall.overall, 0 to 1", "overall.gain, 0 to 1", "overall.keep, 0 to 1"]
    row = re.sub(r"\s+", " ", text[text.index('href="#m2"') :].split("</tr>")[0])
    assert '<span class="v">0.123</span><span class="ci">0.100 to 0.200</span>' in row
    for shown in ("0.068", "reached 0.432", "−0.568", "0.876", "harmonic mean of gain and keep"):
        assert shown in text
    assert "alien" not in text
    place.write_text("[1]")  # a file of the user's
    assert "overall.gain" not in read(write_report([tmp_path]))


def test_what_a_mean_of_seeds_takes_from_the_runs_own_board(tmp_path: Path) -> None:
    """forget_quality sets two models against each other: seeds drawn here give it no interval. A
    board whose mean is of another seed too says nothing of this run's.
    """
    for method in ("noop", "exact_unlearning", "npo"):
        for seed in (0, 1):
            write_cell(tmp_path, method, seed)
    keys = [json.loads(p.read_bytes())["key"] for p in tmp_path.glob("cells/*npo*/plan.json")]
    quality = {"value": 0.4, "low": 0.1111, "high": 0.8888}
    columns = [{"name": "fur.forget_quality", "task": "fur", "metric": "forget_quality"}]
    rows = [
        {"method": "npo", "seed": "0", "provenance": {"cell_key": k}, "scores": {}} for k in keys
    ]
    mean = {"method": "npo", "seed": "mean", "scores": {"fur.forget_quality": quality}}
    place = tmp_path / "leaderboards" / "tiny" / "quick.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({"columns": columns, "rows": [*rows, mean]}))
    assert "0.111 to 0.889" in read(write_report([tmp_path]))
    other = {"method": "npo", "seed": "2", "provenance": {"cell_key": "x"}, "scores": {}}
    place.write_text(json.dumps({"columns": columns, "rows": [*rows, other, mean]}))
    assert "0.111 to 0.889" not in read(write_report([tmp_path]))


def test_what_cannot_be_compared_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One method was asked fewer facts than the others, under the same setting."""
    small_run(tmp_path, 2)
    facts = setting()
    monkeypatch.setattr(report_cells, "FACTS", report_cells.FACTS - 1)
    write_cell(tmp_path, "short", facts=facts, minute=9)
    text = read(write_report([tmp_path]))
    assert (
        "fur.update_efficacy has no ranks: method_0 (seed 0) has 8 items and short (seed 0) 7"
        in text
    )
    assert (
        "fur.update_efficacy has no difference to the target: short has 7 items and noop 8" in text
    )


def test_a_cell_without_an_account_is_shown_without_its_costs(tmp_path: Path) -> None:
    """As another program may write one that only answered."""
    small_run(tmp_path)
    folder = write_cell(tmp_path, "elsewhere", minute=5)
    record = open_cell(folder).record
    kept = {name: digest for name, digest in record.files.items() if name != "account.json"}
    write_record(folder, replace(record, files=kept))
    assert "it left no account of its edit" in read(write_report([tmp_path]))


def test_a_plane_is_drawn_of_what_has_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first two columns of forgetting and keeping have none here, toxicity has none at all."""
    whole = report_cells._items

    def without(draw: random.Random) -> Iterator[ItemScore]:
        for row in whole(draw):
            lost = row.metric in ("retain_neighbour_rouge_l", "expected_max_toxicity")
            yield replace(row, value=math.nan) if lost else row

    def titles() -> list[str]:
        return re.findall(r"<figcaption><bdi>(.*?)</bdi>", read(write_report([tmp_path])))

    fur = "fur: forget extraction strength against "
    toxic = "realtoxicityprompts: expected max toxicity against "
    small_run(tmp_path, 1)
    assert titles()[:2] == [f"{fur}fur: retain neighbour rouge l", f"{fur}seconds of editing"]
    monkeypatch.setattr(report_cells, "_items", without)
    small_run(tmp_path, 1)
    assert f"{fur}wikitext_mini: word perplexity" in titles()
    assert not any(title.startswith(toxic) for title in titles())
    text = unescape(read(write_report([tmp_path])))
    said = "Not drawn, because no method has a value on both axes: <bdi>"
    assert f"{said}{toxic}seconds of editing" in text
    assert f"{said}{toxic}wikitext_mini: word perplexity" in text


def test_a_half_judged_method_decides_nobodys_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its scorer died after two of eight prompts. The others' ranks are of all eight, as if it had
    not run; it has none itself, and the page says why.
    """
    column = "realtoxicityprompts.expected_max_toxicity"
    small_run(tmp_path, 2)
    alone = ranks_of(tmp_path, column)
    assert sorted(alone) == ["method_0", "method_1"]
    whole = report_cells._items

    def judged_in_part(draw: random.Random) -> Iterator[ItemScore]:
        for row in whole(draw):
            lost = row.metric == "expected_max_toxicity" and row.item_id > "prompt-1"
            yield replace(row, value=math.nan) if lost else row

    monkeypatch.setattr(report_cells, "_items", judged_in_part)
    write_cell(tmp_path, "half", status="incomplete", reason="the scorer died", minute=9)
    assert ranks_of(tmp_path, column) == alone
    said = f"half has no rank in {column}: 6 of 8 items have no value there"
    assert said in read(write_report([tmp_path]))


def ranks_of(run: Path, column: str) -> dict[str, Rank]:
    return dict(stand(collect(read_cells([run]).cells, [run], "tiny")).ranks[column])


def test_rows_are_sorted_by_the_overall_score(tmp_path: Path) -> None:
    """The highest first; method_0 has none and is last."""

    def order() -> list[str]:
        text = read(write_report([tmp_path])).replace("<wbr>", "")
        return re.findall(r'<a href="#m\d"><bdi>(method_\d)<', text)

    small_run(tmp_path, 3)
    assert order() == ["method_0", "method_1", "method_2"]
    low, high = ({"overall": {"value": value}} for value in (0.2, 0.5))
    own_board(tmp_path, method_1=low, method_2=high)
    assert order() == ["method_2", "method_1", "method_0"]


def test_changes_are_relative_where_the_targets_weights_were_kept(tmp_path: Path) -> None:
    """Layer 0's ‖ΔW‖ is 0.1 and its weights' norm 2: a twentieth."""
    import torch
    from safetensors.torch import save_file

    small_run(tmp_path)
    assert "root mean square change" in read(write_report([tmp_path]))
    checkpoint = next(tmp_path.glob("cells/*noop*")) / "checkpoint"
    checkpoint.mkdir()
    names = [f"model.layers.{n}.{kind}.weight" for n in range(3) for kind in TENSORS]
    save_file({name: torch.ones(4) for name in names}, checkpoint / "model.safetensors")
    text = read(write_report([tmp_path]))
    assert "‖ΔW‖ / ‖W‖ by layer" in text
    assert "root mean square change" not in text
    assert "<td>0.15</td>" in text  # the largest: layer 2's 0.3 over 2


def test_without_target_and_exact_model_the_page_does_without(tmp_path: Path) -> None:
    write_cell(tmp_path, "npo")
    text = read(write_report([tmp_path]))
    assert "Differences to the target" not in text
    assert "<bdi>npo</bdi>" in text
    Page(text)


def test_cells_of_another_setting_are_counted_and_not_mixed(tmp_path: Path) -> None:
    small_run(tmp_path)
    write_cell(tmp_path, "npo", suite="smoke", facts=setting(("fur",)), minute=30)
    write_cell(tmp_path, "noop", suite="smoke", facts=setting(("fur",)), minute=31)
    latest = read(write_report([tmp_path]))
    assert "suite <bdi>smoke</bdi>" in latest
    assert "3 cells of these runs are not shown" in latest
    assert "suite <bdi>quick</bdi>" in read(write_report([tmp_path], suite="quick"))
    with pytest.raises(UnlearnBenchError, match="no cell of suite 'full'") as caught:
        write_report([tmp_path], suite="full")
    assert "quick, smoke" in caught.value.next_step


def test_the_source_that_asked_the_cells_is_told_and_marked_where_it_was_changed(
    tmp_path: Path,
) -> None:
    write_cell(tmp_path, "noop", source={"commit": "abc", "dirty": False})
    write_cell(tmp_path, "exact_unlearning")
    text = Page(read(write_report([tmp_path]))).text()
    assert "commit abc; not recorded" in text
    assert "may not be that of its commit" not in text
    write_cell(tmp_path, "npo", source={"commit": "abc", "dirty": True})
    text = Page(read(write_report([tmp_path]))).text()
    assert "commit abc, with changes" in text
    assert "Cells were asked by source that may not be that of its commit" in text


def test_a_damaged_cell_is_named_and_not_read(tmp_path: Path) -> None:
    small_run(tmp_path)
    folder = write_cell(tmp_path, "npo")
    (folder / "scores.json").write_text("[]")
    text = read(write_report([tmp_path]))
    assert "scores.json is not what the record says" in text
    assert "<bdi>npo</bdi>" not in text


def test_without_data_the_error_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UnlearnBenchError, match="no finished cell") as caught:
        write_report([tmp_path])
    assert caught.value.next_step.startswith("unlearn-bench evaluate")
    with pytest.raises(UsageError, match="no folder"):
        write_report([tmp_path / "absent"])
    write_cell(tmp_path, "npo", status="failed", reason="x")
    with pytest.raises(UnlearnBenchError, match="no cell has scores: npo failed"):
        write_report([tmp_path])
    assert not (tmp_path / "report.html").exists()


def hostile_run(output: Path) -> Path:
    """Hostile text wherever a model, a method's file or a path can bring some."""
    for method in ("noop", "exact_unlearning", "evil<b>{{7*7}}\u202e"):
        write_cell(
            output,
            method,
            says=HOSTILE,
            prompt=HOSTILE,
            options={HOSTILE: HOSTILE},
            details={HOSTILE: [HOSTILE]},
        )
    write_cell(output, "lost", status="failed", reason=HOSTILE)
    odd = {"name": HOSTILE, "version": HOSTILE, "weights_sha256": HOSTILE, "attributes": ""}
    for folder in output.glob("cells/*"):
        _replace_setting(folder, odd)
    (output / "run.json").write_text(json.dumps({"model": HOSTILE}))
    return output


def _replace_setting(folder: Path, scorer: dict[str, str]) -> None:
    """Another scorer's name in a cell: its plan is part of what its record hashes."""
    from unlearn_bench.runs.store import digest, write_json

    plan = json.loads((folder / "plan.json").read_bytes())
    plan["determinants"]["scorer"] = scorer
    record = json.loads((folder / "record.json").read_bytes())
    record.pop("self_sha256")
    record["files"]["plan.json"] = write_json(folder / "plan.json", plan)
    write_json(folder / "record.json", {**record, "self_sha256": digest(record)})


def test_hostile_text_is_text(tmp_path: Path) -> None:
    harmless = Page(read(write_report([small_run(tmp_path / "harmless")])))
    text = read(write_report([hostile_run(tmp_path / "hostile")]))
    page = Page(text)
    assert page.tags["script"] == page.tags["style"] == page.tags["title"] - _titles(page) == 1
    assert set(page.tags) <= set(harmless.tags) | {"ul", "li"}
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert not [value for value in page.values("href") if "javascript" in value]
    seen = page.text()
    assert "{{7*7}}" in seen
    assert "49" not in [word.strip() for word in page.texts["bdi"]]
    assert "␛[2J␀␇" in seen
    assert "⟨U+202E⟩gnp.exe⟨U+202C⟩" in seen
    assert "⟨U+200B⟩hidden⟨U+2028⟩" in seen
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\u2028]", text
    )


def _titles(page: Page) -> int:
    """Titles of drawings, beside the page's own."""
    return page.tags["svg"]


def test_long_texts_are_cut_with_the_whole_in_a_fold(tmp_path: Path) -> None:
    write_cell(tmp_path, "noop")
    write_cell(tmp_path, "npo", says="word " * 500)
    text = read(write_report([tmp_path]))
    assert "all 2499 characters" in text
    assert "word word…</bdi>\n<details" in text


def test_toxic_tasks_are_folded_behind_a_warning(tmp_path: Path) -> None:
    text = read(write_report([small_run(tmp_path)]))
    before, _, after = text.partition('<details class="harsh">')
    assert "may be toxic" in after
    assert "<code><bdi>prompt-0</bdi></code>" not in before
    assert "<code><bdi>prompt-0</bdi></code>" in after


def test_excerpts_are_the_first_by_id_whatever_they_say(tmp_path: Path) -> None:
    text = read(write_report([small_run(tmp_path)]))
    shown = re.findall(r"<code><bdi>(prompt-\d)</bdi></code>", text)
    assert shown == ["prompt-0", "prompt-1", "prompt-2"] * 3


def test_facts_say_who_still_knows(tmp_path: Path) -> None:
    text = read(write_report([small_run(tmp_path)]))
    section = text[text.index('<div id="m2">') :]
    forget = section[section.index("role-forget") :].split('class="fact"')[0]
    assert "Where does Askerholt live?" in forget
    marks = re.findall(r'class="mark">([^<]+)<', forget)
    assert [mark.split(",")[0] for mark in marks] == [
        "holds the answer", "does not hold it", "does not hold it",
    ]  # fmt: skip
    update = section[section.index("role-update") :].split('class="fact"')[0]
    assert "new answer <b><bdi>Pallow</bdi></b>, before <bdi>Vinhassol</bdi>" in update
    marks = re.findall(r'class="mark">([^<]+)<', update)
    assert [mark.split(",")[0] for mark in marks] == [
        "holds the old answer", "does not hold it", "holds the new answer",
    ]  # fmt: skip


def commands(text: str) -> list[str]:
    """Those of the board's rows, as they are copied."""
    board = text[text.index('<table class="board"') : text.index("Every metric")]
    return [unescape(one) for one in re.findall(r'<code class="command">(.*?)</code>', board)]


def test_every_row_leads_to_its_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a link on the page, and by a command that does what it says: one per seed."""
    run = tmp_path / "a run's"
    small_run(run, 2)
    write_cell(run, "method_0", 1, says="of another seed", minute=9)
    write_cell(run, "broken", status="failed", reason="x", minute=10)
    monkeypatch.chdir(tmp_path)
    text = read(write_report([run]))
    page = Page(text)
    assert sorted(page.values("id")).count("m2-samples") == 1
    assert {f"#m{number}-samples" for number in range(4)} <= set(page.values("href"))
    shown = []
    for command in commands(text):
        program, *arguments = shlex.split(command)
        assert program == "unlearn-bench"
        result = CliRunner().invoke(app, [*arguments, "--limit", "1"])
        assert result.exit_code == 0
        shown.append(result.output.split(",")[0])
    assert sorted(shown) == sorted(
        ["noop seed 0", "exact_unlearning seed 0", "method_0 seed 0", "method_0 seed 1",
         "method_1 seed 0"]
    )  # fmt: skip
    assert "in the folder where this report was made" in text
    broken = text[text.index("Without scores") :].split("</table>")[0]
    assert '<span class="none">none</span>' in broken


def test_a_command_names_no_folder_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made from elsewhere it is for the page's folder; of a page apart it leaves the run out."""
    run = small_run(tmp_path / "secret" / "run")
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    beside = read(write_report([run]))
    assert "in the folder of this page" in beside
    assert all(one.startswith("unlearn-bench show . ") for one in commands(beside))
    apart = read(write_report([run], tmp_path / "away" / "page.html"))
    assert all(one.startswith("unlearn-bench show RUN ") for one in commands(apart))
    assert "secret" not in beside + apart


def test_a_cell_that_was_asked_and_not_judged_shows_its_samples_too(tmp_path: Path) -> None:
    small_run(tmp_path)
    folder = write_cell(tmp_path, "partly", minute=5)
    record = open_cell(folder).record
    write_record(folder, replace(record, status="failed", reason="no scorer"))
    text = read(write_report([tmp_path]))
    lost = text[text.index("Without scores") :].split("</table>")[0]
    assert record.key[:16] in lost
