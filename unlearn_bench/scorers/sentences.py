"""Sentence embeddings: the mean of MiniLM's last hidden states, of length 1 (Wang et al. 2020).

As sentence-transformers/all-MiniLM-L6-v2 makes them, with nothing but transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearn_bench.errors import ScorerError
from unlearn_bench.scorers.checkpoint import fill_model, read_tensors

WIDTH = 384
MAX_TOKENS = 128
SIZES = {
    "vocab_size": 30_522,
    "hidden_size": WIDTH,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1_536,
}


@dataclass(frozen=True)
class Encoder:
    """See `load_encoder`."""

    model: Any
    tokenizer: Any

    def embed(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """(len(texts), 384), each row of length 1, in one pass; texts are cut at 128 tokens."""
        import torch

        inputs = self.tokenizer(
            list(texts), return_tensors="pt", truncation=True, max_length=MAX_TOKENS, padding=True
        ).to(self.model.device)
        with torch.inference_mode():
            hidden = self.model(**inputs).last_hidden_state  # (B, T, 384)
            kept = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            means = (hidden * kept).sum(dim=1) / kept.sum(dim=1)
            rows = torch.nn.functional.normalize(means, dim=-1)
        return np.asarray(rows.double().cpu().numpy())


def load_encoder(weights: Path, vocabulary: Path, *, device: str = "cpu") -> Encoder:
    """MiniLM of 6 layers in float32, every tensor from `weights` (safetensors).

    Raises ScorerError for files that are not its own.
    """
    import transformers

    model = transformers.BertModel(transformers.BertConfig(**SIZES))
    fill_model(model, read_tensors(weights), weights)
    try:
        tokenizer = transformers.BertTokenizer(vocab=str(vocabulary))
    except Exception as error:  # the tokenizers library raises plain Exception
        raise ScorerError(
            f"the vocabulary cannot be read: {error}", where=str(vocabulary)
        ) from error
    return Encoder(model.to(device).eval(), tokenizer)
