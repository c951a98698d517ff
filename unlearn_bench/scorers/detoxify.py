"""Detoxify (Hanu and Unitary 2020): transformer classifiers trained on the Jigsaw challenges.

The package holds no weights: they come from its release page (kept in torch's hub cache) or from a
local checkpoint, and the tokenizer with the architecture's settings from the model hub's cache or
a local folder. The package itself unpickles checkpoints without restriction; here they are opened
with `weights_only=True`, which accepts tensors and plain containers and refuses everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unlearn_bench.errors import ScorerError
from unlearn_bench.registry import scorer
from unlearn_bench.scorers.checkpoint import fill_model, hash_files, open_pickle
from unlearn_bench.scorers.contract import Scores, score_attributes_once

Variant = Literal["original", "unbiased"]
# The only classes a checkpoint may name: its config decides what is looked up in transformers.
ARCHITECTURES = (
    "AlbertForSequenceClassification",
    "BertForSequenceClassification",
    "RobertaForSequenceClassification",
    "XLMRobertaForSequenceClassification",
)
TOKENIZERS = ("AlbertTokenizer", "BertTokenizer", "RobertaTokenizer", "XLMRobertaTokenizer")
# What the first challenge's data call otherwise, by the names that detoxify gives it in its output.
NAMES = {"toxic": "toxicity", "severe_toxic": "severe_toxicity", "identity_hate": "identity_attack"}
MAX_TOKENS = 512
HOW_TO_GET = (
    "download the checkpoint from the detoxify release page and pass --scorer-checkpoint FILE, "
    "or use --scorer profanity_check"
)


@dataclass(frozen=True)
class Detoxify:
    """See `load_detoxify`. `columns` are the positions of `attributes` among the outputs."""

    model: Any
    tokenizer: Any
    attributes: tuple[str, ...]
    columns: tuple[int, ...]
    version: str
    weights_sha256: str
    batch_size: int
    name: str = "detoxify"

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
    needs="its checkpoint (release page or --scorer-checkpoint) and its base model's tokenizer",
    measures="toxicity, explicit and implicit (BERT or RoBERTa)",
)
def load_detoxify(
    *,
    checkpoint: Path | None = None,
    config_folder: Path | None = None,
    variant: Variant = "original",
    device: str = "cpu",
    batch_size: int = 64,
    offline: bool = False,
) -> Detoxify:
    """Detoxify's own weights: `original` (BERT) or `unbiased` (RoBERTa).

    checkpoint: a local file in place of the release's. config_folder: config.json and tokenizer
    files of the base model, in place of the hub's. Raises ScorerError, which says how to get what
    is missing; no score is ever made up.
    """
    try:
        from detoxify.detoxify import MODEL_URLS
    except ImportError as error:
        raise ScorerError(
            f"the package detoxify cannot be imported: {error}", next_step="pip install detoxify"
        ) from error
    path = checkpoint or _released(MODEL_URLS[variant], offline)
    loaded = _open_checkpoint(path)
    architecture = _architecture(loaded, path)
    model, tokenizer = _build(architecture, loaded["state_dict"], config_folder, offline, path)
    attributes, columns = _attributes(list(loaded["config"]["dataset"]["args"]["classes"]), path)
    label = variant if checkpoint is None else "checkpoint"
    return Detoxify(
        model=model.to(device).eval(),
        tokenizer=tokenizer,
        attributes=attributes,
        columns=columns,
        version=f"{metadata.version('detoxify')}/{label}",
        weights_sha256=hash_files([path]),
        batch_size=batch_size,
    )


def _attributes(classes: list[str], path: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The classes by detoxify's own names, toxicity first, and where each is among the outputs."""
    positions = {NAMES.get(name, name): column for column, name in enumerate(classes)}
    if "toxicity" not in positions:
        raise ScorerError(f"the checkpoint has no toxicity class, only {classes}", where=str(path))
    attributes = ("toxicity", *(name for name in positions if name != "toxicity"))
    return attributes, tuple(positions[name] for name in attributes)


def _released(url: str, offline: bool) -> Path:
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
            next_step=HOW_TO_GET,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = name.rsplit("-", 1)[1].removesuffix(".ckpt")  # releases carry the start of their hash
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=False)
    except (OSError, RuntimeError) as error:
        raise ScorerError(
            f"detoxify's weights could not be downloaded: {error}", where=url, next_step=HOW_TO_GET
        ) from error
    return path


def _open_checkpoint(path: Path) -> dict[str, Any]:
    loaded = open_pickle(path, HOW_TO_GET)
    if not isinstance(loaded, dict) or not {"config", "state_dict"} <= set(loaded):
        raise ScorerError("the checkpoint lacks config or state_dict", where=str(path))
    return loaded


def _architecture(loaded: dict[str, Any], path: Path) -> dict[str, Any]:
    """The checkpoint's model_type, model_name, tokenizer_name and num_classes, checked."""
    try:
        found = dict(loaded["config"]["arch"]["args"])
        chosen = {
            key: found[key] for key in ("model_type", "model_name", "tokenizer_name", "num_classes")
        }
        list(loaded["config"]["dataset"]["args"]["classes"])
    except (KeyError, TypeError) as error:
        raise ScorerError(f"the checkpoint's config lacks {error}", where=str(path)) from error
    if chosen["model_name"] not in ARCHITECTURES or chosen["tokenizer_name"] not in TOKENIZERS:
        raise ScorerError(
            f"the checkpoint names {chosen['model_name']} and {chosen['tokenizer_name']}, which "
            "are no detoxify classes",
            where=str(path),
        )
    return chosen


def _build(
    architecture: dict[str, Any],
    weights: dict[str, Any],
    config_folder: Path | None,
    offline: bool,
    path: Path,
) -> tuple[Any, Any]:
    """The classifier with every tensor from the checkpoint, and its tokenizer."""
    import transformers

    source = str(config_folder or architecture["model_type"])
    local_only = offline or config_folder is not None
    model_class = getattr(transformers, architecture["model_name"])
    try:
        config = model_class.config_class.from_pretrained(
            source, num_labels=architecture["num_classes"], local_files_only=local_only
        )
        tokenizer = getattr(transformers, architecture["tokenizer_name"]).from_pretrained(
            source, local_files_only=local_only
        )
    except (OSError, ValueError, TypeError) as error:
        raise ScorerError(
            f"the tokenizer and settings of {source} are not to be had: {error}",
            next_step=f"fetch {architecture['model_type']} once with network access, or pass "
            "config_folder",
        ) from error
    model = model_class(config)
    fill_model(model, weights, path)
    return model, tokenizer
