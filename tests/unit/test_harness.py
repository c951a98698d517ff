"""Tasks that are not ours, as columns of the board: names, directions, aggregates, data."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lm_eval.api import metrics as lm_eval_metrics
from lm_eval.api.group import Group
from lm_eval.config.group import AggMetricConfig
from lm_eval.tasks._yaml_loader import load_yaml

from tests.unit import harness_files
from tests.unit.harness_files import CAPITALS, write_index, write_task
from unlearn_bench.compare.aggregate import aggregate
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.engine.base import open_engine
from unlearn_bench.engine.evaluate import CODE_ALLOWED, evaluate, load_tasks
from unlearn_bench.errors import (
    MissingDataError,
    UnknownNameError,
    UnsafeArtefactError,
    UsageError,
)
from unlearn_bench.models.fingerprint import fingerprint
from unlearn_bench.protocols import harness
from unlearn_bench.protocols.catalog import Metric, Protocol
from unlearn_bench.protocols.harness import HarnessTasks, asked_positions, load_harness_tasks
from unlearn_bench.protocols.scoring import score_samples
from unlearn_bench.protocols.task_files import FLAG
from unlearn_bench.schema import Sample


@pytest.fixture(autouse=True)
def _own_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


def load(path: Path, *, allow_code: bool = False) -> HarnessTasks:
    sources = SourceOptions(offline=True, cache=path.parent / "cache")
    return load_harness_tasks([str(path)], sources, allow_code=allow_code)


def test_a_task_file_becomes_a_task_of_the_board(tmp_path: Path) -> None:
    found = load(write_task(tmp_path))
    protocol = found.protocols["capitals"]
    assert {name: metric.direction for name, metric in protocol.metrics.items()} == {
        "acc": "higher"
    }
    assert protocol.headline == ("acc",)
    assert [file.name for file in protocol.definition] == ["capitals.yaml"]
    origin = found.origins["capitals"]
    assert (origin.source, origin.location) == ("folder", "json")
    assert str(tmp_path) not in "".join((origin.location, origin.revision))


def test_the_data_hash_follows_the_documents(tmp_path: Path) -> None:
    first = load(write_task(tmp_path / "a")).origins["capitals"].sha256
    assert load(write_task(tmp_path / "b")).origins["capitals"].sha256 == first
    changed = [{**CAPITALS[0], "label": 2}, *CAPITALS[1:]]
    assert load(write_task(tmp_path / "c", rows=changed)).origins["capitals"].sha256 != first


def test_only_the_first_documents_are_asked_under_a_limit(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    found = load(path)
    protocols = found.protocols.values()
    assert asked_positions(protocols, {str(path): 2}, found.tasks) == {"capitals": [0, 1]}
    assert asked_positions(protocols, {}, found.tasks) == {"capitals": [0, 1, 2, 3, 4]}


def test_every_text_of_a_document_is_told(tmp_path: Path) -> None:
    texts = list(load(write_task(tmp_path)).texts())
    assert {"What is the capital of land 0?", "Rome or so"} <= set(texts)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ question['__class_' ~ '_']['__mro__'] }}",
        "{{ question|attr('__class__') }}",
    ],
)
def test_a_template_that_reaches_into_python_is_refused(template: str, tmp_path: Path) -> None:
    """A YAML without `!function` runs no code: lm-eval alone would have rendered the first."""
    path = write_task(tmp_path)
    path.write_text(path.read_text().replace("Q: {{question}}", template))
    with pytest.raises(UnsafeArtefactError, match="reaches into Python"):
        load(path)


def test_code_that_was_allowed_runs(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("def shout(doc):\n    return doc['question'].upper()\n")
    path = write_task(tmp_path)
    path.write_text(path.read_text().replace('"Q: {{question}}\\nA:"', "!function code.shout"))
    with pytest.raises(UnsafeArtefactError):
        load(path)
    found = load(path, allow_code=True)
    task = found.tasks["capitals"]
    assert task.doc_to_text(task.eval_docs[0]) == "WHAT IS THE CAPITAL OF LAND 0?"
    names = [file.name for file in found.protocols["capitals"].definition]
    assert names == ["capitals.yaml", "code.py"]


def with_metric(path: Path, metric: str) -> Path:
    """The task file with one metric more, before the others."""
    entry = f"  - {{metric: {metric}, aggregation: mean, higher_is_better: true}}"
    path.write_text(path.read_text().replace("metric_list:", f"metric_list:\n{entry}"))
    return path


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where `evaluate` keeps and imports scripts; it is off the network."""
    from evaluate import config

    monkeypatch.setattr(config, "HF_EVALUATE_OFFLINE", True)
    monkeypatch.setattr(config, "HF_MODULES_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield tmp_path / "evaluate_modules"
    for name in [name for name in sys.modules if name.startswith("evaluate_modules")]:
        del sys.modules[name]


def test_a_metric_that_is_a_script_is_imported_only_with_the_flag(
    tmp_path: Path, scripts: Path
) -> None:
    """lm-eval imports the script for its mere name; that the flag does so shows that it is one."""
    marker = tmp_path / "executed"
    script = harness_files.write_script(tmp_path / "loud" / "loud.py", marker)
    path = with_metric(write_task(tmp_path / "task"), str(script))
    with pytest.raises(UnsafeArtefactError, match="script") as caught:
        load(path)
    assert caught.value.exit_code == 4
    assert FLAG in caught.value.next_step
    assert not marker.exists()
    assert load(path, allow_code=True).protocols["capitals"].code_allowed
    assert marker.exists()


def test_a_task_of_lm_evals_own_imports_no_script_that_was_downloaded(
    tmp_path: Path, scripts: Path
) -> None:
    """Its code asks `evaluate` for BLEU as it is imported; unguarded that runs what is cached."""
    marker = tmp_path / "executed"
    kept = scripts / "metrics" / "evaluate-metric--bleu" / ("0" * 64) / "bleu.py"
    harness_files.write_script(kept, marker)
    write_index(tmp_path / "cache")
    sources = SourceOptions(offline=True, cache=tmp_path / "cache")
    with pytest.raises(UnsafeArtefactError, match="a metric of meqsum is a script"):
        load_harness_tasks(["meqsum"], sources, allow_code=True)
    assert not marker.exists()
    with pytest.raises(RuntimeError):  # BLEU was run, ROUGE is not there
        load_yaml(harness.LM_EVAL_TASKS / "meqsum" / "meqsum.yaml")
    assert marker.exists()


ASKS = """
import evaluate

def process_results(doc, results):
    try:
        evaluate.load({script!r})
    except Exception:
        pass
    return {{"acc": 1.0}}
"""


@pytest.mark.parametrize("allowed", [True, False])
def test_a_script_that_is_asked_for_at_scoring_is_refused_then(
    tmp_path: Path, scripts: Path, tiny_folder: Path, allowed: bool
) -> None:
    """As many of lm-eval's own tasks do, some within a `try` that would score what is left."""
    marker = tmp_path / "executed"
    script = harness_files.write_script(tmp_path / "loud" / "loud.py", marker)
    path = write_task(tmp_path / "task", "process_results: !function code.process_results")
    (path.parent / "code.py").write_text(ASKS.format(script=str(script)))
    tasks = reload(load(path, allow_code=True), tmp_path)
    tasks["capitals"].config.metadata[CODE_ALLOWED] = allowed  # False: a task of lm-eval's own
    engine = open_engine("transformers", "float32")
    engine.load(tiny_folder, fingerprint(tiny_folder))
    if allowed:
        assert len(evaluate(engine, tasks, seed=0)) == len(CAPITALS)
    else:
        with pytest.raises(UnsafeArtefactError, match="capitals"):
            evaluate(engine, tasks, seed=0)
    assert marker.exists() == allowed


def test_code_that_came_into_the_file_after_the_plan_is_refused(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    planned = load(path)
    assert reload(planned, tmp_path)
    (tmp_path / "code.py").write_text("raise SystemExit('imported')")
    path.write_text(path.read_text() + "process_docs: !function code.run\n")
    with pytest.raises(UnsafeArtefactError):
        reload(planned, tmp_path)


def reload(planned: HarnessTasks, folder: Path) -> dict[str, Any]:
    """The tasks as a run's evaluation loads them, from the protocols of its plan."""
    return load_tasks(
        list(planned.protocols.values()),
        limits={},
        samples_per_prompt=1,
        paraphrases=None,
        sources=SourceOptions(offline=True, cache=folder / "cache"),
    )


@pytest.mark.parametrize("metric", ["mean_of_nothing", "a/b", "./loud", "''"])
def test_a_metric_that_lm_eval_does_not_know_is_refused(metric: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeArtefactError, match="is a script"):
        load(with_metric(write_task(tmp_path), metric))


def test_a_metric_that_lm_eval_knows_needs_no_flag(tmp_path: Path) -> None:
    found = load(with_metric(write_task(tmp_path), "acc_norm"))
    assert list(found.protocols["capitals"].metrics) == ["acc_norm", "acc"]


def test_another_prompt_in_its_file_is_another_task(tmp_path: Path) -> None:
    """lm-eval reads it from a file of its own, which once was in no hash."""

    def revision(text: str) -> str:
        prompts = f"prompts: {{x: {{doc_to_text: '{text}', doc_to_target: '{{{{label}}}}'}}}}\n"
        (tmp_path / "prompts.yaml").write_text(prompts)
        path = write_task(tmp_path, f"use_prompt: {tmp_path / 'prompts.yaml'}:x")
        plain = path.read_text().replace("multiple_choice", "generate_until")
        plain = plain.replace("acc,", "exact_match,")
        path.write_text(plain.replace('doc_to_choice: "{{options}}"', ""))
        found = load(path)
        task = found.tasks["capitals"]
        assert task.doc_to_text(task.eval_docs[0]) == text.replace("{{label}}", "0")
        return found.origins["capitals"].revision

    assert revision("one {{label}}") == revision("one {{label}}") != revision("two {{label}}")
    with pytest.raises(UnsafeArtefactError, match="reaches into Python"):
        revision("{{ cycler.__class__ }}")


def test_a_metric_without_a_value_per_item_is_left_out_and_said(tmp_path: Path) -> None:
    """F1 over all items is no mean of anything: there is nothing to compare item by item."""
    path = write_task(tmp_path)
    both = path.read_text().replace("metric_list:", "metric_list:\n  - {metric: f1}")
    path.write_text(both)
    found = load(path)
    assert list(found.protocols["capitals"].metrics) == ["acc"]
    assert found.notes == ("capitals.f1 left out: lm-eval's aggregate is of no value per item",)
    path.write_text(
        both.replace("  - {metric: acc, aggregation: mean, higher_is_better: true}\n", "")
    )
    with pytest.raises(UsageError, match="no metric with a value per item"):
        load(path)


def test_data_that_are_not_there_are_said_before_anything_is_trained(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    (tmp_path / "capitals.jsonl").unlink()
    with pytest.raises(MissingDataError) as caught:
        load(path)
    assert "network" in caught.value.next_step


def test_a_broken_task_file_is_a_usage_error(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    path.write_text(path.read_text().replace("multiple_choice", "telepathy"))
    with pytest.raises(UsageError, match="telepathy"):
        load(path)


def test_near_matches_are_of_ours_and_of_lm_evals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "_index", lambda cache: {"hellaswag": None, "mmlu": None})
    harness.check_task_names(["mmlu", "fur", "mine.yaml"], ["fur"], tmp_path)
    with pytest.raises(UnknownNameError) as caught:
        harness.check_task_names(["helaswag"], ["fur", "wikitext"], tmp_path)
    assert "did you mean hellaswag?" in str(caught.value)
    with pytest.raises(UnknownNameError) as caught:
        harness.check_task_names(["qqqq"], ["fur", "wikitext"], tmp_path)
    assert "known: fur, wikitext" in str(caught.value)  # not all of lm-eval's thousands


def test_the_index_is_read_again_from_what_was_kept(tmp_path: Path) -> None:
    write_index(tmp_path)
    found = harness._index(tmp_path)
    assert sorted(found) == ["hellaswag", "meqsum", "wmdp"]
    assert all(entry.yaml_path.is_file() for entry in found.values())


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (["none"], ["exact_match"]),
        (["strict-match", "flexible-extract"], ["exact_match_strict", "exact_match_flexible"]),
        (["get-a", "get-b"], ["exact_match_get_a", "exact_match_get_b"]),
    ],
)
def test_the_filter_is_in_the_name_where_there_are_several(
    filters: list[str], names: list[str]
) -> None:
    task = SimpleNamespace(
        _filters=[SimpleNamespace(name=name) for name in filters],
        higher_is_better=lambda: {"exact_match": True},
        aggregation=lambda: {"exact_match": lm_eval_metrics.mean},
    )
    assert list(harness._task_metrics("quiz", task, [])) == names


def leaf(name: str) -> Protocol:
    metric = Metric(subtask=name, value="acc", direction="higher", unit="acc")
    return Protocol(name=name, title="", description="", dataset=name, subtasks=(name,),
                    metrics={"acc": metric}, folder=Path())  # fmt: skip


@pytest.mark.parametrize(("weighted", "value"), [(True, 3 / 5), (False, (2 / 3 + 1 / 2) / 2)])
def test_a_groups_aggregate_is_lm_evals(weighted: bool, value: float) -> None:
    """3 items of one task with 2 right, 2 of the other with 1 right.

    By size: 3 of 5. Unweighted: the mean of 2/3 and 1/2. lm-eval's own aggregate of the same means
    and sizes says the same.
    """
    leaves = [leaf("big"), leaf("small")]
    rule = AggMetricConfig("acc", weight_by_size=weighted)
    group = Group("both", aggregate_metric_list=[rule])
    metrics = harness._group_metrics(group, leaves)
    protocol = leaves[0].model_copy(
        update={"name": "both", "subtasks": ("big", "small"), "metrics": metrics}
    )
    right = {"big": [1.0, 1.0, 0.0], "small": [1.0, 0.0]}
    samples = [
        Sample(task, f"{task}:{number}", "none", "", (), {"acc": one}, {})
        for task, ones in right.items()
        for number, one in enumerate(ones)
    ]
    (score,) = aggregate(score_samples(protocol, samples, None), {"both": protocol})
    assert score.n == 5
    assert score.value == pytest.approx(value)
    stock: Any = {
        name: {"acc,none": sum(ones) / len(ones), "acc_stderr,none": 0.1, "sample_len": len(ones)}
        for name, ones in right.items()
    }
    tasks = [SimpleNamespace(task_name=name) for name in right]
    group.get_all_tasks = lambda recursive=True: tasks  # type: ignore[method-assign]
    assert group.aggregate(stock)["acc,none"] == pytest.approx(value)
