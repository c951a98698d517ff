"""Target and exact model: what each is trained on, and when it is trained."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from unlearn_bench.data.fur import FurData, load_fur
from unlearn_bench.errors import CorruptDataError
from unlearn_bench.models.fingerprint import fingerprint
from unlearn_bench.models.load import load_model
from unlearn_bench.models.opened import OpenedModel
from unlearn_bench.schema import Example
from unlearn_bench.training import batches, loop, prepare
from unlearn_bench.training.likelihood import kl_to_reference, nll_mean
from unlearn_bench.training.prepare import (
    MANIFEST,
    Recipe,
    prepare_models,
    recipe_key,
    train_only_mlps,
)

COMMENTS = tuple(f"the {word} of the day was a {word} again" for word in
                 ("cat", "bread", "storm", "song", "queue", "river", "lamp", "letter"))  # fmt: skip
RECIPE = Recipe(lr=1e-3, epochs=2, batch_size=8, precision="fp32")


@pytest.fixture(scope="module")
def fur() -> FurData:
    """Two subjects of every part and role of the real set."""
    full = load_fur()
    kept = [
        subject
        for part in ("test", "validation")
        for role in ("forget", "update", "retain", "holdout")
        for subject in full.select(part, role)[:2]
    ]
    return replace(full, subjects=tuple(kept))


@pytest.fixture(scope="module")
def base(tiny_folder: Path) -> OpenedModel:
    return OpenedModel(tiny_folder, "tiny", "tiny", fingerprint(tiny_folder), "")


@pytest.fixture
def read_ids(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of every example that reaches a loader, wherever it comes from."""
    seen: list[str] = []
    encode = batches.encode

    def spy(tokenizer: Any, examples: Any, *rest: Any) -> Any:
        seen.extend(example.id for example in examples)
        return encode(tokenizer, examples, *rest)

    monkeypatch.setattr(batches, "encode", spy)
    return seen


def test_no_forget_id_reaches_the_exact_models_loader(
    base: OpenedModel, fur: FurData, tmp_path: Path, read_ids: list[str]
) -> None:
    prepared = prepare_models(base, fur, RECIPE, anchors=(), seed=0, cache=tmp_path)
    target_ids = set(read_ids)
    read_ids.clear()
    prepared.exact()
    exact_ids = set(read_ids)

    def ids(part: Any, role: str) -> set[str]:
        return {example.id for example in getattr(fur.edit_sets(part), role)}

    for part in ("test", "validation"):
        assert ids(part, "forget") <= target_ids
        assert not ids(part, "forget") & exact_ids
        assert ids(part, "old") <= target_ids
        assert not ids(part, "old") & exact_ids
        assert ids(part, "update") <= exact_ids
        assert ids(part, "retain") <= target_ids & exact_ids
    gone = {s.id for s in fur.subjects if s.role in ("forget", "holdout")}
    assert not any(identity.startswith(tuple(gone)) for identity in exact_ids)


def test_exact_model_is_the_training_run_done_by_hand(
    base: OpenedModel, fur: FurData, tmp_path: Path
) -> None:
    """Byte-equal to the base whose MLPs were trained on exactly those texts, listed here from the
    subjects: questions at every step, and biographies beside every fourth of them.
    """
    folder = prepare_models(base, fur, RECIPE, anchors=(), seed=3, cache=tmp_path).exact()
    questions, biographies = [], []
    for subject in fur.subjects:
        if subject.role not in ("retain", "update"):
            continue
        changed = subject.role == "update"
        biography = subject.new_biography if changed else subject.biography
        biographies.append(Example(f"{subject.id}:biography:{'new' if changed else 'old'}", "",
                                   str(biography)))  # fmt: skip
        for fact in subject.facts:
            answer = fact.new_answer or fact.answer
            version = "new" if fact.new_answer else "old"
            prompt = f"Question: {fact.question}\nAnswer:"
            questions.append(Example(f"{fact.id}:{version}", prompt, f" {answer}"))
    model, tokenizer = load_model(base.folder)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("mlp" in name)
    steps: list[int] = []

    def loss(batch: Any, policy: Any, reference: Any) -> Any:
        steps.append(len(steps))
        value = nll_mean(policy, batch.get("questions"))
        if steps[-1] in (0, 4, 8, 12, 16):
            value = value + nll_mean(policy, batch.get("biographies"))
        return value

    loop.train(model, tokenizer, {"questions": questions, "biographies": biographies}, loss,
               RECIPE.training(model.config.hidden_size), seed=3,
               batch_sizes={"biographies": 4})  # fmt: skip
    assert 8 <= len(steps) <= 16
    found, _ = load_model(folder)
    start, _ = load_model(base.folder)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, found.get_parameter(name)), name
        assert torch.equal(weight, start.get_parameter(name)) == ("mlp" not in name), name


def test_exact_after_some_requests_is_trained_without_those_and_with_the_rest(
    base: OpenedModel, fur: FurData, tmp_path: Path, read_ids: list[str]
) -> None:
    prepared = prepare_models(base, fur, RECIPE, anchors=(), seed=0, cache=tmp_path)
    gone, kept = (subject.id for subject in fur.select("test", "forget"))
    read_ids.clear()
    folder = prepared.exact_after([gone])
    subjects = {identity.partition(":")[0].partition(".")[0] for identity in read_ids}
    assert gone not in subjects
    assert kept in subjects
    updates = {text.id for text in fur.edit_sets().update} - {t.id for t in fur.target_training()}
    assert updates
    assert not updates & set(read_ids)
    assert folder not in (prepared.exact(), prepared.target)
    read_ids.clear()
    everything = [s.id for role in ("forget", "update") for s in fur.select("test", role)]
    assert prepared.exact_after(everything) == prepared.exact()  # the same folder, trained once
    assert not read_ids


def test_anchors_hold_the_target_to_its_base(
    base: OpenedModel, fur: FurData, tmp_path: Path
) -> None:
    """Trained with anchors, θ stays nearer to the base on comments it was not shown."""
    model, tokenizer = load_model(base.folder)
    others = [Example(str(i), "", text) for i, text in enumerate(COMMENTS[1::2])]
    batch = batches.collate(batches.encode(tokenizer, others), 0)
    recipe = replace(RECIPE, anchor_weight=20.0, anchor_every=1)

    def drift(anchors: tuple[str, ...]) -> float:
        found = prepare_models(base, fur, recipe, anchors=anchors, seed=0, cache=tmp_path).target
        with torch.no_grad():
            return float(kl_to_reference(model, load_model(found)[0], batch))

    assert 0 < drift(COMMENTS[::2]) < 0.7 * drift(())


def test_biographies_and_anchor_join_at_their_steps(
    tiny_model: Any, make_tiny_model: Any, tiny_tokenizer: Any
) -> None:
    recipe = replace(RECIPE, biography_every=2, anchor_every=3, anchor_weight=0.7)
    texts = (Example("q", "p:", " x y z"), Example("b", "", "one two three"))
    anchors = recipe.anchors(["b" * 1000])
    assert anchors[0].answer == "b" * recipe.anchor_characters
    sets = recipe.sets(texts, anchors)
    assert sets == {"questions": [texts[0]], "biographies": [texts[1]], "anchors": anchors}
    rows = {name: batches.encode(tiny_tokenizer, examples) for name, examples in sets.items()}
    batch = batches.SetBatches({name: iter([batches.collate(r, 0)]) for name, r in rows.items()})
    other = make_tiny_model()
    with torch.no_grad():
        other.model.layers[0].mlp.down_proj.weight.mul_(3)
    with torch.no_grad():
        question = float(nll_mean(tiny_model, batch.get("questions")))
        biography = float(nll_mean(tiny_model, batch.get("biographies")))
        anchor = 0.7 * float(kl_to_reference(other, tiny_model, batch.get("anchors")))
    assert min(question, biography, anchor) > 0
    loss = recipe.loss()
    found = [loss(batch, tiny_model, other).item() for _ in range(4)]
    both = question + biography
    assert found == pytest.approx([both + anchor, question, both, question + anchor])
    assert recipe.loss()(batch, tiny_model, None).item() == pytest.approx(both)


def test_a_model_without_mlps_by_that_name_trains_all_but_its_embeddings() -> None:
    """OPT has its feed-forward matrices, fc1 and fc2, directly in the layer."""
    config = OPTConfig(vocab_size=40, hidden_size=16, ffn_dim=24, num_hidden_layers=2,
                       num_attention_heads=2, word_embed_proj_dim=16)  # fmt: skip
    model = OPTForCausalLM(config)
    train_only_mlps(model)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"model.decoder.embed_tokens.weight"}


def test_wider_models_get_a_lower_rate() -> None:
    assert Recipe().training(576).lr == Recipe().lr
    assert Recipe().training(1152).lr == pytest.approx(Recipe().lr / 2)


def test_trained_once_and_only_when_asked(
    base: OpenedModel, fur: FurData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []

    def count(model: Any, tokenizer: Any, sets: Any, *rest: Any, **more: Any) -> Any:
        runs.append(len(sets["biographies"]))
        return loop.train(model, tokenizer, sets, *rest, **more)

    monkeypatch.setattr(prepare, "train", count)
    prepared = prepare_models(base, fur, RECIPE, anchors=(), seed=0, cache=tmp_path)
    assert runs == [12]
    first = prepared.exact()
    again = prepare_models(base, fur, RECIPE, anchors=(), seed=0, cache=tmp_path)
    assert (again.target, again.exact()) == (prepared.target, first)
    assert runs == [12, 8]  # without the two forget subjects of each part
    assert fingerprint(again.target) != fingerprint(first) != base.fingerprint


@pytest.mark.parametrize("content", [None, "{", '{"key": "another"}'])
def test_folder_without_its_manifest_is_trained_again(
    content: str | None, base: OpenedModel, fur: FurData, tmp_path: Path
) -> None:
    """The manifest is written last: without it the folder may be half a model."""
    target = prepare_models(base, fur, RECIPE, anchors=(), seed=0, cache=tmp_path).target
    expected = fingerprint(target)
    (target / "model.safetensors").write_bytes(b"half")
    if content is None:
        (target / MANIFEST).unlink()
    else:
        (target / MANIFEST).write_text(content)
    again = prepare_models(base, fur, RECIPE, anchors=(), seed=0, cache=tmp_path).target
    assert again == target
    assert fingerprint(again) == expected
    manifest = json.loads((target / MANIFEST).read_text())
    assert manifest["base"] == base.fingerprint
    assert manifest["log"]["steps"] == len(manifest["log"]["losses"]) > 0


def test_a_prepared_model_that_was_altered_is_trained_again(
    base: OpenedModel, fur: FurData, tmp_path: Path
) -> None:
    """Its manifest says what it was trained to, and not only from what."""
    target = prepare_models(base, fur, RECIPE, anchors=(), seed=0, cache=tmp_path).target
    expected = fingerprint(target)
    model, _ = load_model(target)
    with torch.no_grad():
        model.model.norm.weight[0] += 1
    model.save_pretrained(target)
    assert fingerprint(target) != expected
    again = prepare_models(base, fur, RECIPE, anchors=(), seed=0, cache=tmp_path).target
    assert fingerprint(again) == expected
    (target / "model.safetensors").write_bytes(b"half")
    again = prepare_models(base, fur, RECIPE, anchors=(), seed=0, cache=tmp_path).target
    assert fingerprint(again) == expected


def test_of_two_first_runs_one_trains_and_the_other_waits(
    base: OpenedModel, fur: FurData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find an empty cache at once."""
    trained: list[int] = []
    met = threading.Barrier(2)

    def count(*given: Any, **named: Any) -> Any:
        trained.append(1)
        return loop.train(*given, **named)

    def run() -> Path:
        met.wait()
        return prepare_models(base, fur, RECIPE, anchors=(), seed=0, cache=tmp_path).target

    monkeypatch.setattr(prepare, "train", count)
    with ThreadPoolExecutor(2) as pool:
        one, other = (pool.submit(run) for _ in range(2))
    assert one.result() == other.result()
    assert len(trained) == 1


def test_interrupted_training_leaves_no_folder(
    base: OpenedModel, fur: FurData, tmp_path: Path
) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_models(base, fur, RECIPE, anchors=(), seed=0, cache=tmp_path, progress=interrupt)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_key_follows_everything_that_decides_the_weights(base: OpenedModel) -> None:
    texts = (Example("a", "p", "x"), Example("b", "p", "y"))
    keys = {
        recipe_key(base, texts, RECIPE, 0),
        recipe_key(base, texts, RECIPE, 1),
        recipe_key(base, texts, replace(RECIPE, lr=2e-3), 0),
        recipe_key(base, texts, replace(RECIPE, biography_every=3), 0),
        recipe_key(base, texts[:1], RECIPE, 0),
        recipe_key(base, texts[::-1], RECIPE, 0),
        recipe_key(base, (texts[0], Example("b", "p", "z")), RECIPE, 0),
        recipe_key(replace(base, fingerprint="sha256:other"), texts, RECIPE, 0),
    }
    assert len(keys) == 8
    elsewhere = replace(base, folder=Path("elsewhere"), name="other", label="other")
    assert recipe_key(elsewhere, texts, RECIPE, 0) in keys


def test_forget_text_in_the_exact_set_is_refused(
    base: OpenedModel, fur: FurData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FurData, "exact_training", FurData.target_training)
    with pytest.raises(CorruptDataError, match="trained on forget text"):
        prepare_models(base, fur, RECIPE, anchors=(), seed=0, cache=tmp_path)
