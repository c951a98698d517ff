"""ToxiGen's RoBERTa (Hartvigsen et al. 2022, arXiv 2203.09509): trained on implicit hate."""

from __future__ import annotations

from pathlib import Path

from unlearn_bench.registry import scorer
from unlearn_bench.scorers.checkpoint import HubFiles
from unlearn_bench.scorers.classifier import Classifier, Recipe, load_classifier

RECIPE = Recipe(
    name="toxigen_roberta",
    hub=HubFiles("tomh/toxigen_roberta", "0e65216a558feba4bb167d47e49f9a9e229de6ab"),
    family="Roberta",
    tokenizer={"vocab": "vocab.json", "merges": "merges.txt"},
)


@scorer(
    "toxigen_roberta",
    needs="tomh/toxigen_roberta from the hub, or as a folder by --scorer-checkpoint",
    measures="hate against groups, implicit too (RoBERTa trained on ToxiGen)",
)
def load_toxigen_roberta(
    *,
    checkpoint: Path | None = None,
    device: str = "cpu",
    batch_size: int = 64,
    offline: bool = False,
) -> Classifier:
    """tomh/toxigen_roberta at a pinned commit; class 1 (LABEL_1) is the toxic one.

    checkpoint: a folder in place of the hub's repository. Trained on statements about groups: what
    is rude but about nobody is outside of what it learned. Raises ScorerError.
    """
    return load_classifier(
        RECIPE, checkpoint=checkpoint, device=device, batch_size=batch_size, offline=offline
    )
