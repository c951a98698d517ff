"""`unlearn-bench show`: a cell's questions and answers, inert on whatever they are printed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.unit.report_cells import FACTS, PARTS, write_cell
from unlearn_bench.board.samples import choose_page, render_json, render_samples
from unlearn_bench.cli import app
from unlearn_bench.errors import UnknownNameError, UsageError

TOTAL = 2 * FACTS * len(PARTS) + FACTS
HOSTILE = "\x1b[2J\x1b]0;title\x07[red]markup[/red]\u202egnp\n\x9b31m end"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_cell(tmp_path, "noop")
    write_cell(tmp_path, "npo", 0, says=HOSTILE)
    write_cell(tmp_path, "npo", 1)
    write_cell(tmp_path, "npo", 2, status="diverged", reason="loss is \x1b[2Jnan")
    return tmp_path


def said(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["show", *arguments])
    return result.exit_code, result.output


def test_not_on_a_terminal_everything_is_printed_plainly(run: Path) -> None:
    code, text = said(str(run), "npo@0")
    assert code == 0
    assert f"page 1 of 1, {TOTAL} samples" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert "    ␛[2J␛]0;title␇[red]markup[/red]⟨U+202E⟩gnp\n    ⟨U+009B⟩31m end" in text


def test_pages_follow_each_other(run: Path) -> None:
    first, second = (choose_page(run, "noop", number=n, limit=7) for n in (1, 2))
    assert len(first.samples) == 7
    assert first.pages == -(-TOTAL // 7)
    names = [(s.task, s.item_id) for s in (*first.samples, *second.samples)]
    whole = choose_page(run, "noop", limit=None).samples
    assert names == [(s.task, s.item_id) for s in whole[:14]]
    with pytest.raises(UsageError, match="no page 99") as caught:
        choose_page(run, "noop", number=99, limit=7)
    assert "1 to 11" in caught.value.next_step


def test_likelihoods_and_values_of_an_item(run: Path) -> None:
    code, text = said(str(run), "noop", "--task", "fur_choice", "--item", "forget-0")
    assert code == 0
    assert "    −1.000  Pallow  greedy" in text
    assert "    −2.500  Vinhassol\n" in text
    assert "forget_probability 0.500" in text
    assert "1 sample\n" in text


def test_a_task_of_ours_takes_all_of_its_subtasks(run: Path) -> None:
    tasks = {sample.task for sample in choose_page(run, "noop", task="fur", limit=None).samples}
    assert tasks == {"fur_choice", "fur_generate"}


def test_a_cell_by_method_seed_or_key(run: Path) -> None:
    key = choose_page(run, "npo@1", limit=1).cell.record.key
    assert choose_page(run, key[:8], limit=1).cell.seed == 1
    with pytest.raises(UsageError, match=r"3 cells are called 'npo'; choose of: npo@0 \("):
        choose_page(run, "npo", limit=1)
    with pytest.raises(UsageError, match=r"0 cells are called 'wga'; known: noop@0 .*, npo@0"):
        choose_page(run, "wga", limit=1)


def test_a_cell_that_cannot_be_read_is_named(run: Path) -> None:
    """Where it is looked for, and below the page of another that is called the same."""
    for seed in (1, 2):
        (broken,) = (
            path.parent
            for path in run.glob("cells/*npo*/record.json")
            if json.loads(path.read_bytes())["seed"] == seed
        )
        (broken / "plan.json").write_text("{")
        code, text = said(str(run), f"npo@{seed}")
        assert code == 2
        assert f"beside what cannot be read: {broken.name}: " in " ".join(text.split())
    code, text = said(str(run), "npo")
    assert code == 0
    assert f"cannot be read: {broken.name}: " in " ".join(text.split())
    assert len(json.loads(said(str(run), "npo", "--json")[1])["damaged"]) == 2


def test_names_that_the_cell_does_not_have(run: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean fur_generate"):
        choose_page(run, "noop", task="furr_generate", limit=1)
    with pytest.raises(UnknownNameError, match="did you mean forget-0"):
        choose_page(run, "noop", item="forgot-0", limit=1)


def test_a_cell_without_answers_says_why(run: Path) -> None:
    code, text = said(str(run), "npo@2")
    assert code == 2
    assert "has no samples: it is diverged, loss is ␛[2Jnan" in text
    assert "\x1b" not in text


def test_errors_are_inert_too(run: Path) -> None:
    write_cell(run, "npo\x1b[2J")
    code, text = said(str(run), "wga")
    assert code == 2
    assert "npo␛[2J@0" in text


def test_json_is_strict_and_holds_the_text_as_it_was(run: Path) -> None:
    page = choose_page(run, "npo@0", task="fur_generate", limit=2)
    text = render_json(page)
    assert text.isascii()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f]", text)
    content = json.loads(text, parse_constant=pytest.fail)
    assert content["samples"][0]["outputs"] == [HOSTILE]
    assert content["samples"][0]["document"]["answer"] == "Vinhassol"
    assert (content["total"], content["pages"]) == (FACTS * len(PARTS), FACTS * len(PARTS) // 2)


def test_lines_carry_no_markup_of_the_models(run: Path) -> None:
    lines = list(render_samples(choose_page(run, "npo@0", limit=None)))
    assert all("\n" not in line.plain for line in lines)
    assert any("[red]markup[/red]" in line.plain for line in lines)
