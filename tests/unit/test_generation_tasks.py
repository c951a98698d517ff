"""The generation and classification tasks on a tiny model: their values are lm-eval's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from data_files import REAL_DATA, needs_real_data, write_parquet
from lm_eval.api.instance import Instance
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks.toxigen.utils import doc_to_target as stock_label
from lm_eval.tasks.truthfulqa.utils import preprocess_function, process_results_gen

from unlearn_bench.data import toxigen_classification
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.sources import load_documents
from unlearn_bench.engine.base import Engine, open_engine
from unlearn_bench.engine.evaluate import evaluate, load_tasks
from unlearn_bench.engine.lm import EngineLM
from unlearn_bench.errors import UnlearnBenchError
from unlearn_bench.models.fingerprint import fingerprint
from unlearn_bench.models.load import load_model
from unlearn_bench.protocols.catalog import find_protocol
from unlearn_bench.schema import Sample

LIMITS = {"truthfulqa_gen_mini": 3, "truthfulqa_mini": 2, "toxigen_classification_mini": 6}


def build_tasks(folder: Path | None = None, **limits: int) -> dict[str, Any]:
    return load_tasks(
        [find_protocol(name) for name in limits],
        limits=limits,
        samples_per_prompt=1,
        paraphrases=0,
        sources=SourceOptions(folder, offline=True),
    )


@pytest.fixture(scope="module")
def engine(tiny_folder: Path) -> Iterator[Engine]:
    opened = open_engine("transformers", "float32")
    opened.load(tiny_folder, fingerprint(tiny_folder))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def ours(engine: Engine) -> dict[str, list[Sample]]:
    samples = evaluate(engine, build_tasks(**LIMITS), seed=0)
    names = {sample.task for sample in samples}
    return {name: [sample for sample in samples if sample.task == name] for name in names}


@pytest.fixture(scope="module")
def stock(tiny_folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What unmodified lm-eval logs for the same items through its own transformers model."""
    model, tokenizer = load_model(tiny_folder)
    results = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2),
        tasks=list(build_tasks(**LIMITS).values()),
        bootstrap_iters=0,
        fewshot_random_seed=1234,
    )
    assert results is not None
    return dict(results["samples"])


def test_two_tasks_over_one_data_set_keep_their_own_limits(ours: dict[str, list[Sample]]) -> None:
    """truthfulqa_mini was limited to 2 questions and truthfulqa_gen_mini to 3."""
    assert len(ours["truthfulqa_mini_mc1"]) == 2
    assert len(ours["truthfulqa_gen_mini"]) == 3


def test_generated_answers_and_their_similarities_are_lm_evals(
    ours: dict[str, list[Sample]], stock: dict[str, list[dict[str, Any]]]
) -> None:
    for sample, logged in zip(
        ours["truthfulqa_gen_mini"], stock["truthfulqa_gen_mini"], strict=True
    ):
        assert sample.outputs[0] == logged["resps"][0][0]
        assert len(sample.values) == 12
        assert sample.values == {name: logged[name] for name in logged["metrics"]}


def test_labels_are_the_same_answer_for_answer(
    ours: dict[str, list[Sample]], stock: dict[str, list[dict[str, Any]]]
) -> None:
    name = "toxigen_classification_mini"
    for sample, logged in zip(ours[name], stock[name], strict=True):
        theirs = [float(response[0][0]) for response in logged["resps"]]
        assert [value for value, _ in sample.likelihoods] == pytest.approx(theirs, abs=1e-4)
        assert sample.values == {name: logged[name] for name in ("acc", "acc_norm")}
        assert "Is the following statement hateful?" in sample.prompt


def test_stock_process_results_by_hand() -> None:
    """A false reference repeated word for word: BLEU and ROUGE are 100 to it, so `_acc` is 0.

    lm-eval ends every reference with a full stop and adds "I have no comment." to the true ones;
    that reference repeated is an answer nearer to the truth.
    """
    row = {"question": "q", "correct_answers": ["No"], "incorrect_answers": ["Yes it is green"]}
    document = preprocess_function(row)
    false = process_results_gen(document, ["Yes it is green."])
    assert (false["bleu_acc"], false["rouge1_acc"], false["rougeL_acc"]) == (0, 0, 0)
    assert false["rouge1_diff"] == pytest.approx(false["rouge1_max"] - 100)
    true = process_results_gen(document, ["I have no comment."])
    assert (true["bleu_acc"], true["rouge1_acc"], true["rouge1_max"]) == (1, 1, 100)


class TestToxigenClassification:
    def test_hub_rows_have_stock_labels(self, tmp_path: Path) -> None:
        """Sums of ratings 5.5 and 5.6 lie on both sides of lm-eval's rule, which is strict."""
        ratings = [(1.0, 1.0), (2.5, 3.0), (2.6, 3.0), (5.0, 5.0)]
        rows = [
            {"text": f"statement {number}", "toxicity_ai": ai, "toxicity_human": human}
            for number, (ai, human) in enumerate(ratings)
        ]
        write_parquet(tmp_path / toxigen_classification.HUB_FILE, rows)
        found = toxigen_classification.read_hub(tmp_path)["test"]
        labels = {row["text"]: row["hateful"] for row in found}
        assert labels == {row["text"]: int(stock_label(row)) for row in rows}
        assert [labels[f"statement {number}"] for number in range(4)] == [0, 0, 1, 1]

    def test_mini_is_balanced(self) -> None:
        rows = load_documents("toxigen_classification_mini", SourceOptions(offline=True))
        labels = [row["hateful"] for row in rows.splits["test"]]
        assert sum(labels) * 2 == len(labels) == 40
        assert sum(labels[:8]) == 4, "every prefix is balanced"

    @needs_real_data
    def test_real_labels(self) -> None:
        rows = load_documents("toxigen_classification", SourceOptions(REAL_DATA)).splits["test"]
        assert (len(rows), sum(row["hateful"] for row in rows)) == (6514, 2767)
        prefix = [row["hateful"] for row in rows[:1000]]
        assert abs(sum(prefix) / 1000 - 2767 / 6514) < 0.05


@needs_real_data
def test_the_challenging_prompts_are_continued_once_and_greedily(engine: Engine) -> None:
    tasks = build_tasks(REAL_DATA, realtoxicityprompts_greedy_challenging=3)
    samples = evaluate(engine, tasks, seed=0)
    again = evaluate(engine, tasks, seed=1)
    assert [sample.outputs for sample in samples] == [sample.outputs for sample in again]
    assert all(len(sample.outputs) == 1 for sample in samples)
    assert all(sample.document["challenging"] for sample in samples)


def test_a_text_longer_than_the_model_reads_is_refused(engine: Engine) -> None:
    """With no room left for the prompt nothing of it would be asked."""
    wanted = {"max_gen_toks": engine.max_length, "until": []}
    request = Instance("generate_until", {}, ("A question", wanted), 0)
    lm = EngineLM(engine, seed=0, progress=lambda done, total: None)
    with pytest.raises(UnlearnBenchError, match=f"{engine.max_length} new tokens"):
        lm.generate_until([request])
