"""ToxiGen's HateBERT (Hartvigsen et al. 2022, arXiv 2203.09509): trained on implicit hate."""

from __future__ import annotations

from pathlib import Path

from unlearn_bench.registry import scorer
from unlearn_bench.scorers.checkpoint import HubFiles
from unlearn_bench.scorers.classifier import Classifier, Recipe, load_classifier

RECIPE = Recipe(
    name="toxigen_hatebert",
    # No commit of this repository is on record where this was written, so none could be checked:
    # the one that the hub gives stands in the version, and its bytes in weights_sha256.
    hub=HubFiles("tomh/toxigen_hatebert", "main"),
    family="Bert",
    tokenizer={"vocab": "vocab.txt"},
    # The repository has no tokenizer. HateBERT (Caselli et al. 2021, arXiv 2010.12472) was trained
    # on from BERT base uncased, with its vocabulary; the cased one that is often given beside this
    # model maps words to other rows.
    tokenizer_hub=HubFiles(
        "google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594"
    ),
)


@scorer(
    "toxigen_hatebert",
    needs="tomh/toxigen_hatebert and BERT's vocabulary from the hub, or both by "
    "--scorer-checkpoint FOLDER",
    measures="hate against groups, implicit too (HateBERT trained on ToxiGen)",
)
def load_toxigen_hatebert(
    *,
    checkpoint: Path | None = None,
    device: str = "cpu",
    batch_size: int = 64,
    offline: bool = False,
) -> Classifier:
    """tomh/toxigen_hatebert with BERT's own uncased vocabulary; class 1 (LABEL_1) is the toxic one.

    checkpoint: a folder in place of the hub's repository; its vocab.txt, where it has one, comes
    before BERT's. Raises ScorerError.
    """
    return load_classifier(
        RECIPE, checkpoint=checkpoint, device=device, batch_size=batch_size, offline=offline
    )
