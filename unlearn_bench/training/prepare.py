"""The two models every comparison starts from: the target θ₀, and the exact model beside it."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn_bench.cache import alone, write_atomically
from unlearn_bench.data.public import EditSet
from unlearn_bench.errors import CorruptDataError, UnlearnBenchError
from unlearn_bench.models.fingerprint import fingerprint
from unlearn_bench.models.load import load_model, save_model
from unlearn_bench.models.opened import OpenedModel
from unlearn_bench.schema import Example
from unlearn_bench.training.batches import SetBatches
from unlearn_bench.training.likelihood import Model, kl_to_reference, nll_mean
from unlearn_bench.training.loop import Loss, Progress, TrainLog, count_steps, train
from unlearn_bench.training.options import Precision, Training
from unlearn_bench.training.parallel import is_main, loading_device, processes, wait

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MANIFEST = "prepared.json"  # written last: a folder that has it is complete
WIDTH = 576  # hidden size of SmolLM2-135M, on which the recipe's rate was chosen
FORMAT = 3  # raise it when the same recipe would give another model


@dataclass(frozen=True)
class Recipe:
    """How both models are trained from the base.

    Every step lowers NLL_m of `batch_size` questions, in `epochs` passes over all of them. To every
    `biography_every`-th step NLL_m of `biography_batch` biographies is added, which makes about one
    and a half passes over those; to every `anchor_every`-th step `anchor_weight`·KL(base ‖ θ) on
    `anchor_batch` ordinary comments, cut to `anchor_characters`: a target should differ from its
    base in what it knows about the subjects, and in nothing else. Only the MLPs learn. What each of
    these buys is measured in docs/design/target.md.

    lr: for a hidden size of `WIDTH`; others get it in inverse proportion, as Adam's rate scales in
    µP (arXiv:2203.03466, table 3). A recipe is part of every result's key.
    """

    lr: float = 9e-4
    epochs: int = 6
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
        """The recipe as options of the loop, for a model of this width.

        Several processes share out a step's texts, where a method's `batch_size` is each one's.
        """
        return Training(
            lr=self.lr * WIDTH / hidden_size,
            epochs=self.epochs,
            batch_size=_of_each(self.batch_size),
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
        sizes = {"biographies": self.biography_batch, "anchors": self.anchor_batch}
        return {name: _of_each(size) for name, size in sizes.items()}

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
            if call % self.biography_every == 0 and batch.has("biographies"):
                value = value + nll_mean(policy, batch.get("biographies"))
            if reference is not None and call % self.anchor_every == 0:
                drift = kl_to_reference(reference, policy, batch.get("anchors"))
                value = value + self.anchor_weight * drift
            return value

        return loss


@dataclass(frozen=True)
class BaseTraining:
    """The base model and how θ₀ was trained from it, for methods that do part of it again.

    before: the texts that θ₀ learned; after: those it should have learned instead.
    """

    base: OpenedModel
    recipe: Recipe
    anchors: tuple[Example, ...]
    before: tuple[Example, ...]
    after: tuple[Example, ...]

    def load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The base as it was before any of the texts, on the device that models are trained on."""
        return load_model(self.base.folder, device=loading_device())

    def train(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[Example],
        *,
        seed: int,
        share: float = 1.0,
        progress: Progress = lambda what, done, total: None,
    ) -> TrainLog:
        """Train `model` in place on `texts` by the recipe, for `share` of its steps.

        Its parameters are all trainable again afterwards.
        """
        sets = self.recipe.sets(texts, self.anchors)
        training = self.recipe.training(model.config.get_text_config().hidden_size)
        if share != 1.0:
            steps = max(1, round(share * count_steps(sets, training, processes())))
            training = training.model_copy(update={"steps": steps})
        train_only_mlps(model)
        try:
            return train(
                model,
                tokenizer,
                sets,
                self.recipe.loss(),
                training,
                seed=seed,
                reference=(lambda: self.load()[0]) if self.anchors else None,
                batch_sizes=self.recipe.batch_sizes(),
                progress=progress,
            )
        finally:
            model.requires_grad_(True)


@dataclass(frozen=True)
class Prepared:
    """target: folder of θ₀. exact: trains the exact model unless cached, and returns its folder.

    exact_after: the same where only some subjects, named by their ids, were to be forgotten or
    updated so far.
    """

    target: Path
    exact: Callable[[], Path]
    exact_after: Callable[[Collection[str]], Path]


def prepare_models(
    base: OpenedModel,
    fur: EditSet,
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
    held, exact_texts = recipe.anchors(anchors), fur.exact_training()
    refuse_forget_texts(fur, exact_texts)

    def make(name: str, texts: Sequence[Example]) -> Path:
        key = recipe_key(base, (*texts, *held), recipe, seed)
        folder = cache / "prepared" / f"{base.name}-{name}-{key[:16]}"
        if not _is_whole(folder, key):
            # Processes that train together come here together: one of them waiting would stop all.
            with alone(folder) if processes() == 1 else nullcontext():
                if not _is_whole(folder, key):  # another run may have made it meanwhile
                    _train_into(folder, base, recipe, held, seed, progress, name, texts, key)
        return folder

    def exact_after(requested: Collection[str]) -> Path:
        texts = fur.exact_training(requested)
        refuse_forget_texts(fur, texts, requested)
        return make("exact", texts)

    return Prepared(
        target=make("target", fur.target_training()),
        exact=lambda: make("exact", exact_texts),
        exact_after=exact_after,
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
    if processes() > 1:
        facts["processes"] = processes()
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _of_each(size: int) -> int:
    """What each process reads of a batch that all read together."""
    return math.ceil(size / processes())


def refuse_forget_texts(
    fur: EditSet, texts: Sequence[Example], requested: Collection[str] | None = None
) -> None:
    """Raise CorruptDataError when `texts` hold an example or a biography of a forget subject.

    requested: as for `EditSet.exact_training`.
    """
    sets = (fur.edit_sets("test", requested), fur.edit_sets("validation"))
    gone = {example.id for part in sets for example in part.forget}
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


def _is_whole(folder: Path, key: str) -> bool:
    """Whether the folder holds what was trained for this key, to the bit. Older manifests do not
    say what the weights were.
    """
    found = read_manifest(folder)
    if found is None or found.get("key") != key:
        return False
    try:
        return found.get("weights") in (None, fingerprint(folder))
    except UnlearnBenchError:  # half a file
        return False


def _train_into(
    folder: Path,
    base: OpenedModel,
    recipe: Recipe,
    anchors: Sequence[Example],
    seed: int,
    progress: Progress,
    name: str,
    texts: Sequence[Example],
    key: str,
) -> None:
    """The manifest is written last: without it the folder may be half a model."""
    again = BaseTraining(base, recipe, tuple(anchors), (), ())
    model, tokenizer = again.load()
    log = again.train(
        model,
        tokenizer,
        texts,
        seed=seed,
        progress=lambda _, done, total: progress(f"train the {name} model", done, total),
    )
    if is_main():
        save_model(model, tokenizer, folder, source=base.folder)
        facts = {"key": key, "recipe": asdict(recipe), "seed": seed, "texts": len(texts)}
        manifest = {
            **facts,
            "base": base.fingerprint,
            "weights": fingerprint(folder),
            "log": asdict(log),
        }
        write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
    wait()
