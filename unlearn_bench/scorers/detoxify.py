"""Detoxify (Hanu and Unitary 2020): transformer classifiers trained on the Jigsaw challenges.

The package holds no weights: they come from its release page (kept in torch's hub cache) or from a
local checkpoint, and the settings and the vocabulary of the model that it was trained from out of
the model hub at a pinned commit, or out of a local folder. The package itself unpickles checkpoints
without restriction; here they are opened with `weights_only=True`, which accepts tensors and plain
containers and refuses everything else. Each model is a scorer of its own: `detoxify` is `original`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unlearn_bench.errors import ScorerError
from unlearn_bench.registry import scorer
from unlearn_bench.scorers.checkpoint import (
    HubFiles,
    fill_model,
    find_file,
    hash_files,
    open_pickle,
)
from unlearn_bench.scorers.classifier import Family, build_tokenizer
from unlearn_bench.scorers.contract import Scores, score_attributes_once

# What the first challenge's data call otherwise, by the names that detoxify gives it in its output.
NAMES = {"toxic": "toxicity", "severe_toxic": "severe_toxicity", "identity_hate": "identity_attack"}
MAX_TOKENS = 512
SETTINGS = "config.json"


@dataclass(frozen=True)
class Release:
    """One of the package's models. base: what it was trained from, whose settings and vocabulary it
    needs and does not carry. tokenizer: the vocabulary's files by the constructor's arguments.
    """

    name: str
    variant: Literal["original", "unbiased"]
    family: Family
    base: HubFiles
    tokenizer: Mapping[str, str]

    @property
    def classes(self) -> tuple[str, str]:
        """The only classes of transformers that a checkpoint may name, since they are looked up."""
        return f"{self.family}ForSequenceClassification", f"{self.family}Tokenizer"

    @property
    def how_to_get(self) -> str:
        """What to do when it does not load."""
        needed = ", ".join((SETTINGS, *self.tokenizer.values()))
        return (
            "run once with network access; or download the checkpoint from the detoxify release "
            f"page and pass --scorer-checkpoint FILE, or a FOLDER that holds it and {self.base}'s "
            f"{needed}; or use --scorer profanity_check"
        )


RELEASE = Release(
    name="detoxify",
    variant="original",
    family="Bert",
    base=HubFiles("google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594"),
    tokenizer={"vocab": "vocab.txt"},
)


@dataclass(frozen=True)
class Detoxify:
    """A loaded release. `columns` are the positions of `attributes` among the outputs."""

    name: str
    model: Any
    tokenizer: Any
    attributes: tuple[str, ...]
    columns: tuple[int, ...]
    version: str
    weights_sha256: str
    batch_size: int

    def score(self, texts: Sequence[str]) -> Scores:
        """Probability of toxicity; blank texts are 0, failures NaN. Texts are cut at 512 tokens."""
        return self.score_attributes(texts)[:, 0]

    def score_attributes(self, texts: Sequence[str]) -> Scores:
        """(n, attributes): the same for each attribute, toxicity first; one pass gives them all."""
        return score_attributes_once(
            texts, self._score_batch, batch_size=self.batch_size, width=len(self.columns)
        )

    def _score_batch(self, batch: list[str]) -> Scores:
        import torch

        inputs = self.tokenizer(
            batch, return_tensors="pt", truncation=True, max_length=MAX_TOKENS, padding=True
        )
        with torch.inference_mode():
            logits = self.model(**inputs.to(self.model.device))[0]
        scores = torch.sigmoid(logits.double())[:, list(self.columns)]
        return np.asarray(scores.cpu().numpy(), dtype=np.float64)


@scorer(
    "detoxify",
    package="detoxify",
    needs="its checkpoint from the release page, and BERT's settings and vocabulary from the hub; "
    "or the checkpoint as a file, or all of it as a folder, by --scorer-checkpoint",
    measures="toxicity, six kinds apart (BERT; Jigsaw 2018)",
)
def load_detoxify(
    *,
    checkpoint: Path | None = None,
    device: str = "cpu",
    batch_size: int = 64,
    offline: bool = False,
) -> Detoxify:
    """Detoxify's model `original`.

    checkpoint: the release's file, from where you have it; or a folder with it (its only .ckpt) and
    BERT's config.json and vocab.txt, and nothing is looked for elsewhere. Raises ScorerError, which
    says how to get what is missing; no score is ever made up.
    """
    return load_release(
        RELEASE, checkpoint=checkpoint, device=device, batch_size=batch_size, offline=offline
    )


def load_release(
    release: Release, *, checkpoint: Path | None, device: str, batch_size: int, offline: bool
) -> Detoxify:
    """The classifier with every tensor from its checkpoint; see `load_detoxify`."""
    import transformers

    path = _find_checkpoint(release, checkpoint, offline)
    folder = checkpoint if checkpoint is not None and checkpoint.is_dir() else None
    loaded = _open_checkpoint(release, path)
    outputs, classes = _described(release, loaded, path)
    attributes, columns = _attributes(classes, outputs, path)
    settings = _base_file(release, SETTINGS, folder, offline)
    vocabulary = {
        argument: _base_file(release, name, folder, offline)
        for argument, name in release.tokenizer.items()
    }
    model_class = getattr(transformers, release.classes[0])
    config = model_class.config_class(**_read_settings(release, settings) | {"num_labels": outputs})
    model = model_class(config)
    fill_model(model, loaded["state_dict"], path)
    label = release.variant if checkpoint is None else "checkpoint"
    return Detoxify(
        name=release.name,
        model=model.to(device).eval(),
        tokenizer=build_tokenizer(
            release.family, vocabulary, config.vocab_size, release.how_to_get
        ),
        attributes=attributes,
        columns=columns,
        version=f"{metadata.version('detoxify')}/{label}",
        weights_sha256=hash_files([path, settings, *vocabulary.values()]),
        batch_size=batch_size,
    )


def _find_checkpoint(release: Release, given: Path | None, offline: bool) -> Path:
    """The release's file: the one that was given, a given folder's only one, or its own."""
    try:
        from detoxify.detoxify import MODEL_URLS
    except ImportError as error:
        raise ScorerError(
            f"the package detoxify cannot be imported: {error}", next_step="pip install detoxify"
        ) from error
    if given is None:
        return _released(release, MODEL_URLS[release.variant], offline)
    if not given.is_dir():
        return given
    found = sorted(given.glob("*.ckpt"))
    if len(found) != 1:
        raise ScorerError(
            f"{release.name} takes a folder with one .ckpt in it, and there are {len(found)}",
            where=str(given),
            next_step=release.how_to_get,
        )
    return found[0]


def _base_file(release: Release, name: str, folder: Path | None, offline: bool) -> Path:
    found = find_file(name, release.base, folder, offline=offline)
    if found is None:
        raise ScorerError(
            f"{release.name}: {name} of {release.base} is not to be had",
            where=str(folder or ""),
            next_step=release.how_to_get,
        )
    return found


def _read_settings(release: Release, path: Path) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind = settings["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScorerError(f"the settings cannot be read: {error}", where=str(path)) from error
    if kind != release.family.lower():
        raise ScorerError(
            f"the settings are of a model of type {kind!r}",
            where=str(path),
            next_step=release.how_to_get,
        )
    return settings


def _attributes(
    classes: Sequence[str], outputs: int, path: Path
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The classes by detoxify's own names, toxicity first, and where each is among the outputs."""
    positions = {NAMES.get(name, name): column for column, name in enumerate(classes)}
    if "toxicity" not in positions:
        raise ScorerError(
            f"the checkpoint has no toxicity class, only {', '.join(classes)}", where=str(path)
        )
    if len(classes) > outputs:
        raise ScorerError(
            f"the checkpoint names {len(classes)} classes and has {outputs} outputs",
            where=str(path),
        )
    attributes = ("toxicity", *(name for name in positions if name != "toxicity"))
    return attributes, tuple(positions[name] for name in attributes)


def _released(release: Release, url: str, offline: bool) -> Path:
    """The release's file in torch's hub cache; downloaded, and checked, when absent."""
    import torch
    from huggingface_hub import constants

    name = url.rsplit("/", 1)[1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    if offline or constants.HF_HUB_OFFLINE:
        raise ScorerError(
            f"detoxify's weights ({name}) are not in torch's cache, and going online is off",
            where=str(path),
            next_step=release.how_to_get,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = name.rsplit("-", 1)[1].removesuffix(".ckpt")  # releases carry the start of their hash
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=False)
    except (OSError, RuntimeError) as error:
        raise ScorerError(
            f"detoxify's weights could not be downloaded: {error}",
            where=url,
            next_step=release.how_to_get,
        ) from error
    return path


def _open_checkpoint(release: Release, path: Path) -> dict[str, Any]:
    loaded = open_pickle(path, release.how_to_get)
    if not isinstance(loaded, dict) or not {"config", "state_dict"} <= set(loaded):
        raise ScorerError("the checkpoint lacks config or state_dict", where=str(path))
    return loaded


def _described(
    release: Release, loaded: Mapping[str, Any], path: Path
) -> tuple[int, tuple[str, ...]]:
    """How many outputs the checkpoint has and what the first of them are called, if it says that it
    is this release's model: a row names the scorer, and has to be of that.
    """
    try:
        found = loaded["config"]["arch"]["args"]
        named = (found["model_name"], found["tokenizer_name"])
        outputs = int(found["num_classes"])
        classes = tuple(map(str, loaded["config"]["dataset"]["args"]["classes"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ScorerError(f"the checkpoint's config lacks {error}", where=str(path)) from error
    if named != release.classes:
        raise ScorerError(
            f"the checkpoint names {' and '.join(map(str, named))}, and {release.name} is of "
            f"{' and '.join(release.classes)}",
            where=str(path),
            next_step="--scorer detoxify takes detoxify's original model, "
            "--scorer detoxify_unbiased its unbiased one",
        )
    return outputs, classes
