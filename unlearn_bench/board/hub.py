"""A board as a hub repository holds it: its files in a dataset, or one row in a model's card.

What is written is made without the network; only sending it, and reading the card that a row is
added to, need one.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from unlearn_bench.board.board_file import (
    BoardFile,
    ColumnPart,
    RowPart,
    ScorePart,
    read_board_file,
    to_board,
)
from unlearn_bench.board.faults import place_of
from unlearn_bench.board.files import render_csv
from unlearn_bench.board.markdown import render_markdown
from unlearn_bench.board.table import MEAN
from unlearn_bench.board.validate import validate
from unlearn_bench.errors import UnlearnBenchError, UsageError
from unlearn_bench.protocols.catalog import list_protocols

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, HfApi

Kind = Literal["dataset", "model"]
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
CARD = "README.md"
TASK = "text-generation"
SHORTEST = 6  # digits of a fingerprint or key that name a row


@dataclass(frozen=True)
class Publication:
    """What is to be sent. files: content by path. results: of the row, for a model's card; `row`
    names it. left_out: headline columns of the row without a finite value.
    """

    to: str
    kind: Kind
    message: str
    files: dict[str, bytes]
    results: tuple[EvalResult, ...] = ()
    row: str = ""
    left_out: tuple[str, ...] = ()


def prepare(file: Path, to: str, kind: Kind, chosen: str = "") -> Publication:
    """What `publish_board` would send of a board's JSON, without any network.

    chosen: for a model, which row. Raises UsageError for a name that is no repository's and for a
    row that is not there or has no scores, UnlearnBenchError for a board with faults.
    """
    _check_name(to)
    (verdict,) = validate([file])
    if verdict.faults:
        raise UnlearnBenchError(
            f"the board has {len(verdict.faults)} fault(s), the first: {verdict.faults[0]}",
            where=str(file),
            next_step=f"unlearn-bench board validate {file}",
        )
    content = read_board_file(file)
    message = f"unlearn-bench board of {content.model}, suite {content.suite}"
    if kind == "dataset":
        if chosen:
            raise UsageError("a dataset takes the whole board", next_step="leave out --row")
        return Publication(to, kind, message, _files(file, content))
    row = choose_row(content, chosen)
    results, left_out = evaluation_results(content, row)
    return Publication(to, kind, message, {}, tuple(results), place_of(row), tuple(left_out))


def _check_name(to: str) -> None:
    if not REPOSITORY.fullmatch(to):
        raise UsageError(f"{to!r} names no repository", next_step="write --to owner/name")


def _files(file: Path, content: BoardFile) -> dict[str, bytes]:
    """The JSON as it is, and what it renders to: a CSV beside it was found to be the same."""
    board = to_board(content)
    name = f"{board.model}/{board.suite}"
    return {
        f"{name}.json": file.read_bytes(),
        f"{name}.csv": render_csv(board).encode("utf-8", "backslashreplace"),
        f"{name}.md": render_markdown(board).encode("utf-8", "backslashreplace"),
    }


def choose_row(content: BoardFile, name: str) -> RowPart:
    """The row called `method`, `method@seed`, or by the first digits of its weights' fingerprint or
    cell key. Means have no weights and are none. Raises UsageError with what there is.
    """
    method, _, seed = name.partition("@")
    rows = [row for row in content.rows if row.seed != MEAN]
    found = [row for row in rows if row.method == method and seed in ("", row.seed)]
    if len(name.removeprefix("sha256:")) >= SHORTEST:
        found += [row for row in rows if row not in found and _is_called(row, name)]
    if len(found) != 1:
        known = ", ".join(f"{row.method}@{row.seed}" for row in found or rows)
        raise UsageError(
            f"{len(found)} rows are called {name!r}; there is {known}"
            if name
            else f"a model's card takes one row; there is {known}",
            next_step="name one with --row METHOD@SEED, or by its weights' fingerprint",
        )
    if not found[0].scores:
        raise UsageError(f"{place_of(found[0])} is {found[0].status} and has no scores")
    return found[0]


def _is_called(row: RowPart, digits: str) -> bool:
    weights = row.provenance.get("weights_fingerprint", "").removeprefix("sha256:")
    key = row.provenance.get("cell_key", "")
    return any(own.startswith(digits.removeprefix("sha256:")) for own in (weights, key) if own)


def evaluation_results(content: BoardFile, row: RowPart) -> tuple[list[EvalResult], list[str]]:
    """The row's headline columns and its overall score, as a model card's model-index has them;
    and the columns that have no finite value.
    """
    from huggingface_hub import EvalResult

    results, left_out = [], []
    for column in content.columns:
        score = row.scores.get(column.name)
        if column.headline and score and isinstance(score.value, int | float):
            results.append(_result(content, column, score))
        elif column.headline:
            left_out.append(column.name)
    if row.overall and isinstance(row.overall.value, int | float):
        ends = {"low": row.overall.low, "high": row.overall.high}
        results.append(
            EvalResult(
                task_type=TASK,
                dataset_type="unlearn-bench",
                dataset_name=f"unlearn-bench, suite {content.suite}",
                dataset_config=content.suite,
                metric_type="overall",
                metric_name="overall (higher is better)",
                metric_value=row.overall.value,
                metric_args=_known(ends),
            )
        )
    return results, left_out


def _result(content: BoardFile, column: ColumnPart, score: ScorePart) -> EvalResult:
    from huggingface_hub import EvalResult

    protocol, asked = content.protocol, content.protocol.asked
    known = list_protocols().get(column.task)
    limit = protocol.tasks[column.task].items
    told = asked.tasks.get(column.task, {}) if asked else {}
    hashes = {str(name): text for name, text in told.items()}
    revision = hashes.pop("data_revision", None)
    scorer = {
        name: protocol.scorer[name] for name in ("name", "version") if name in protocol.scorer
    }
    figures = {name: getattr(score, name) for name in ("stderr", "low", "high", "n", "missing")}
    return EvalResult(
        task_type=TASK,
        dataset_type=column.task,
        dataset_name=known.title if known else column.task,
        dataset_config=content.suite,
        dataset_revision=revision or None,
        dataset_args={"limit": "all" if limit is None else limit, **hashes, "scorer": scorer},
        metric_type=column.metric,
        metric_name=f"{column.name} ({_better(column)})",
        metric_value=score.value,
        metric_args=_known(figures) | {"unit": column.unit},
    )


def _better(column: ColumnPart) -> str:
    words = {"nearer_exact": "best is the exact model's", "none": "no end is better"}
    return words.get(column.direction, f"{column.direction} is better")


def _known(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if value is not None}


def describe(publication: Publication) -> str:
    """Exactly what would be written: paths, sizes and hashes, or the card's metadata."""
    lines = [f"to the {publication.kind} {publication.to}, one commit: {publication.message}"]
    for path, content in publication.files.items():
        digest = hashlib.sha256(content).hexdigest()
        lines.append(f"  {path}: {len(content)} bytes, sha256 {digest}")
    if publication.results:
        lines.append(f"  {CARD}, metadata of {publication.row}, beside what the card has:")
        lines += [f"    {line}" for line in _model_index(publication).splitlines()]
    lines += [f"  left out, no finite value: {name}" for name in publication.left_out]
    return "\n".join(lines) + "\n"


def _model_index(publication: Publication) -> str:
    from huggingface_hub.repocard_data import eval_results_to_model_index

    name = publication.to.rpartition("/")[2]
    index = eval_results_to_model_index(name, list(publication.results))
    return yaml.safe_dump({"model-index": index}, sort_keys=False, allow_unicode=True)


def publish_board(publication: Publication, api: HfApi | None = None) -> str:
    """Send it as one commit; return the commit's address. api: the hub's, by default as
    huggingface_hub is set up. Raises UnlearnBenchError where the hub refuses or is not there.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    hub = api or HfApi()
    files, parent = dict(publication.files), None
    try:
        if publication.kind == "model":
            card, parent = _read_card(hub, publication.to)
            files[CARD] = with_results(card, publication).encode()
        commit = hub.create_commit(
            publication.to,
            [CommitOperationAdd(path, content) for path, content in files.items()],
            commit_message=publication.message,
            repo_type=publication.kind,
            parent_commit=parent,
        )
    except Exception as error:  # which HTTP library raises depends on huggingface_hub's version
        raise UnlearnBenchError(
            f"nothing was published: {str(error).splitlines()[0] if str(error) else error!r}",
            where=f"{publication.kind} {publication.to}",
            next_step="log in with `hf auth login`, and create the repository first if there is "
            "none; --dry-run shows what would be written",
        ) from error
    return str(commit.commit_url)


def _read_card(hub: HfApi, to: str) -> tuple[str, str | None]:
    """The card's text and the commit that it is of; both empty where the model has none."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with tempfile.TemporaryDirectory() as cache:  # the card as it is now, not as it was once
        try:
            path = Path(hub.hf_hub_download(to, CARD, cache_dir=cache))
        except RemoteEntryNotFoundError:  # a hub that is out of reach raises another
            return "", None
        return path.read_text(encoding="utf-8"), path.parent.name  # snapshots/<commit>/README.md


def with_results(card: str, publication: Publication) -> str:
    """The card with the results in its metadata, each in the place of the one that it repeats. The
    rest of the card is as it was. Raises ValueError for metadata that cannot be read.
    """
    from huggingface_hub import ModelCard

    name = publication.to.rpartition("/")[2]
    found = ModelCard(card or f"---\n{{}}\n---\n\n# {name}\n")
    new = list(publication.results)
    data: Any = found.data  # which fields it has depends on the card
    kept = [old for old in data.eval_results or () if not _is_repeated(old, new)]
    data.model_name = data.model_name or name
    data.eval_results = [*kept, *new]
    return str(found)


def _is_repeated(old: EvalResult, new: Sequence[EvalResult]) -> bool:
    """Whether a result is the same metric of the same data; its interval may be another."""
    same = ("metric_type", "metric_name", "dataset_args")
    return any(
        old.unique_identifier == one.unique_identifier
        and all(getattr(old, name) == getattr(one, name) for name in same)
        for one in new
    )
