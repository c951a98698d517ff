"""Methods that are not ours join without an edit: from an installed package or from a file."""

from __future__ import annotations

import csv
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.table_model import TableModel, set_batches, token_batch
from unlearn_bench.methods.contract import EditContext, EditData
from unlearn_bench.methods.search import search_space
from unlearn_bench.registry import find_card, load_function

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "examples" / "unlearn-bench-shrink"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def with_example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the example package is installed as pip would."""
    target = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target"]
    pip = [sys.executable, "-m", "pip", "install", *options, str(target), str(EXAMPLE)]
    subprocess.run(pip, check=True)
    return target


@pytest.fixture
def method_file(tmp_path: Path) -> Path:
    """The method that docs/adding.md shows, saved beside the user's own work."""
    guide = (REPOSITORY / "docs" / "adding.md").read_text(encoding="utf-8")
    file = tmp_path / "mine" / "max_entropy.py"
    file.parent.mkdir()
    file.write_text(guide.split("```python\n")[1].split("```")[0], encoding="utf-8")
    return file


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs `unlearn-bench` in an empty folder; `site` is one more place to import from."""

    def start(*arguments: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
        return python("-m", "unlearn_bench", *arguments, site=site, folder=tmp_path)

    return start


def python(*arguments: str, site: Path | None, folder: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(str(path) for path in (site, REPOSITORY) if path)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
        check=False,
    )


def test_installed_method_is_listed_with_its_options(run: Run, with_example: Path) -> None:
    assert "shrink_perturb" not in run("list", "methods").stdout
    listing = run("list", "methods", site=with_example).stdout
    assert "shrink_perturb" in listing.splitlines()
    assert "shrink=0.95, noise=0.02" in listing
    assert "arXiv:1910.08475" in listing


CONTRACT = ("-m", "pytest", "-q", "-p", "no:cacheprovider", str(REPOSITORY / "tests" / "contract"))


@pytest.mark.slow
def test_the_contract_runs_over_an_installed_package(with_example: Path) -> None:
    """By the example's own command, from its folder: the card and C1 to C7."""
    answer = python(*CONTRACT, "-k", "shrink_perturb", site=with_example, folder=EXAMPLE)
    assert answer.returncode == 0, answer.stdout
    passed = re.search(r"(\d+) passed", answer.stdout)
    assert passed is not None
    assert int(passed[1]) >= 8
    assert "skipped" not in answer.stdout


@pytest.mark.slow
def test_the_contract_catches_a_package_that_breaks_its_promise(
    with_example: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    shutil.copytree(with_example, site)
    file = site / "unlearn_bench_shrink" / "shrink_perturb.py"
    text = file.read_text(encoding="utf-8").replace('targets=("*.mlp.down', 'targets=("*.mlp.up')
    file.write_text(text, encoding="utf-8")
    answer = python(*CONTRACT, "-k", "shrink_perturb and c5", site=site, folder=tmp_path)
    assert answer.returncode == 1, answer.stdout
    assert "which is not among its targets" in answer.stdout


def test_the_guides_method_is_listed(run: Run, method_file: Path) -> None:
    assert "max_entropy" not in run("list", "methods").stdout
    listing = run("list", "methods", "--file", str(method_file)).stdout
    assert "max_entropy" in listing
    assert "for: forget; needs: forget, retain" in listing


def test_the_guides_method_by_hand(method_file: Path) -> None:
    """Forget answers 2 and 1 are predicted after 0, from (1/2, 1/4, 1/4), and after 2, from
    (1/8, 1/8, 3/4): H = 1.5·ln 2 and 2.25·ln 2 − 0.75·ln 3. The prompt token 1 stays out. With
    α = 1/2 and NLL_m(retain) = ln 4 the loss is ln 3 − mean H + ln 2 = 0.9041.
    """
    card = find_card("method", "max_entropy", (method_file,))
    policy = TableModel([[1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 2, 1 / 4], [1 / 8, 1 / 8, 3 / 4]])
    batch = set_batches(forget=token_batch(([1, 0, 2, 1], 2)), retain=token_batch(([1, 2], 1)))
    loss = load_function(card)(batch, policy, None, alpha=0.5)
    ln2, ln3 = math.log(2), math.log(3)
    assert loss.item() == pytest.approx(ln3 - (3.75 * ln2 - 0.75 * ln3) / 2 + ln2, abs=1e-6)
    assert search_space(card).keys() == {"lr", "epochs", "alpha"}


def test_name_taken_twice_is_refused(run: Run, method_file: Path) -> None:
    text = method_file.read_text(encoding="utf-8").replace('"max_entropy"', '"noop"')
    method_file.write_text(text, encoding="utf-8")
    answer = run("list", "methods", "--file", str(method_file))
    assert answer.returncode == 2
    assert "two methods are called 'noop'" in answer.stderr


@pytest.mark.parametrize(
    ("options", "factor"),
    [({"shrink": 0.5, "noise": 0.0}, 0.5), ({"shrink": 1.0, "noise": 0.0}, 1)],
)
def test_example_scales_its_targets_and_nothing_else(
    options: dict[str, float],
    factor: float,
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Without noise, W becomes shrink·W exactly: halving and multiplying by one round nothing."""
    card, function = load_example()
    before = {name: weight.clone() for name, weight in tiny_model.named_parameters()}
    function(make_context(tiny_model, tiny_tokenizer), **options)
    (pattern,) = card.facts["targets"]
    assert sum(fnmatch(name, pattern) for name in before) == 3
    for name, weight in tiny_model.named_parameters():
        assert weight.equal(before[name] * (factor if fnmatch(name, pattern) else 1)), name


def test_examples_noise_has_the_stated_size(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """With shrink = 1 the difference has standard deviation noise·σ(W).

    W has 32·48 = 1536 entries, so the sample deviation is within 1/√(2·1536) ≈ 1.8 % of it.
    """
    weight = tiny_model.get_parameter("model.layers.1.mlp.down_proj.weight")
    before = weight.detach().clone()
    load_example()[1](make_context(tiny_model, tiny_tokenizer), shrink=1.0, noise=0.1)
    ratio = float((weight.detach() - before).std() / before.std())
    assert ratio == pytest.approx(0.1, rel=4 * 0.018)


def load_example() -> tuple[Any, Any]:
    file = EXAMPLE / "unlearn_bench_shrink" / "shrink_perturb.py"
    card = find_card("method", "shrink_perturb", (file,))
    return card, load_function(card)


def make_context(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Any:
    return EditContext(model, tokenizer, EditData(), seed=0, reference=lambda: model)


@pytest.mark.slow
@pytest.mark.end_to_end
def test_both_reach_the_board(
    run: Run, with_example: Path, method_file: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    answer = run(
        *("evaluate", "--offline", "--engine", "transformers", "--output", "runs"),
        *("--target", str(tiny_folder), "--suite", "smoke", "--tasks", "fur", "--limit", "2"),
        *("--methods", f"shrink_perturb,{method_file}"),
        *("--set", "shrink_perturb.shrink=0.5", "--set", "max_entropy.steps=1"),
        site=with_example,
    )
    assert answer.returncode == 0, answer.stderr
    (board,) = (tmp_path / "runs").rglob("smoke*.csv")
    rows = {row["method"]: row for row in csv.DictReader(board.open(encoding="utf-8"))}
    assert set(rows) == {"noop", "shrink_perturb", "max_entropy"}
    score = next(name for name in rows["noop"] if name.startswith("fur."))
    assert rows["shrink_perturb"][score]
