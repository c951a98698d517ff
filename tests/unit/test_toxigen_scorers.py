"""ToxiGen's two classifiers: the pinned files, classes the right way round, no code executed.

The weights are random, the architecture, the file formats and the layouts are the real ones.
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
from safetensors.torch import load_file, save_file

from unlearn_bench.errors import ScorerError
from unlearn_bench.registry import find_card, load_function
from unlearn_bench.scorers import toxigen_hatebert, toxigen_roberta
from unlearn_bench.scorers.checkpoint import HubFiles
from unlearn_bench.scorers.classifier import BETTER, WORSE, Recipe

TEXTS = ["you are filthy animals", "thank you for the dinner", "it was good"]
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
WORDS = sorted({word.strip(".,").lower() for word in f"{WORSE} {BETTER}".split()})
RECIPES = {recipe.name: recipe for recipe in (toxigen_roberta.RECIPE, toxigen_hatebert.RECIPE)}
NAMES = sorted(RECIPES)


def load(name: str, **options: Any) -> Any:
    return load_function(find_card("scorer", name))(**options)


def write_vocabulary(recipe: Recipe, folder: Path) -> int:
    """The tokenizer's files as the hub has them; how many entries there are."""
    if recipe.family == "Bert":
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", *WORDS]
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")
        return len(words)
    from tokenizers.pre_tokenizers import ByteLevel

    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    entries = [*marks, *sorted(ByteLevel.alphabet()), "th", "an"]
    (folder / "vocab.json").write_text(json.dumps({e: n for n, e in enumerate(entries)}))
    (folder / "merges.txt").write_text("#version: 0.2\nt h\na n\n")
    return len(entries)


def point(model: Any, tokenizer: Any, way: int) -> None:
    """Turn the output layer so that WORSE is more (way 1) or less (−1) of class 1 than BETTER."""
    inputs = tokenizer([WORSE, BETTER], return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = model.eval()(**inputs).logits
        margin = (logits[0, 1] - logits[0, 0]) - (logits[1, 1] - logits[1, 0])
        if margin * way < 0:
            last = getattr(model.classifier, "out_proj", model.classifier)
            last.weight.copy_(last.weight.flip(0))
            last.bias.copy_(last.bias.flip(0))


def write_checkpoint(recipe: Recipe, folder: Path, *, way: int = 1) -> None:
    """config.json and pytorch_model.bin, as transformers wrote them in 2022, with a tokenizer."""
    import transformers

    folder.mkdir(parents=True)
    entries = write_vocabulary(recipe, folder)
    model_class = getattr(transformers, f"{recipe.family}ForSequenceClassification")
    room = 512 + (2 if recipe.family == "Roberta" else 0)  # RoBERTa's positions begin at 2
    config = model_class.config_class(
        vocab_size=entries, max_position_embeddings=room, num_labels=2, **SIZES
    )
    torch.manual_seed(1)  # of those tried, one whose probabilities are far apart
    model = model_class(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    files = {argument: str(folder / name) for argument, name in recipe.tokenizer.items()}
    point(model, getattr(transformers, f"{recipe.family}Tokenizer")(**files), way)
    config.save_pretrained(folder)
    weights = dict(model.state_dict())
    weights[f"{recipe.family.lower()}.embeddings.position_ids"] = torch.arange(room)[None]
    torch.save(weights, folder / "pytorch_model.bin")


@pytest.fixture(params=NAMES)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return RECIPES[request.param]


@pytest.fixture
def folder(recipe: Recipe, tmp_path: Path) -> Path:
    write_checkpoint(recipe, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[HubFiles], Path]:
    """Makes the snapshot folder of a repository in an offline hub cache of its own."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def snapshot(files: HubFiles) -> Path:
        root = cache / f"models--{files.repo.replace('/', '--')}"
        commit = files.revision if len(files.revision) == 40 else "c" * 40
        if commit != files.revision:
            (root / "refs").mkdir(parents=True)
            (root / "refs" / files.revision).write_text(commit)
        (root / "snapshots" / commit).mkdir(parents=True)
        return root / "snapshots" / commit

    return snapshot


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_values_are_those_of_transformers_own_classes(recipe: Recipe, folder: Path) -> None:
    import transformers

    model_class = getattr(transformers, f"{recipe.family}ForSequenceClassification")
    theirs = model_class.from_pretrained(folder).eval()
    tokenizer = getattr(transformers, f"{recipe.family}Tokenizer").from_pretrained(folder)
    with torch.inference_mode():
        expected = [
            theirs(**tokenizer(text, return_tensors="pt")).logits.softmax(dim=-1)[0, 1].item()
            for text in TEXTS
        ]
    scores = load(recipe.name, checkpoint=folder, batch_size=2).score([*TEXTS, TEXTS[0], " "])
    assert scores.tolist() == pytest.approx([*expected, expected[0], 0.0], abs=1e-5)
    assert np.ptp(scores[:3]) > 0.01


def test_the_tokenizer_is_the_families_own(recipe: Recipe, folder: Path) -> None:
    """Marks around a text, and the case kept by RoBERTa's and dropped by BERT's."""
    tokenizer = load(recipe.name, checkpoint=folder).tokenizer
    ids = tokenizer("Good")["input_ids"]
    assert tokenizer.convert_ids_to_tokens([ids[0], ids[-1]]) == (
        ["<s>", "</s>"] if recipe.family == "Roberta" else ["[CLS]", "[SEP]"]
    )
    same = tokenizer("Good")["input_ids"] == tokenizer("good")["input_ids"]
    assert same == (recipe.family == "Bert")


def test_from_the_hubs_cache_at_the_pinned_commit(
    recipe: Recipe, folder: Path, hub: Callable[[HubFiles], Path]
) -> None:
    snapshot = hub(recipe.hub)
    for name in ("config.json", "pytorch_model.bin", *recipe.tokenizer.values()):
        own = name not in recipe.tokenizer.values() or recipe.tokenizer_hub is None
        home = snapshot if own else hub(recipe.tokenizer_hub)  # type: ignore[arg-type]
        shutil.copy(folder / name, home)
    found, expected = load(recipe.name), load(recipe.name, checkpoint=folder)
    assert found.score(TEXTS).tolist() == expected.score(TEXTS).tolist()
    assert found.weights_sha256 == expected.weights_sha256
    assert found.version.startswith(f"{recipe.hub.repo}/{snapshot.name[:12]}+")


def test_another_commit_in_the_cache_is_not_taken(
    folder: Path, recipe: Recipe, hub: Callable[[HubFiles], Path]
) -> None:
    other = hub(HubFiles(recipe.hub.repo, "d" * 40))
    shutil.copytree(folder, other, dirs_exist_ok=True)
    with pytest.raises(ScorerError, match=r"config\.json of tomh/.* is not to be had") as caught:
        load(recipe.name)
    assert "--scorer-checkpoint FOLDER" in caught.value.next_step


def test_hatebert_takes_berts_vocabulary_where_the_folder_has_none(
    tmp_path: Path, hub: Callable[[HubFiles], Path]
) -> None:
    recipe = toxigen_hatebert.RECIPE
    write_checkpoint(recipe, tmp_path / "bare")
    expected = load(recipe.name, checkpoint=tmp_path / "bare").score(TEXTS)
    assert recipe.tokenizer_hub is not None
    shutil.move(tmp_path / "bare" / "vocab.txt", hub(recipe.tokenizer_hub))
    assert load(recipe.name, checkpoint=tmp_path / "bare").score(TEXTS).tolist() == (
        expected.tolist()
    )


def test_safetensors_come_first(recipe: Recipe, folder: Path) -> None:
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    save_file(weights, folder / "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    scorer = load(recipe.name, checkpoint=folder)
    assert np.isfinite(scorer.score(TEXTS)).all()
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes())
    for name in recipe.tokenizer.values():
        digest.update((folder / name).read_bytes())
    assert scorer.weights_sha256 == digest.hexdigest()
    assert load_file(folder / "model.safetensors").keys() == weights.keys()


def test_long_text_is_cut_not_failed(recipe: Recipe, folder: Path) -> None:
    assert np.isfinite(load(recipe.name, checkpoint=folder).score(["animals " * 3000])).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"id2label": {"0": "LABEL_1", "1": "LABEL_0"}},
        {"id2label": {"0": "toxic", "1": "neutral"}},
        {"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}},
    ],
)
def test_other_classes_are_refused(recipe: Recipe, folder: Path, changes: dict[str, Any]) -> None:
    rewrite(folder / "config.json", **changes)
    with pytest.raises(ScorerError, match="classes are"):
        load(recipe.name, checkpoint=folder)


def test_classes_the_other_way_round_under_neutral_names_are_refused(
    recipe: Recipe, tmp_path: Path
) -> None:
    write_checkpoint(recipe, tmp_path / "turned", way=-1)
    with pytest.raises(ScorerError, match="another order"):
        load(recipe.name, checkpoint=tmp_path / "turned")


def test_another_architecture_is_refused(recipe: Recipe, folder: Path) -> None:
    rewrite(folder / "config.json", model_type="gpt2")
    with pytest.raises(ScorerError, match="of type 'gpt2'"):
        load(recipe.name, checkpoint=folder)


def test_another_vocabulary_is_refused(recipe: Recipe, folder: Path) -> None:
    rewrite(folder / "config.json", vocab_size=999)
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    name = f"{recipe.family.lower()}.embeddings.word_embeddings.weight"
    weights[name] = torch.zeros(999, SIZES["hidden_size"])
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ScorerError, match="the model 999"):
        load(recipe.name, checkpoint=folder)


def test_a_missing_tensor_is_never_drawn_at_random(recipe: Recipe, folder: Path) -> None:
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    name = next(name for name in weights if name.startswith("classifier"))
    del weights[name]
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ScorerError, match=name.replace(".", r"\.")):
        load(recipe.name, checkpoint=folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_broken_weights(recipe: Recipe, folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"PK\x03\x04broken")
    with pytest.raises(ScorerError, match="cannot be read"):
        load(recipe.name, checkpoint=folder)


def test_a_pickle_that_is_no_table_of_tensors(recipe: Recipe, folder: Path) -> None:
    torch.save([1, 2], folder / "pytorch_model.bin")
    with pytest.raises(ScorerError, match="do not fit"):
        load(recipe.name, checkpoint=folder)


@pytest.mark.parametrize("content", ["", "[1]", '{"id2label": 3}'])
def test_broken_config(recipe: Recipe, folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(ScorerError, match="config cannot be read"):
        load(recipe.name, checkpoint=folder)


def test_no_code_of_a_checkpoint_runs(recipe: Recipe, folder: Path, tmp_path: Path) -> None:
    """Neither a pickle's nor a Python file's that the config points to."""
    code = f"import os\nos.mkdir({str(tmp_path / 'executed')!r})\n"
    (folder / "modeling.py").write_text(code)
    rewrite(
        folder / "config.json",
        auto_map={"AutoModelForSequenceClassification": "modeling.Model"},
    )
    load(recipe.name, checkpoint=folder)

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"classifier.weight": Payload()}, folder / "pytorch_model.bin")
    with pytest.raises(ScorerError, match="nothing executed"):
        load(recipe.name, checkpoint=folder)
    assert not (tmp_path / "executed").exists()


def test_a_file_in_place_of_the_folder_is_told_so(recipe: Recipe, folder: Path) -> None:
    with pytest.raises(ScorerError, match="takes a folder"):
        load(recipe.name, checkpoint=folder / "config.json")
