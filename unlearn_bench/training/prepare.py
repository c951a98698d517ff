"""The two models every comparison starts from: the target θ₀, and the exact model beside it."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn_bench.cache import write_atomically
from unlearn_bench.data.fur import FurData
from unlearn_bench.errors import CorruptDataError
from unlearn_bench.models.load import load_model, save_model
from unlearn_bench.models.open import OpenedModel
from unlearn_bench.schema import Example
from unlearn_bench.training.batches import SetBatches
from unlearn_bench.training.likelihood import Model, kl_to_reference, nll_mean
from unlearn_bench.training.loop import Loss, Progress, train
from unlearn_bench.training.options import Precision, Training
from unlearn_bench.training.precision import default_device

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

MANIFEST = "prepared.json"  # written last: a folder that has it is complete
WIDTH = 576  # hidden size of SmolLM2-135M, on which the recipe's rate was chosen
FORMAT = 3  # raise it when the same recipe would give another model


@dataclass(frozen=True)
class Recipe:
    """How both models are trained from the base.

    Every step lowers NLL_m of `batch_size` questions, in `epochs` passes over all of them. To every
    `biography_every`-th step NLL_m of `biography_batch` biographies is added, which makes about one
    pass over those; to every `anchor_every`-th step `anchor_weight`·KL(base ‖ θ) on `anchor_batch`
    ordinary comments, cut to `anchor_characters`: a target should differ from its base in what it
    knows about the subjects, and in nothing else. Only the MLPs learn. What each of these buys is
    measured in docs/design/target.md.

    lr: for a hidden size of `WIDTH`; others get it in inverse proportion, as Adam's rate scales in
    µP (arXiv:2203.03466, table 3). A recipe is part of every result's key.
    """

    lr: float = 9e-4
    epochs: int = 4
    batch_size: int = 16
    warmup: float = 0.1
    precision: Precision = "auto"
    biography_batch: int = 4
    biography_every: int = 4
    anchor_weight: float = 3.0
    anchor_every: int = 3
    anchor_batch: int = 3
    anchor_characters: int = 120

    def training(self, hidden_size: int) -> Training:
        """The recipe as options of the loop, for a model of this width."""
        return Training(
            lr=self.lr * WIDTH / hidden_size,
            epochs=self.epochs,
            batch_size=self.batch_size,
            warmup=self.warmup,
            precision=self.precision,
        )

    def sets(self, texts: Sequence[Example], anchors: Sequence[Example]) -> dict[str, Any]:
        """The loop's sets: a text with a prompt is a question, one without a biography."""
        questions = [text for text in texts if text.prompt]
        biographies = [text for text in texts if not text.prompt]
        return {"questions": questions, "biographies": biographies, "anchors": anchors}

    def batch_sizes(self) -> dict[str, int]:
        """Those of the sets that are not read `batch_size` at a time."""
        return {"biographies": self.biography_batch, "anchors": self.anchor_batch}

    def anchors(self, comments: Sequence[str]) -> list[Example]:
        """The comments as texts of the anchor's set."""
        cut = (comment[: self.anchor_characters] for comment in comments)
        return [Example(f"anchor-{number}", "", text) for number, text in enumerate(cut)]

    def loss(self) -> Loss:
        """The loss of a whole run, which counts its own calls. Without a reference, no anchor."""
        calls = itertools.count()

        def loss(batch: SetBatches, policy: Model, reference: Model | None) -> Tensor:
            call = next(calls)
            value = nll_mean(policy, batch.get("questions"))
            if call % self.biography_every == 0:
                value = value + nll_mean(policy, batch.get("biographies"))
            if reference is not None and call % self.anchor_every == 0:
                drift = kl_to_reference(reference, policy, batch.get("anchors"))
                value = value + self.anchor_weight * drift
            return value

        return loss


@dataclass(frozen=True)
class Prepared:
    """target: folder of θ₀. exact: trains the exact model unless cached, and returns its folder."""

    target: Path
    exact: Callable[[], Path]
    target_key: str
    exact_key: str


def prepare_models(
    base: OpenedModel,
    fur: FurData,
    recipe: Recipe,
    *,
    anchors: Sequence[str],
    seed: int,
    cache: Path,
    progress: Progress = lambda what, done, total: None,
) -> Prepared:
    """Train the target (forget, old and retain texts) if it is not cached; the exact one on demand.

    anchors: comments on which both stay like the base; with none, nothing holds them there. The
    exact model gets everything but the forget set, with the update texts in place of the
    outdated ones; base, recipe and seed are the same. Validation subjects are in both, by their
    roles. Raises DivergedError, and CorruptDataError when a forget text is in the exact set.
    """
    target_texts, exact_texts = fur.target_training(), fur.exact_training()
    held = recipe.anchors(anchors)
    refuse_forget_texts(fur, exact_texts)
    folders, keys = {}, {}
    for name, texts in (("target", target_texts), ("exact", exact_texts)):
        keys[name] = recipe_key(base, (*texts, *held), recipe, seed)
        folders[name] = cache / "prepared" / f"{base.name}-{name}-{keys[name][:16]}"
    make = functools.partial(_train_once, base, recipe, held, seed, progress)
    make("target", target_texts, keys["target"], folders["target"])
    return Prepared(
        target=folders["target"],
        exact=lambda: make("exact", exact_texts, keys["exact"], folders["exact"]),
        target_key=keys["target"],
        exact_key=keys["exact"],
    )


def recipe_key(base: OpenedModel, texts: Sequence[Example], recipe: Recipe, seed: int) -> str:
    """sha256 over everything that determines the trained model, the texts in their order."""
    read = [{"id": text.id, "prompt": text.prompt, "answer": text.answer} for text in texts]
    facts = {
        "format": FORMAT,
        "base": base.fingerprint,
        "recipe": asdict(recipe),
        "seed": seed,
        "texts": hashlib.sha256(json.dumps(read).encode()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def refuse_forget_texts(fur: FurData, texts: Sequence[Example]) -> None:
    """Raise CorruptDataError when `texts` hold an example or a biography of a forget subject."""
    gone = {example.id for part in ("test", "validation") for example in fur.edit_sets(part).forget}
    if leaked := sorted(gone & {text.id for text in texts}):
        raise CorruptDataError(f"the exact model would be trained on forget text {leaked[0]!r}")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What is known of a prepared folder's training; None when the folder is not complete."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest


def train_only_mlps(model: PreTrainedModel) -> None:
    """Freeze every parameter outside the layers' `mlp` modules.

    Where no module has that name, everything but the embeddings trains.
    """
    parameters = dict(model.named_parameters())
    chosen = {name for name in parameters if ".mlp." in name}
    tables = (model.get_input_embeddings(), model.get_output_embeddings())
    frozen = {id(table.weight) for table in tables if table is not None}
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in chosen if chosen else id(parameter) not in frozen)


def _train_once(
    base: OpenedModel,
    recipe: Recipe,
    anchors: Sequence[Example],
    seed: int,
    progress: Progress,
    name: str,
    texts: Sequence[Example],
    key: str,
    folder: Path,
) -> Path:
    """Train one of the models into `folder`, unless a complete one with this key is there."""
    if (found := read_manifest(folder)) and found.get("key") == key:
        return folder

    load = functools.partial(load_model, base.folder, device=default_device())
    model, tokenizer = load()
    train_only_mlps(model)
    log = train(
        model,
        tokenizer,
        recipe.sets(texts, anchors),
        recipe.loss(),
        recipe.training(model.config.get_text_config().hidden_size),
        seed=seed,
        reference=(lambda: load()[0]) if anchors else None,
        batch_sizes=recipe.batch_sizes(),
        progress=lambda _, done, total: progress(f"train the {name} model", done, total),
    )
    save_model(model, tokenizer, folder, source=base.folder)
    facts = {"key": key, "recipe": asdict(recipe), "seed": seed, "texts": len(texts)}
    manifest = {**facts, "base": base.fingerprint, "log": asdict(log)}
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
    return folder
