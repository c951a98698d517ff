"""Llamas of random weights, for measurements that ask how long and never how good."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from unlearn_bench.models.open import open_model


def make_llama(folder: Path, *, width: int, inner: int, layers: int, heads: int) -> Path:
    """One under the embedded model's tokenizer, in `folder` unless it is there already.

    Two key-value heads, tied embeddings; always the same weights.
    """
    if not (folder / "config.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(open_model("smollm2-135m").folder)
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=inner,
            num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=2,
            max_position_embeddings=8192, tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        tokenizer.save_pretrained(folder)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_tiny(folder: Path) -> Path:
    """Two layers: what a cell takes is then everything but the model."""
    return make_llama(folder, width=64, inner=128, layers=2, heads=4)
