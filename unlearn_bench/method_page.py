"""The page `docs/methods.md`: every built-in method as its file and the board describe it.

`make docs` writes it. Options come from the methods' signatures, so writing the page imports them.
"""

from __future__ import annotations

import csv
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from unlearn_bench.methods.contract import GOALS, NEEDS
from unlearn_bench.methods.options import allowed_values, own_defaults, uses_loop
from unlearn_bench.methods.options import options_model as model_of
from unlearn_bench.methods.search import search_space
from unlearn_bench.registry import PACKAGE, Card, list_cards, load_function
from unlearn_bench.training.options import Training

WIDTH = 100
UNKNOWN = "–"
INTRODUCTION = """\
# Methods

Written by `make docs` from the methods' own files and the board; edit those, not this page.

θ is the model being edited, θ₀ the target before editing, p_θ the probabilities θ gives. NLL_m is
the negative log-likelihood per answer token, NLL_s its sum over an answer, both in nats;
KL(θ₀ ‖ θ) is the divergence of their next-token distributions. σ is the logistic function and
‖·‖ the Euclidean norm.

A method of kind *loss* is a term that the shared training loop minimises; an *edit* changes the
model by itself. Costs are those of the board
{board}, with its options,
loading and saving left out. A dash means that the method is not on that board yet.
"""
CONTROLS = "how much of a result needs no method"
LOOP = """\
## The shared loop's options

Every method that the loop trains has these too; where a method's own default differs, its table
above says so. All are set with `--set METHOD.OPTION=VALUE`.
"""


@dataclass(frozen=True)
class Cost:
    """What one edit took on the board."""

    seconds: float
    peak_bytes: float
    forward_passes: float
    backward_passes: float
    parameters: float


def read_costs(board: Path) -> dict[str, Cost]:
    """The costs of a board's CSV by method: the mean over seeds where there is one.

    Rows that did not succeed have none.
    """
    costs: dict[str, Cost] = {}
    with board.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["status"] != "success" or (row["method"] in costs and row["seed"] != "mean"):
                continue
            costs[row["method"]] = Cost(
                float(row["edit_seconds"]),
                float(row["peak_memory_bytes"]),
                float(row["forward_passes"]),
                float(row["backward_passes"]),
                float(row["parameters_touched"]),
            )
    return costs


def built_in(cards: Iterable[Card]) -> list[Card]:
    """The cards of this package's own methods, without installed plugins."""
    return [card for card in cards if PACKAGE in card.file.parents]


def render_page(cards: Sequence[Card], costs: Mapping[str, Cost], board: str) -> str:
    """The whole page as Markdown. board: the text, or link, that names where the costs are from.

    Raises UsageError for a method whose signature cannot serve.
    """
    groups: dict[str, list[Card]] = {}
    for card in sorted(cards, key=lambda card: (_goal_order(card), card.name)):
        groups.setdefault(_group(card), []).append(card)
    ordered = [card for group in groups.values() for card in group]
    parts = [INTRODUCTION.format(board=board), _summary_table(ordered, costs), _needs_table()]
    for title, group in groups.items():
        aims = [GOALS[goal] for goal in group[0].facts.get("goals", ())] or [CONTROLS]
        parts.append(f"## {title}\n\nTo show: {'; '.join(aims)}.\n")
        parts += [_section(card, costs.get(card.name)) for card in group]
    about = inspect.cleandoc(Training.__doc__ or "")
    parts += [LOOP, _loop_table(), to_markdown(about, Training.model_fields)]
    return "\n".join(parts)


def _goal_order(card: Card) -> tuple[int, ...]:
    goals = card.facts.get("goals", ())
    return tuple(list(GOALS).index(goal) for goal in goals) or (len(GOALS),)


def _group(card: Card) -> str:
    return " and ".join(card.facts.get("goals", ())).capitalize() or "Controls"


def _summary_table(cards: Sequence[Card], costs: Mapping[str, Cost]) -> str:
    rows = [
        (
            f"[`{card.name}`](#{card.name})",
            ", ".join(card.facts.get("goals", ())) or "control",
            ", ".join(_needs(card)) or "nothing",
            card.facts["kind"],
            _paper(card),
            _seconds(costs[card.name]) if card.name in costs else UNKNOWN,
        )
        for card in cards
    ]
    return _table(("method", "for", "needs", "kind", "paper", "edit s"), rows, right=("edit s",))


def _needs_table() -> str:
    about = "Needs are read from the data of the run; a set in brackets may be empty.\n\n"
    return about + _table(("need", "what it is"), NEEDS.items())


def _needs(card: Card) -> list[str]:
    optional = card.facts.get("optional", ())
    return [f"[{need}]" if need in optional else need for need in card.facts.get("needs", ())]


def _paper(card: Card) -> str:
    paper = card.facts.get("paper", "")
    return re.sub(r"^arXiv:(\S+)$", r"https://arxiv.org/abs/\1", paper) or UNKNOWN


def _seconds(cost: Cost) -> str:
    return f"{cost.seconds:.0f}" if cost.seconds >= 10 else f"{cost.seconds:.1f}"


def _section(card: Card, cost: Cost | None) -> str:
    """One method: what it does, its facts, its options."""
    text, source = split_source(card.doc)
    own = own_defaults(card)
    file = card.file.relative_to(PACKAGE.parent)
    facts = [
        ("source", _sentence(source, own) or UNKNOWN),
        ("paper", _paper(card)),
        ("needs", ", ".join(_needs(card)) or "nothing"),
        ("kind", card.facts["kind"]),
        ("changes", ", ".join(f"`{target}`" for target in card.facts["targets"]) or "nothing"),
        ("cost", _cost(cost)),
        ("file", f"[{file}](../{file})"),
    ]
    parts = [f"### {card.name}\n", to_markdown(text, own), _table(("", ""), facts)]
    if table := _options_table(card, own):
        parts.append(table)
    if uses_loop(card, load_function(card)):
        parts.append("And the [options of the shared loop](#the-shared-loops-options).\n")
    return "\n".join(parts)


def _cost(cost: Cost | None) -> str:
    if cost is None:
        return UNKNOWN
    return (
        f"{_seconds(cost)} s, {cost.peak_bytes / 1e9:.1f} GB of memory at its peak, "
        f"{cost.forward_passes:,.0f} forward and {cost.backward_passes:,.0f} backward passes, "
        f"{cost.parameters:,.0f} parameters changed"
    )


def _options_table(card: Card, own: Mapping[str, Any]) -> str:
    """The method's own options and those of the loop that it sets or tunes; "" without any."""
    search = search_space(card)
    fields = model_of(card).model_fields
    shown = [*own, *(n for n in (*card.facts.get("training", {}), *search) if n not in own)]
    rows = [
        (*_option(name, fields[name]), str(search.get(name, UNKNOWN)))
        for name in dict.fromkeys(shown)
    ]
    header = ("option", "default", "may be", "tuned over")
    columns = len(header) if search else -1  # nothing is tuned: the last column says nothing
    return _table(header[:columns], [row[:columns] for row in rows]) if rows else ""


def _loop_table() -> str:
    rows = [_option(name, field) for name, field in Training.model_fields.items()]
    return _table(("option", "default", "may be"), rows)


def _option(name: str, field: FieldInfo) -> tuple[str, str, str]:
    words = allowed_values(field) or str(field.annotation)
    return f"`{name}`", f"`{json.dumps(field.default, default=str)}`", words


def _table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()
) -> str:
    lines = [header, ["---:" if name in right else "---" for name in header], *rows]
    cells = ((cell.replace("|", r"\|") for cell in line) for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def split_source(doc: str) -> tuple[str, str]:
    """A docstring without its "Source: ..." sentences, and these on one line ("" without any)."""
    text, _, source = doc.partition("\nSource: ")
    return text, " ".join(source.split())


def to_markdown(doc: str, options: Iterable[str] = ()) -> str:
    """A docstring as Markdown: indented lines become code blocks, numbered lines list items.

    options: names that are set as code (those of one word only where the text explains them, as in
    "alpha: ..."); the first that is explained at the start of a line begins a paragraph.
    """
    names = tuple(options)
    blocks: list[tuple[str, list[str]]] = []
    for line in doc.strip("\n").split("\n"):
        kind = _kind(line, blocks[-1] if blocks else None, names)
        if kind == "same":
            blocks[-1][1].append(line)
        else:
            blocks.append((kind, [line]))
    kept = [block for block in blocks if block[0] != "blank"]
    text = ""
    for (kind, lines), (following, _) in zip(kept, [*kept[1:], ("", [])], strict=True):
        gap = "\n" if kind == following == "item" or not following else "\n\n"
        text += _block(kind, lines, names) + gap
    return text


def _kind(line: str, last: tuple[str, list[str]] | None, options: Sequence[str]) -> str:
    """The kind of block that the line begins, or "same" where it goes on with the last one."""
    before, lines = last or ("blank", [""])
    if not line.strip():
        return "blank"
    if re.match(r"\d+\. ", line):
        return "item"
    if before == "item" and line.startswith("  "):
        return "same"
    if line.startswith("    "):
        return "same" if before == "code" else "code"
    explains = re.compile(f'({"|".join(map(re.escape, options)) or "(?!)"})(: | ")')
    turns_to_options = explains.match(line) and not explains.match(lines[0])
    new_paragraph = turns_to_options and lines[-1].endswith(".")
    return "text" if before != "text" or new_paragraph else "same"


def _block(kind: str, lines: Sequence[str], options: Sequence[str]) -> str:
    if kind == "code":
        return "\n".join(["```text", *textwrap.dedent("\n".join(lines)).split("\n"), "```"])
    text = " ".join(line.strip() for line in lines)
    number = re.match(r"\d+\. ", text) if kind == "item" else None
    start = number.group() if number else ""
    wrapped = textwrap.wrap(
        _sentence(text[len(start) :], options),
        WIDTH - len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return start + ("\n" + " " * len(start)).join(map(_no_marker, wrapped))


def _sentence(text: str, options: Iterable[str]) -> str:
    """Plain text with what Markdown would read as markup escaped; papers and pages as links."""
    names = "|".join(
        re.escape(name) + (r"(?!\w)" if "_" in name else r"(?=: | \")") for name in options
    )
    spans = re.compile(rf"(`[^`]*`|(?<![\w.])(?:{names or '(?!)'}))")
    parts = spans.split(text)
    parts[::2] = [_linked(_escaped(part)) for part in parts[::2]]
    parts[1::2] = [f"`{part.strip('`')}`" for part in parts[1::2]]
    return "".join(parts)


def _escaped(text: str) -> str:
    text = re.sub(r"([\\*<~$])", r"\\\1", text)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # inside a word it is no markup


def _linked(text: str) -> str:
    text = re.sub(r"arXiv:(\d{4}\.\d{5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    return re.sub(r"docs/([\w/-]+\.md)", r"[docs/\1](\1)", text)


def _no_marker(line: str) -> str:
    """The line, with a sign that would begin a list, heading or quotation escaped."""
    return re.sub(r"^([-+>]|#+)(?=\s)|^(\d+)(?=[.)]\s)", _escape_marker, line)


def _escape_marker(found: re.Match[str]) -> str:
    return f"{found[2]}\\" if found[2] else f"\\{found[1]}"


def main(board: Path, page: Path) -> None:
    """Write the page beside the repository's other documents."""
    link = f"[{board.parent.name}, {board.stem}](../{board.with_suffix('.md')})"
    text = render_page(built_in(list_cards("method").values()), read_costs(board), link)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
