"""Every command that is written down for users is run, on files that have the names it uses.

Those that only read run in full, on a real run of a tiny model. Those that would edit models run as
far as `--dry-run`: the whole command line, the model, the data and the plan are real then, and
what comes after is what the end-to-end tests run.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.unit import public_files
from tests.unit.test_cli import invoke
from tests.unit.written_commands import ROOT, Written, commands, mentions, whole_lines
from unlearn_bench.data.sources import SourceOptions, load_validation
from unlearn_bench.errors import MissingDataError
from unlearn_bench.models.open import open_model
from unlearn_bench.runs.tree import Tree

pytestmark = [pytest.mark.slow, pytest.mark.end_to_end]

SUITE = """
name: quick
tasks: [fur, truthfulqa, toxigen]
limits: {fur: 40, truthfulqa: 12, toxigen: 13}
paraphrases: 1
samples_per_prompt: 2
"""
METHOD = '''
from unlearn_bench.registry import method
from unlearn_bench.training.likelihood import nll_mean

@method("{name}", kind="loss", goals=("forget",), needs=("forget",), targets=("*",))
def loss(batch, policy, reference, *, alpha: float = 1.0, shrink: float = 0.5):
    """Ascent."""
    return -nll_mean(policy, batch.forget)
'''
# What is written for a reader to replace, and what stands there here.
REPLACED = {
    "org/name@commit": "model",  # a hub id; the hub's path is tested in test_models.py
    "fur,mmlu,wmdp_bio,my/task.yaml": "fur",  # hub data; run for real in test_other_tasks.py
    "shrink_perturb": "shrink_perturb.py",  # installed for real in test_plugin.py
}
PLANNED = {("evaluate",), ("tune",), ("sequence",)}


@pytest.fixture(scope="module", autouse=True)
def clean_tree() -> Iterator[None]:
    """Whoever works on this code has changes; what a gate says of that is in test_gate.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unlearn_bench.runs.tree.source_tree", lambda: Tree("abc"))
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, long_tiny_folder: Path) -> Path:
    """A folder with everything that the pages' commands name."""
    folder = tmp_path_factory.mktemp("world")
    for name in ("model", "edited", "edited-model"):
        shutil.copytree(long_tiny_folder, folder / name)
    for name in ("max_entropy", "my_method", "shrink_perturb"):
        (folder / f"{name}.py").write_text(METHOD.replace("{name}", name))
    public_files.write_all(folder / "my-data")
    for name in ("forget01", "forget01_perturbed"):
        ten = folder / "my-data" / "tofu" / f"{name.replace('01', '10')}.json"
        shutil.copy(folder / "my-data" / "tofu" / f"{name}.json", ten)
    shutil.copytree(ROOT / "examples" / "gate", folder / "examples" / "gate")
    (folder / "suite.yaml").write_text(SUITE)
    for output, seeds in (("runs", "1"), ("runs/b", "2")):
        result = invoke(
            *("evaluate", "--target", str(folder / "model"), "--methods", "npo", "--seeds", seeds),
            *("--suite", str(folder / "suite.yaml"), "--engine", "transformers", "--offline"),
            *("--scorer", "profanity_check", "--output", str(folder / output)),
        )
        assert result.exit_code == 0, result.output
    for place in ("runs/a", "runs/quick", "other/runs", "other-machine/runs"):
        shutil.copytree(folder / "runs" / "cells", folder / place / "cells")
    for cell in (folder / "runs" / "cells").glob("*noop*"):
        shutil.copytree(cell, folder / "runs" / "base" / "cells" / cell.name)
    (board,) = (folder / "runs" / "leaderboards").rglob("quick.json")
    for place in ("quick.json", "someone/quick.json", "leaderboards/smollm2-135m/quick.json"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(board, folder / place)
    result = invoke("gate", "init", str(folder / "runs:noop"), "-o", str(folder / "gate"))
    assert result.exit_code == 0, result.output
    winners = yaml.safe_load((ROOT / "leaderboards/smollm2-135m/tuning/tuned.yaml").read_text())
    winners["model_fingerprint"] = open_model(str(folder / "model")).fingerprint
    (folder / "runs" / "tune").mkdir()
    (folder / "runs" / "tune" / "tuned.yaml").write_text(yaml.safe_dump(winners))
    return folder


@pytest.fixture
def here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to work in, as the current folder, with the tiny model as the default one."""
    public_files.any_count(monkeypatch)
    place = Path(shutil.copytree(world, tmp_path / "here"))
    monkeypatch.chdir(place)
    monkeypatch.setenv("UNLEARN_BENCH_MODEL", "model")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return place


@pytest.fixture(scope="module")
def prompts() -> None:
    """The prompts that most suites ask. Skips where no package index and no cache has them."""
    try:
        load_validation("realtoxicityprompts", SourceOptions())
    except MissingDataError as error:
        pytest.skip(f"no prompts are to be had: {error}")


def path_of(words: list[str]) -> tuple[str, ...]:
    """The command that the words name: ("gate", "init")."""
    known = commands()
    path: tuple[str, ...] = ()
    for word in words:
        if (*path, word) not in known:
            break
        path = (*path, word)
    return path


def is_synopsis(command: Written) -> bool:
    return "[" in command.line or "..." in command.line


@pytest.mark.parametrize(
    "command",
    [c for c in whole_lines() if not is_synopsis(c)],
    ids=lambda c: c.line.partition("#")[0].strip(),
)
def test_it_runs(command: Written, here: Path, request: pytest.FixtureRequest) -> None:
    words = [REPLACED.get(word, word) for word in command.words]
    path = path_of(words)
    assert path, f"{command.place}: there is no such command"
    if path in PLANNED and "--help" not in words:
        words.append("--dry-run")
    if path in PLANNED:
        request.getfixturevalue("prompts")
    result = invoke(*words)
    assert result.exit_code == 0, f"{command.place}: {result.output}\n{result.exception!r}"


@pytest.mark.parametrize(
    "command",
    [*mentions(), *(c for c in whole_lines() if is_synopsis(c))],
    ids=lambda c: f"{c.place}: {c.line}",
)
def test_what_is_mentioned_exists(command: Written) -> None:
    words = re.findall(r"[\w./:@-]+", command.line)[1:]
    path = path_of(words)
    known = commands()
    assert path or words[0].startswith("--") or words[0] == "OPTIONS", command.place
    options = {name for part in known[path].params for name in (*part.opts, *part.secondary_opts)}
    asked = {word for word in words if word.startswith("-")}
    assert asked <= options | {"--help", "-h"}, command.place


def test_the_pages_have_commands_of_every_kind() -> None:
    """The search for them has not gone blind."""
    seen = {path_of(command.words) for command in whole_lines()}
    assert {
        path for path, command in commands().items() if not hasattr(command, "commands")
    } <= seen
