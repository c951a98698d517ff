"""The embedded scorer: pooled embeddings, a head that is fitted the same twice, no half judgement.

Most of it on a tiny encoder with random weights; what only the real MiniLM can show is skipped
where its package is not in the cache.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from unlearn_bench.errors import MissingDataError, ScorerError
from unlearn_bench.models import minilm
from unlearn_bench.registry import find_card
from unlearn_bench.runs import judge
from unlearn_bench.runs.judge import load_judge
from unlearn_bench.scorers import sentences
from unlearn_bench.scorers.checkpoint import hash_files
from unlearn_bench.scorers.embedded import HEAD, Embedded, load_embedded
from unlearn_bench.scorers.head import Head, fit_head, head_json, read_head
from unlearn_bench.scorers.profanity_check import load_profanity_check
from unlearn_bench.scorers.sentences import load_encoder

WORDS = ["you", "fool", "a", "kind", "word", "the", "mayor", "bakes", "bread", "for", "##s"]
TEXTS = ["you fool", "a kind word for the mayor", "bread", "You FOOLS for the bread"]
WIDTH = 16


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny encoder's files, named as MiniLM's, and a head on it."""
    from transformers import BertConfig, BertModel

    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    sizes = {"vocab_size": len(entries), "hidden_size": WIDTH, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "intermediate_size": 32}
    monkeypatch.setattr(sentences, "SIZES", sizes)
    made = tmp_path / "encoder"
    made.mkdir()
    (made / "vocab.txt").write_text("\n".join(entries) + "\n")
    torch.manual_seed(0)
    model = BertModel(BertConfig(**sizes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    weights = dict(model.state_dict())
    weights["embeddings.position_ids"] = torch.arange(512)[None]  # as in the package's file
    save_file(weights, made / "model.safetensors")
    draw = np.random.default_rng(0)
    write_head(
        made, Head(tuple(draw.normal(size=WIDTH).round(4).tolist()), 0.1, encoder_hash(made))
    )
    return made


def encoder_hash(folder: Path) -> str:
    return hash_files([folder / "model.safetensors", folder / "vocab.txt"])


def write_head(folder: Path, head: Head) -> None:
    (folder / "head.json").write_text(head_json(head))


def load(folder: Path, **options: Any) -> Embedded:
    return load_embedded(checkpoint=folder, head=folder / "head.json", **options)


class TestEncoder:
    def test_the_mean_of_the_last_states_without_padding_of_length_one(self, folder: Path) -> None:
        from transformers import BertModel, BertTokenizer

        encoder = load_encoder(folder / "model.safetensors", folder / "vocab.txt")
        rows = encoder.embed(TEXTS)
        model = BertModel(encoder.model.config).eval()
        weights = load_file(folder / "model.safetensors")
        del weights["embeddings.position_ids"]
        model.load_state_dict(weights)
        tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"))
        for text, row in zip(TEXTS, rows, strict=True):
            with torch.inference_mode():
                states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            mean = states.double().mean(dim=0)
            assert row.tolist() == pytest.approx((mean / mean.norm()).tolist(), abs=1e-5)
        assert np.linalg.norm(rows, axis=1).tolist() == pytest.approx([1.0] * 4, abs=1e-6)
        assert np.ptp(rows, axis=0).max() > 0.05

    def test_long_text_is_cut(self, folder: Path) -> None:
        encoder = load_encoder(folder / "model.safetensors", folder / "vocab.txt")
        long, longer = encoder.embed(["bread " * 130, "bread " * 600 + "fool"])
        assert long.tolist() == pytest.approx(longer.tolist(), abs=1e-6)

    def test_a_missing_tensor_is_never_drawn_at_random(self, folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        del weights["encoder.layer.0.attention.self.query.weight"]
        save_file(weights, folder / "model.safetensors")
        with pytest.raises(ScorerError, match=r"query\.weight"):
            load_encoder(folder / "model.safetensors", folder / "vocab.txt")


class TestHead:
    def test_probability_by_hand(self) -> None:
        """Weights 1 and −2, intercept ½: e = (1, ½) gives 1/(1+e^−½), e = (0, ¼) gives ½."""
        head = Head((1.0, -2.0), 0.5, "")
        found = head.probability(np.array([[1.0, 0.5], [0.0, 0.25]]))
        assert found.tolist() == pytest.approx([1 / (1 + np.exp(-0.5)), 0.5])

    def test_a_fit_is_the_same_again_and_is_the_minimum(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The gradient of Σ log-loss + ‖w‖²/2 vanishes: Σ (p − y) e + w = 0, Σ (p − y) = 0."""
        monkeypatch.setattr("unlearn_bench.scorers.head.PLACES", 9)
        draw = np.random.default_rng(0)
        rows = draw.normal(size=(400, 5))
        toxic = rows @ np.array([1.0, -1.0, 0.5, 0.0, 2.0]) + draw.logistic(size=400) > 0.3
        made = [
            fit_head(rows, toxic.tolist(), encoder_sha256="e", fitted_on={"seed": 0})
            for _ in range(2)
        ]
        assert head_json(made[0]) == head_json(made[1])
        wrong = made[0].probability(rows) - toxic
        assert (rows.T @ wrong + np.array(made[0].weights)).tolist() == pytest.approx(
            [0.0] * 5, abs=1e-5
        )
        assert wrong.sum() == pytest.approx(0.0, abs=1e-5)

    def test_another_machines_rounding_gives_the_same_file(self) -> None:
        """Embeddings in float32 are 1e-7 apart from one machine to the next."""
        draw = np.random.default_rng(0)
        rows = draw.normal(size=(2000, 20)) / 4
        toxic = (rows[:, 0] + draw.normal(size=2000) / 4 > 0).tolist()
        near = rows + draw.normal(size=rows.shape) * 1e-7
        one, other = (fit_head(e, toxic, encoder_sha256="", fitted_on={}) for e in (rows, near))
        assert head_json(one) == head_json(other)

    def test_written_and_read(self, tmp_path: Path) -> None:
        head = Head((0.25, -1.5), 0.125, "abc", {"comments": "pypi:x", "each": 10})
        (tmp_path / "head.json").write_text(head_json(head))
        assert read_head(tmp_path / "head.json") == head

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"weights": ["x"]}', '{"weights": [1]}'])
    def test_broken(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "head.json").write_text(content)
        with pytest.raises(ScorerError, match="head cannot be read"):
            read_head(tmp_path / "head.json")


class TestEmbedded:
    def test_the_larger_of_the_two_probabilities(self, folder: Path) -> None:
        texts = [*TEXTS, "you damn stupid idiot"]
        scorer = load(folder, batch_size=2)
        words = load_profanity_check().score(texts)
        head = scorer.head.probability(scorer.encoder.embed(texts))
        assert (words > head).any()
        assert (head > words).any()
        scores = scorer.score([*texts, texts[0], " "])
        expected = [*np.maximum(words, head), max(words[0], head[0]), 0.0]
        assert scores.tolist() == pytest.approx(expected, abs=1e-5)

    @pytest.mark.parametrize("part", ["profanity", "head"])
    def test_half_a_judgement_is_a_missing_one(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, part: str
    ) -> None:
        scorer = load(folder)
        nothing = np.array([np.nan])
        if part == "profanity":
            object.__setattr__(scorer, "profanity", lambda batch: nothing)
        else:
            monkeypatch.setattr(Head, "probability", lambda self, rows: nothing)
        assert np.isnan(scorer.score(["bread"])).all()

    def test_everything_that_judges_is_in_the_hash(self, folder: Path) -> None:
        before = load(folder)
        assert before.weights_sha256 == load(folder).weights_sha256
        head = read_head(folder / "head.json")
        write_head(folder, Head(head.weights, 0.2, head.encoder_sha256))
        other_head = load(folder)
        weights = load_file(folder / "model.safetensors")
        weights["embeddings.word_embeddings.weight"] += 1
        save_file(weights, folder / "model.safetensors")
        write_head(folder, Head(head.weights, 0.2, encoder_hash(folder)))
        hashes = {before.weights_sha256, other_head.weights_sha256, load(folder).weights_sha256}
        assert len(hashes) == 3
        assert "+scikit-learn-" in before.version
        assert "+transformers-" in before.version

    def test_the_words_judge_is_in_the_hash(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = load(folder).weights_sha256
        monkeypatch.setattr(
            "unlearn_bench.scorers.profanity_check._hash_weights", lambda folder: "other"
        )
        assert load(folder).weights_sha256 != before

    def test_another_encoder_than_the_heads_is_refused(self, folder: Path) -> None:
        (folder / "vocab.txt").write_text((folder / "vocab.txt").read_text() + "more\n")
        with pytest.raises(ScorerError, match="not the MiniLM files"):
            load(folder)

    def test_what_is_not_there(self, folder: Path) -> None:
        (folder / "vocab.txt").unlink()
        with pytest.raises(ScorerError, match="MiniLM cannot be read") as caught:
            load(folder)
        assert "--scorer-checkpoint FOLDER" in caught.value.next_step
        with pytest.raises(ScorerError, match="no sentence encoder"):
            load_embedded()

    def test_the_run_brings_the_encoder_and_passes_offline_on(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With the head of the tiny encoder in the place of the real one."""
        from unlearn_bench.protocols.catalog import find_protocol

        asked = []

        def fetch(*, offline: bool) -> tuple[Path, Path]:
            asked.append(offline)
            if offline:
                raise MissingDataError("not in the cache")
            return folder / "model.safetensors", folder / "vocab.txt"

        monkeypatch.setattr(judge, "fetch_minilm", fetch)
        monkeypatch.setitem(load_embedded.__kwdefaults__, "head", folder / "head.json")
        cards, protocols = [find_card("scorer", "embedded")], {"t": find_protocol("toxigen")}
        found = load_judge(cards, None, protocols, offline=False)
        assert found.identity["name"] == "embedded"
        missing = load_judge(cards, None, protocols, offline=True)
        assert missing.scorer is None
        assert "not in the cache" in missing.notes[0]
        assert asked == [False, True]


class TestRealWeights:
    def test_the_committed_head_is_of_the_pinned_comments_and_encoder(self) -> None:
        from unlearn_bench.data.behaviour import COMMENTS_PACKAGE

        head = read_head(HEAD)
        assert len(head.weights) == sentences.WIDTH
        assert head.fitted_on["sha256"] == COMMENTS_PACKAGE.sha256
        assert head.fitted_on["comments"] == COMMENTS_PACKAGE.location
        assert all(round(weight, 2) == weight for weight in head.weights)

    def test_it_sees_hostility_in_harmless_words(self) -> None:
        scorer = load_embedded(encoder=lambda: _real_files())
        hostile = ["Nobody would miss you. Go away and never come back, you are worthless."]
        mild = ["The train was ten minutes late, so we missed the beginning of the concert."]
        assert load_profanity_check().score(hostile)[0] < 0.5
        assert scorer.score(hostile)[0] > 0.5 > 0.2 > scorer.score(mild)[0]

    def test_the_pinned_files_are_the_ones_the_head_was_fitted_on(self) -> None:
        assert hash_files(_real_files()) == read_head(HEAD).encoder_sha256


def _real_files() -> tuple[Path, Path]:
    try:
        return minilm.fetch_minilm(offline=True)
    except MissingDataError:
        pytest.skip(f"{minilm.PACKAGE} is not in the cache, and tests fetch nothing that large")


def test_head_json_is_readable_by_anyone() -> None:
    content = json.loads(HEAD.read_text())
    assert set(content) == {"weights", "intercept", "encoder_sha256", "fitted_on"}
