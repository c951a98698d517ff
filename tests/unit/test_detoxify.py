"""Detoxify's two models: the package's own values, the right files, no code executed.

The weights are random, the architectures, the checkpoint's form and the base models' files are the
real ones: six outputs of BERT; sixteen of RoBERTa, of which the package names seven.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unlearn_bench.errors import ScorerError
from unlearn_bench.registry import find_card, list_cards, load_function
from unlearn_bench.runs.judge import load_judge, scorer_candidates
from unlearn_bench.scorers import detoxify, detoxify_unbiased
from unlearn_bench.scorers.detoxify import Release

TEXTS = ["you fool", "a kind word", "the mayor bakes bread for you", "fool"]
RELEASES = {one.name: one for one in (detoxify.RELEASE, detoxify_unbiased.RELEASE)}
CLASSES = {
    "detoxify": ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"),
    "detoxify_unbiased": (
        "severe_toxicity", "toxicity", "obscene", "identity_attack", "insult", "threat",
        "sexual_explicit",
    ),  # the first two are the other way round in the release: places must be read, not assumed
}  # fmt: skip
OUTPUTS = {"detoxify": 6, "detoxify_unbiased": 16}
FILES = {
    "detoxify": "toxic_original-c1212f89.ckpt",
    "detoxify_unbiased": "toxic_debiased-c7548aa0.ckpt",
}
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def load(release: Release, **options: Any) -> Any:
    return load_function(find_card("scorer", release.name))(**options)


def write_vocabulary(release: Release, folder: Path) -> int:
    """The base model's tokenizer files; how many entries there are."""
    if release.family == "Bert":
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *" ".join(TEXTS).split()]
        words = list(dict.fromkeys(words))
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")
        return len(words)
    from tokenizers.pre_tokenizers import ByteLevel

    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    entries = [*marks, *sorted(ByteLevel.alphabet()), "oo", "yo"]
    (folder / "vocab.json").write_text(json.dumps({e: n for n, e in enumerate(entries)}))
    (folder / "merges.txt").write_text("#version: 0.2\no o\ny o\n")
    return len(entries)


@pytest.fixture(params=sorted(RELEASES))
def release(request: pytest.FixtureRequest) -> Release:
    return RELEASES[request.param]


@pytest.fixture
def folder(release: Release, tmp_path: Path) -> Path:
    """A checkpoint in detoxify's own form, its weights large enough to matter, and beside it the
    base model's settings and vocabulary.
    """
    import transformers

    folder = tmp_path / "given"
    folder.mkdir()
    entries = write_vocabulary(release, folder)
    model_class = getattr(transformers, release.classes[0])
    room = 512 + (2 if release.family == "Roberta" else 0)  # RoBERTa's positions begin at 2
    base = model_class.config_class(vocab_size=entries, max_position_embeddings=room, **SIZES)
    base.save_pretrained(folder)
    torch.manual_seed(0)
    outputs = OUTPUTS[release.name]
    model = model_class(model_class.config_class.from_pretrained(folder, num_labels=outputs))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    weights = dict(model.state_dict())
    weights[f"{release.family.lower()}.embeddings.position_ids"] = torch.arange(room)[None]
    arguments = {
        "model_type": release.base.repo.partition("/")[2],
        "model_name": release.classes[0],
        "tokenizer_name": release.classes[1],
        "num_classes": outputs,
    }
    classes = {"args": {"classes": list(CLASSES[release.name])}}
    settings = {"arch": {"args": arguments}, "dataset": classes}
    torch.save({"config": settings, "state_dict": weights}, folder / FILES[release.name])
    return folder


@pytest.fixture
def hub(release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts the base model's files into an offline hub cache of its own, at a commit."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def fill(folder: Path, commit: str = release.base.revision) -> Path:
        home = tmp_path / "hub" / f"models--{release.base.repo.replace('/', '--')}"
        snapshot = home / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for name in ("config.json", *release.tokenizer.values()):
            shutil.move(folder / name, snapshot)
        return snapshot

    return fill


def change(path: Path, **changes: Any) -> None:
    """Rewrite entries of the checkpoint's architecture arguments."""
    loaded = torch.load(path, weights_only=True)
    loaded["config"]["arch"]["args"].update(changes)
    torch.save(loaded, path)


def test_values_are_the_packages_own(release: Release, folder: Path) -> None:
    """Of every attribute, by the package's names, toxicity first."""
    from detoxify.detoxify import Detoxify, get_model_and_tokenizer

    loaded = torch.load(folder / FILES[release.name], weights_only=True)
    arguments = loaded["config"]["arch"]["args"] | {"model_type": str(folder)}
    theirs = Detoxify.__new__(Detoxify)  # its constructor would ask the hub
    theirs.model, theirs.tokenizer = get_model_and_tokenizer(
        **arguments, state_dict=loaded["state_dict"]
    )
    theirs.class_names = [detoxify.NAMES.get(name, name) for name in CLASSES[release.name]]
    expected = theirs.predict(TEXTS)
    ours = load(release, checkpoint=folder, batch_size=3)
    assert ours.name == release.name
    assert ours.attributes[0] == "toxicity"
    assert set(ours.attributes) == set(expected)
    scores = ours.score_attributes([*TEXTS, *TEXTS, " "])
    for column, name in enumerate(ours.attributes):
        assert scores[:4, column].tolist() == pytest.approx(expected[name], abs=1e-6)
    assert scores[4:8].tolist() == scores[:4].tolist()
    assert scores[8].tolist() == [0.0] * len(expected)
    assert ours.score(TEXTS).tolist() == scores[:4, 0].tolist()
    assert np.ptp(scores[:4], axis=0).min() > 1e-4  # each tells texts apart
    assert len({tuple(column) for column in scores[:4].T.tolist()}) == len(expected)


def test_attributes_are_those_of_the_challenges() -> None:
    """As the package's README lists them; the groups that `unbiased` also learned are none."""
    names = {
        name: {detoxify.NAMES.get(one, one) for one in classes} for name, classes in CLASSES.items()
    }
    both = {"toxicity", "severe_toxicity", "obscene", "threat", "insult", "identity_attack"}
    assert names == {"detoxify": both, "detoxify_unbiased": {*both, "sexual_explicit"}}


def test_a_run_can_choose_it(
    release: Release, folder: Path, hub: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name, with --scorer-checkpoint FILE, and the base model's files out of the hub's cache
    as with a folder that holds them.
    """
    from unlearn_bench.protocols.catalog import find_protocol

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    whole = load(release, checkpoint=folder)
    hub(folder)
    toxigen = {"toxigen": find_protocol("toxigen")}
    checkpoint = folder / FILES[release.name]
    judge = load_judge(scorer_candidates(release.name), checkpoint, toxigen, offline=True)
    assert judge.notes == ()
    assert judge.identity["name"] == release.name
    assert judge.identity["attributes"].split() == list(whole.attributes)
    assert judge.identity["weights_sha256"] == whole.weights_sha256
    assert judge.identity["version"].endswith("/checkpoint")
    assert judge.scorer.score(TEXTS).tolist() == whole.score(TEXTS).tolist()


def test_released_weights_are_taken_from_torchs_cache(
    release: Release,
    folder: Path,
    hub: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from detoxify.detoxify import MODEL_URLS

    assert MODEL_URLS[release.variant].endswith(f"/{FILES[release.name]}")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    hub(folder)
    folder.rename(tmp_path / "checkpoints")
    assert load(release, offline=True).version.endswith(f"/{release.variant}")


def test_the_hash_covers_weights_settings_and_vocabulary(release: Release, folder: Path) -> None:
    digest = hashlib.sha256()
    for name in (FILES[release.name], "config.json", *release.tokenizer.values()):
        digest.update((folder / name).read_bytes())
    before = load(release, checkpoint=folder)
    assert before.weights_sha256 == digest.hexdigest()
    words = folder / next(iter(release.tokenizer.values()))
    swapped = words.read_text().replace('"oo"', '"o-"').replace('"yo"', '"oo"')
    swapped = swapped.replace('"o-"', '"yo"').replace("kind", "k-").replace("fool", "kind")
    words.write_text(swapped.replace("k-", "fool"))
    after = load(release, checkpoint=folder)
    assert after.weights_sha256 != before.weights_sha256
    assert after.score(TEXTS).tolist() != before.score(TEXTS).tolist()


def test_another_commit_of_the_base_model_is_not_taken(
    release: Release, folder: Path, hub: Callable[..., Path]
) -> None:
    hub(folder, "d" * 40)
    with pytest.raises(ScorerError, match=r"config\.json of .* is not to be had"):
        load(release, checkpoint=folder / FILES[release.name])


def test_what_an_error_recommends_works(
    release: Release, folder: Path, hub: Callable[..., Path]
) -> None:
    """A file alone lacks the base model's files; in a folder with them it loads."""
    snapshot = hub(folder, "d" * 40)
    with pytest.raises(ScorerError) as caught:
        load(release, checkpoint=folder / FILES[release.name], offline=True)
    named = ("config.json", *release.tokenizer.values())
    assert f"a FOLDER that holds it and {release.base}'s {', '.join(named)}" in (
        caught.value.next_step
    )
    for name in named:
        shutil.move(snapshot / name, folder)
    assert np.isfinite(load(release, checkpoint=folder, offline=True).score(TEXTS)).all()


@pytest.mark.parametrize("count", [0, 2])
def test_a_folder_without_the_one_checkpoint_is_refused(
    release: Release, folder: Path, count: int
) -> None:
    path = folder / FILES[release.name]
    path.rename(folder / "one.ckpt") if count else path.unlink()
    if count:
        shutil.copy(folder / "one.ckpt", folder / "two.ckpt")
    with pytest.raises(ScorerError, match=f"one .ckpt in it, and there are {count}"):
        load(release, checkpoint=folder)


def test_the_other_models_checkpoint_is_refused(release: Release, folder: Path) -> None:
    """A row of the board names the scorer, so it has to be that one."""
    (other,) = (one for one in RELEASES.values() if one is not release)
    with pytest.raises(ScorerError, match=f"and {other.name} is of") as caught:
        load(other, checkpoint=folder)
    assert "--scorer detoxify_unbiased" in caught.value.next_step


@pytest.mark.parametrize("name", ["pipeline", "BertModel"])
def test_a_checkpoint_may_not_name_any_class(release: Release, folder: Path, name: str) -> None:
    change(folder / FILES[release.name], model_name=name)
    with pytest.raises(ScorerError, match=f"the checkpoint names {name}"):
        load(release, checkpoint=folder)


def test_more_classes_than_outputs_are_refused_and_not_missing_values(
    release: Release, folder: Path
) -> None:
    change(folder / FILES[release.name], num_classes=3)
    with pytest.raises(ScorerError, match="classes and has 3 outputs"):
        load(release, checkpoint=folder)


def test_a_missing_tensor_is_never_drawn_at_random(release: Release, folder: Path) -> None:
    path = folder / FILES[release.name]
    loaded = torch.load(path, weights_only=True)
    name = next(name for name in loaded["state_dict"] if name.startswith("classifier"))
    del loaded["state_dict"][name]
    torch.save(loaded, path)
    with pytest.raises(ScorerError, match=name.replace(".", r"\.")):
        load(release, checkpoint=folder)


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"model_type": "gpt2"}'])
def test_broken_settings_and_those_of_another_model(
    release: Release, folder: Path, content: str
) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(ScorerError, match="the settings"):
        load(release, checkpoint=folder)


def test_another_vocabulary_is_refused(release: Release, folder: Path) -> None:
    if release.family == "Bert":
        with (folder / "vocab.txt").open("a") as file:
            file.write("more\n")
    else:
        entries = json.loads((folder / "vocab.json").read_text())
        (folder / "vocab.json").write_text(json.dumps({**entries, "ooo": len(entries)}))
    with pytest.raises(ScorerError, match="the tokenizer has"):
        load(release, checkpoint=folder)


def test_long_text_is_cut_not_failed(release: Release, folder: Path) -> None:
    assert np.isfinite(load(release, checkpoint=folder).score(["fool " * 2000])).all()


def test_pickled_code_is_refused_unexecuted(release: Release, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"config": Payload(), "state_dict": {}}, tmp_path / "evil.ckpt")
    with pytest.raises(ScorerError, match="nothing executed"):
        load(release, checkpoint=tmp_path / "evil.ckpt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04broken"])
def test_broken_checkpoint(release: Release, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.ckpt").write_bytes(content)
    with pytest.raises(ScorerError):
        load(release, checkpoint=tmp_path / "broken.ckpt")


def test_offline_without_weights_says_how_to_get_them(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ScorerError, match="going online is off") as caught:
        load(release, offline=True)
    assert "--scorer-checkpoint FILE" in caught.value.next_step


def test_both_are_listed() -> None:
    cards = list_cards("scorer")
    assert "six kinds" in cards["detoxify"].facts["measures"]
    assert "seven kinds" in cards["detoxify_unbiased"].facts["measures"]
