"""Is a text language at all? Cheap measures that need no model, and what they cannot see.

They find the wreckage of over-unlearning (empty answers, symbols, loops). Fluent nonsense passes.
"""

from __future__ import annotations

import re

LOOP = re.compile(r"\b(\w+)(?:\W+\1\b){2,}|(\S)\2{4,}", re.IGNORECASE)
LETTERS = 0.5  # share of visible characters that are letters or digits, below which it is noise
DISTINCT = 0.5  # share of different words, below which a text of LONG words goes round in circles
LONG = 6


def is_gibberish(text: str) -> bool:
    """No letter, mostly symbols, undecodable bytes, one word three times or one sign five times in
    a row, or fewer than half of at least six words different.
    """
    visible = [sign for sign in text if not sign.isspace()]
    if not any(map(str.isalpha, visible)) or "\ufffd" in text:
        return True
    if sum(map(str.isalnum, visible)) < LETTERS * len(visible):
        return True
    words = text.casefold().split()
    circles = len(words) >= LONG and len(set(words)) < DISTINCT * len(words)
    return circles or LOOP.search(text) is not None


def repetition(text: str, n: int = 2) -> float:
    """1 − different n-grams of words / all of them; 0 for a text with fewer words: none repeats.

    Source: Welleck et al. 2019 (arXiv 1908.04319), section 6.1, seq-rep-n.
    """
    words = text.casefold().split()
    grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
