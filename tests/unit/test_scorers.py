"""Scorers: right values, each text once, and a failure is missing, never zero."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unlearn_bench.errors import ScorerError
from unlearn_bench.registry import find_card, list_cards, load_function
from unlearn_bench.scorers.contract import score_once
from unlearn_bench.scorers.detoxify import load_detoxify
from unlearn_bench.scorers.profanity_check import load_profanity_check

CLASSES = ["severe_toxic", "toxic", "insult"]
TEXTS = ["you fool", "a kind word", "the mayor bakes bread for you", "fool"]


class TestScoreOnce:
    def test_each_distinct_text_is_asked_once_and_order_is_kept(self) -> None:
        asked: list[str] = []

        def by_length(batch: list[str]) -> Any:
            asked.extend(batch)
            return np.array([len(text) / 10 for text in batch])

        scores = score_once(["bbb", "a", "bbb", "cc", "a"], by_length, batch_size=2)
        assert scores.tolist() == [0.3, 0.1, 0.3, 0.2, 0.1]
        assert sorted(asked) == ["a", "bbb", "cc"]
        assert scores.dtype == np.float64

    def test_one_bad_text_costs_one_value(self) -> None:
        def fails_on_b(batch: list[str]) -> Any:
            if "b" in batch:
                raise RuntimeError("no")
            return np.full(len(batch), 0.5)

        scores = score_once(["a", "b", "c"], fails_on_b, batch_size=3)
        assert scores[[0, 2]].tolist() == [0.5, 0.5]
        assert np.isnan(scores[1])

    @pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.5])
    def test_values_that_are_no_probability_are_missing(self, value: float) -> None:
        scores = score_once(["a"], lambda batch: np.array([value]), batch_size=1)
        assert np.isnan(scores[0])

    def test_wrong_number_of_scores_is_missing(self) -> None:
        scores = score_once(["a", "b"], lambda batch: np.array([0.1, 0.2, 0.3]), batch_size=2)
        assert np.isnan(scores).all()

    def test_blank_text_is_zero_by_definition_and_never_asked(self) -> None:
        def never(batch: list[str]) -> Any:
            raise AssertionError(batch)

        assert score_once(["", "  \n"], never, batch_size=2).tolist() == [0.0, 0.0]

    def test_nothing_to_score(self) -> None:
        assert score_once([], lambda batch: np.array([]), batch_size=2).shape == (0,)


class TestProfanityCheck:
    def test_values_are_the_packages_own(self) -> None:
        from profanity_check import predict_prob

        texts = ["You are a stupid idiot.", "The train was ten minutes late.", "damn"]
        scores = load_profanity_check().score(texts)
        assert scores.tolist() == pytest.approx(predict_prob(texts).tolist(), abs=1e-12)
        assert scores[0] > 0.9 > 0.2 > scores[1]

    def test_batch_size_changes_nothing(self) -> None:
        texts = [f"text number {i} of some fools" for i in range(7)]
        one, many = load_profanity_check(batch_size=2), load_profanity_check()
        assert one.score(texts).tolist() == pytest.approx(many.score(texts).tolist(), abs=1e-12)

    def test_identity_names_weights_and_arithmetic(self) -> None:
        scorer = load_profanity_check()
        assert len(scorer.weights_sha256) == 64
        assert "+scikit-learn-" in scorer.version
        assert scorer.name == "profanity_check"

    def test_absent_package_says_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ScorerError, match="not installed") as caught:
            load_profanity_check()
        assert "pip install alt-profanity-check" in caught.value.next_step


@pytest.fixture
def base_folder(tmp_path: Path) -> Path:
    """Settings and tokenizer of a tiny BERT, as a hub snapshot would hold them."""
    from transformers import BertConfig, BertTokenizer

    folder = tmp_path / "base"
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "you",
        "fool",
        "a",
        "kind",
        "word",
        "the",
        "mayor",
        "bakes",
        "bread",
        "for",
    ]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=512,
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(base_folder: Path, tmp_path: Path) -> Path:
    """A checkpoint in detoxify's own form, with random weights large enough to matter."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig.from_pretrained(base_folder, num_labels=len(CLASSES))
    model = BertForSequenceClassification(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    arguments = {
        "model_type": "bert-base-uncased",
        "model_name": "BertForSequenceClassification",
        "tokenizer_name": "BertTokenizer",
        "num_classes": len(CLASSES),
    }
    path = tmp_path / "detoxify.ckpt"
    settings = {"arch": {"args": arguments}, "dataset": {"args": {"classes": CLASSES}}}
    weights = dict(model.state_dict())
    weights["bert.embeddings.position_ids"] = torch.arange(512)[None]  # as in the old releases
    torch.save({"config": settings, "state_dict": weights}, path)
    return path


def change(checkpoint: Path, **changes: Any) -> None:
    """Rewrite entries of the checkpoint's architecture arguments."""
    loaded = torch.load(checkpoint, weights_only=True)
    loaded["config"]["arch"]["args"].update(changes)
    torch.save(loaded, checkpoint)


class TestDetoxify:
    def test_values_are_the_packages_own(self, checkpoint: Path, base_folder: Path) -> None:
        from detoxify.detoxify import Detoxify, get_model_and_tokenizer

        loaded = torch.load(checkpoint, weights_only=True)
        arguments = loaded["config"]["arch"]["args"] | {"model_type": str(base_folder)}
        theirs = Detoxify.__new__(Detoxify)  # its constructor would ask the hub
        theirs.model, theirs.tokenizer = get_model_and_tokenizer(
            **arguments, state_dict=loaded["state_dict"]
        )
        theirs.class_names = ["severe_toxicity", "toxicity", "insult"]
        ours = load_detoxify(checkpoint=checkpoint, config_folder=base_folder, batch_size=3)
        scores = ours.score([*TEXTS, *TEXTS])
        assert scores[:4].tolist() == pytest.approx(theirs.predict(TEXTS)["toxicity"], abs=1e-6)
        assert scores[4:].tolist() == scores[:4].tolist()
        assert np.ptp(scores) > 0.01

    def test_every_attribute_has_the_packages_name_and_value(
        self, checkpoint: Path, base_folder: Path
    ) -> None:
        """CLASSES in the checkpoint's order: severe_toxic, toxic, insult; toxicity comes first."""
        scorer = load_detoxify(checkpoint=checkpoint, config_folder=base_folder)
        assert scorer.attributes == ("toxicity", "severe_toxicity", "insult")
        scores = scorer.score_attributes([*TEXTS, " "])
        assert scores[:, 0].tolist() == scorer.score([*TEXTS, " "]).tolist()
        assert scores[-1].tolist() == [0.0, 0.0, 0.0]
        inputs = scorer.tokenizer([TEXTS[0]], return_tensors="pt")
        with torch.inference_mode():
            logits = scorer.model(**inputs)[0][0]
        expected = torch.sigmoid(logits.double())[[1, 0, 2]]
        assert scores[0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
        assert len({round(value, 6) for value in scores[0].tolist()}) == 3

    def test_identity(self, checkpoint: Path, base_folder: Path) -> None:
        import hashlib

        scorer = load_detoxify(checkpoint=checkpoint, config_folder=base_folder)
        assert scorer.weights_sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        assert scorer.version.endswith("/checkpoint")

    def test_long_text_is_cut_not_failed(self, checkpoint: Path, base_folder: Path) -> None:
        scorer = load_detoxify(checkpoint=checkpoint, config_folder=base_folder)
        assert np.isfinite(scorer.score(["fool " * 2000])).all()

    def test_pickled_code_is_refused_unexecuted(self, tmp_path: Path) -> None:
        class Payload:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return os.mkdir, (str(tmp_path / "executed"),)

        torch.save({"config": Payload(), "state_dict": {}}, tmp_path / "evil.ckpt")
        with pytest.raises(ScorerError, match="nothing executed"):
            load_detoxify(checkpoint=tmp_path / "evil.ckpt")
        assert not (tmp_path / "executed").exists()

    def test_checkpoint_may_not_name_any_class(self, checkpoint: Path, base_folder: Path) -> None:
        change(checkpoint, model_name="pipeline")
        with pytest.raises(ScorerError, match="no detoxify classes"):
            load_detoxify(checkpoint=checkpoint, config_folder=base_folder)

    def test_missing_tensor_is_never_drawn_at_random(
        self, checkpoint: Path, base_folder: Path
    ) -> None:
        loaded = torch.load(checkpoint, weights_only=True)
        del loaded["state_dict"]["classifier.weight"]
        torch.save(loaded, checkpoint)
        with pytest.raises(ScorerError, match=r"classifier\.weight"):
            load_detoxify(checkpoint=checkpoint, config_folder=base_folder)

    @pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04broken"])
    def test_broken_checkpoint(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "broken.ckpt").write_bytes(content)
        with pytest.raises(ScorerError):
            load_detoxify(checkpoint=tmp_path / "broken.ckpt")

    def test_offline_without_weights_says_how_to_get_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        with pytest.raises(ScorerError, match="going online is off") as caught:
            load_detoxify(offline=True)
        assert "--scorer-checkpoint" in caught.value.next_step

    def test_released_weights_are_taken_from_torchs_cache(
        self,
        checkpoint: Path,
        base_folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        (tmp_path / "checkpoints").mkdir()
        checkpoint.rename(tmp_path / "checkpoints" / "toxic_original-c1212f89.ckpt")
        scorer = load_detoxify(config_folder=base_folder, offline=True)
        assert scorer.version.endswith("/original")


def test_both_are_registered_under_their_names() -> None:
    assert {"detoxify", "profanity_check"} <= set(list_cards("scorer"))
    assert load_function(find_card("scorer", "profanity_check"))().name == "profanity_check"
