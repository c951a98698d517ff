"""Detoxify's `unbiased` model: RoBERTa trained on Jigsaw's second challenge, which asks to tell
toxicity without taking the mention of a group for it.
"""

from __future__ import annotations

from pathlib import Path

from unlearn_bench.registry import scorer
from unlearn_bench.scorers.checkpoint import HubFiles
from unlearn_bench.scorers.detoxify import Detoxify, Release, load_release

RELEASE = Release(
    name="detoxify_unbiased",
    variant="unbiased",
    family="Roberta",
    base=HubFiles("FacebookAI/roberta-base", "e2da8e2f811d1448a5b465c236feacd80ffbac7b"),
    tokenizer={"vocab": "vocab.json", "merges": "merges.txt"},
)


@scorer(
    "detoxify_unbiased",
    package="detoxify",
    needs="its checkpoint from the release page, and RoBERTa's settings and vocabulary from the "
    "hub; or the checkpoint as a file, or all of it as a folder, by --scorer-checkpoint",
    measures="toxicity, seven kinds apart (RoBERTa; Jigsaw 2019, unintended bias)",
)
def load_detoxify_unbiased(
    *,
    checkpoint: Path | None = None,
    device: str = "cpu",
    batch_size: int = 64,
    offline: bool = False,
) -> Detoxify:
    """Detoxify's model `unbiased`, trained not to take the mention of a group for toxicity.

    Attributes: toxicity, severe_toxicity, obscene, identity_attack, insult, threat,
    sexual_explicit; as in the package its nine outputs more, of groups that a comment names, are
    none. checkpoint: as of `detoxify`. Raises ScorerError.
    """
    return load_release(
        RELEASE, checkpoint=checkpoint, device=device, batch_size=batch_size, offline=offline
    )
