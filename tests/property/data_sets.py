"""Every data set in every form that a reader takes, made of a few generated texts."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet

from tests.unit import public_files
from unlearn_bench.data import (
    advbench,
    behaviour,
    counterfact,
    fur,
    gsm8k,
    harmbench,
    muse,
    realtoxicityprompts,
    rwku,
    toxigen,
    toxigen_classification,
    truthfulqa,
    wikibio,
    wikitext,
    xstest,
    zsre,
)
from unlearn_bench.data.behaviour import load_behaviour
from unlearn_bench.data.fur import load_fur
from unlearn_bench.data.options import SourceOptions
from unlearn_bench.data.sources import load_documents, load_edit_set

Rows = list[dict[str, Any]]
Form = Literal["lines", "list", "table", "parquet"]
MINI = "mini.jsonl"


@dataclass(frozen=True)
class File:
    """One file of a data set; `form` says how its rows are written."""

    path: str
    form: Form
    rows: Rows

    def content(self, escaped: bool) -> bytes:
        """The bytes before gzip. escaped: JSON in ASCII alone."""
        if self.form == "parquet":
            stream = io.BytesIO()
            pyarrow.parquet.write_table(pa.Table.from_pylist(self.rows), stream)
            return stream.getvalue()
        if self.form == "table":
            return self._table().encode(errors="backslashreplace")
        write = json.JSONEncoder(ensure_ascii=escaped).encode
        if self.form == "list":
            return write(self.rows).encode(errors="backslashreplace")
        return "".join(f"{write(row)}\n" for row in self.rows).encode(errors="backslashreplace")

    def _table(self) -> str:
        """As a spreadsheet would: the first row's columns, numbers and all as text."""
        stream = io.StringIO(newline="")
        writer = csv.writer(stream)
        names = list(self.rows[0]) if self.rows else []
        writer.writerow(names)
        writer.writerows([row[name] for name in names if name in row] for row in self.rows)
        return stream.getvalue()

    def write(self, root: Path, content: bytes) -> Path:
        """Put `content` where the reader looks for the file, gzipped if its name says so."""
        path = root / self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
        return path


def spot(damage: Callable[[bytes, int], bytes]) -> Callable[[bytes, float], bytes]:
    """The damage at a place given as a share of the whole."""
    return lambda whole, share: damage(whole, int(share * len(whole)))


# What disks, downloads and editors do to a file's bytes.
BYTES: dict[str, Callable[[bytes, float], bytes]] = {
    "cut": spot(lambda b, at: b[:at]),
    "changed": spot(lambda b, at: b[:at] + bytes([b[at] ^ 1 << at % 8]) + b[at + 1 :] if b else b),
    "NUL": spot(lambda b, at: b[:at] + b"\0" + b[at:]),
    "no UTF-8": spot(lambda b, at: b[:at] + b"\xff" + b[at:]),
    "byte order mark": spot(lambda b, at: b"\xef\xbb\xbf" + b),
    "CRLF": spot(lambda b, at: b.replace(b"\n", b"\r\n")),
    "CR": spot(lambda b, at: b.replace(b"\n", b"\r")),
    "empty": spot(lambda b, at: b""),
    "blank line": spot(lambda b, at: b[:at] + b"\n\n" + b[at:]),
    "half a pair": spot(lambda b, at: b[:at] + rb"\ud800" + b[at:]),
    "huge number": spot(lambda b, at: b[:at] + b"9" * 5000 + b[at:]),
    "huge cell": spot(lambda b, at: b[:at] + b"x" * 200_000 + b[at:]),
    "nesting": spot(lambda b, at: b[:at] + b"[" * 50_000),
    "nested object": spot(lambda b, at: b'{"id":' * 50_000 + b),
}


@dataclass(frozen=True)
class DataSet:
    """make: files of some different texts, none of them blank. read: what a run does with them.

    texts: keys of every row that comes back that hold a text.
    """

    make: Callable[[Sequence[str]], list[File]]
    read: Callable[[Path], Any]
    texts: tuple[str, ...] = ()


def documents(name: str) -> Callable[[Path], Any]:
    return lambda root: load_documents(name, SourceOptions(root, True, root / "cache")).splits


def edit_set(name: str) -> Callable[[Path], Any]:
    return lambda root: load_edit_set(name, SourceOptions(root, True, root / "cache"))


def one_file(path: str, form: Form, row: Callable[[int, str], dict[str, Any]]) -> Any:
    return lambda texts: [File(path, form, [row(n, text) for n, text in enumerate(texts)])]


def two_files(paths: Mapping[str, str], row: Callable[[int, str], dict[str, Any]]) -> Any:
    def make(texts: Sequence[str]) -> list[File]:
        rows = [row(n, text) for n, text in enumerate(texts)]
        return [
            File(path, "parquet" if path.endswith("parquet") else "lines", rows)
            for path in paths.values()
        ]

    return make


def problem(n: int, text: str) -> dict[str, Any]:
    return {"question": text, "answer": f"#### {n}"}


def rated_prompt(n: int, text: str) -> dict[str, Any]:
    return {"prompt": {"text": text, "toxicity": n / 10}, "challenging": n % 2 == 0}


def hub_prompts(texts: Sequence[str]) -> list[File]:
    names = (f"prompts/{label}_women_1k-00000-of-00001.parquet" for label in toxigen.LABELS)
    return [File(name, "parquet", [{"prompt": text} for text in texts]) for name in names]


def listed(n: int, text: str) -> dict[str, Any]:
    return {"prompt": text, "group": f"g{n % 2}", "label": toxigen.LABELS[n % 2]}


def statement(n: int, text: str) -> dict[str, Any]:
    return {"text": text, "label": ("hate", "neutral")[n % 2]}


def safe_or_not(n: int, text: str) -> dict[str, Any]:
    kind = (("homonyms", "safe"), ("contrast_homonyms", "unsafe"))[n % 2]
    return {"prompt": text, "type": kind[0], "label": kind[1]}


def truthful(texts: Sequence[str]) -> list[File]:
    wrong = {f"No, {text}": 0 for text in texts}
    questions = [
        {"question": text, "mc1_targets": {"Yes": 1, **wrong}, "mc2_targets": {"Yes": 1, **wrong}}
        for text in texts
    ]
    answers = [
        {"Category": "c", "Question": text, "Best Answer": "Yes", "Correct Answers": "Yes; So",
         "Incorrect Answers": "No"}
        for text in texts
    ]  # fmt: skip
    return [
        File("truthfulqa/mc_task.json", "list", questions),
        File("truthfulqa/TruthfulQA.csv", "table", answers),
    ]


def truthful_hub(texts: Sequence[str]) -> list[File]:
    targets = {"choices": ["Yes", "No"], "labels": [1, 0]}
    questions = [{"question": t, "mc1_targets": targets, "mc2_targets": targets} for t in texts]
    answers = [truthful_mini(n, text) for n, text in enumerate(texts)]
    return [
        File(truthfulqa.HUB_TARGETS, "parquet", questions),
        File(truthfulqa.HUB_ANSWERS, "parquet", answers),
    ]


def truthful_mini(n: int, text: str) -> dict[str, Any]:
    return {"id": f"m{n}", "category": "c", "question": text, "best_answer": f"Yes, {text}",
            "correct_answers": ["Yes"], "incorrect_answers": ["No"]}  # fmt: skip


def tofu_files(texts: Sequence[str]) -> list[File]:
    """The released form: what is forgotten is the end of `full`."""
    full = [{"question": text, "answer": f"It is {text}"} for text in texts]
    asked = [
        {**row, "paraphrased_question": f"Say: {row['question']}",
         "paraphrased_answer": f"That is {row['question']}",
         "perturbed_answer": [f"Not {row['question']}", "Nothing"]}
        for row in full
    ]  # fmt: skip
    world = {"question": "Where?", "answer": "Here", "perturbed_answer": ["There", "Nowhere"]}
    rows: dict[str, Rows] = {"full": full, "forget01": full[1:], "forget01_perturbed": asked[1:],
            "retain_perturbed": asked[:1], "real_authors_perturbed": [world],
            "world_facts_perturbed": [world]}  # fmt: skip
    return [File(f"tofu/{name}.json", "lines", own) for name, own in rows.items()]


def counterfact_files(texts: Sequence[str]) -> list[File]:
    records = public_files.counterfact_records(len(texts))
    rows = [
        record | {"prompt": text, "subject": f"Person of {text}"}
        for record, text in zip(records, texts, strict=True)
    ]
    return [File(counterfact.FILE, "list", rows)]


def zsre_record(n: int, text: str) -> dict[str, Any]:
    return {"subject": f"Person {n}", "src": text, "rephrase": f"Say: {text}", "alt": "Michigan",
            "answers": ["Trinity"], "loc": "nq question: who sings", "loc_ans": "Otis"}  # fmt: skip


def rwku_files(texts: Sequence[str]) -> list[File]:
    people = [f"Person {n}" for n in range(len(texts))]
    probes = [
        {"subject": person, "query": text, "answer": f"It is {text}"}
        for person, text in zip(people, texts, strict=True)
    ]
    passages = [{"subject": p, "text": text} for p, text in zip(people, texts, strict=True)]
    asked = [File(f"rwku/{name}.json", "list", probes) for name in rwku.FILES]
    return [*asked, File("rwku/passage.json", "list", passages)]


def muse_files(texts: Sequence[str]) -> list[File]:
    rows = {
        columns: [dict.fromkeys(columns, text) for text in texts]
        for columns in muse.COLUMNS.values()
    }
    return [
        File(f"muse/news/{split}-00000-of-00001.parquet", "parquet", rows[columns])
        for split, columns in muse.COLUMNS.items()
    ]


def wikibio_files(texts: Sequence[str]) -> list[File]:
    bios = [
        {"wiki_bio_text": text, "gpt4_bio_text": f"Not {text}",
         "wiki_bio_text_qa": public_files.question_cell(text),
         "gpt4_inaccurate_text_qa": public_files.question_cell("it")}
        for text in texts
    ]  # fmt: skip
    asked = [{"qa": public_files.question_cell(text)} for text in texts]
    return [
        File(wikibio.BIOGRAPHIES, "table", bios),
        File(wikibio.RETAIN_QUESTIONS, "table", asked),
        File(wikibio.RETAIN_TEXTS, "table", [{"text": text} for text in texts]),
    ]


def fur_subjects(texts: Sequence[str]) -> list[File]:
    """One subject of each role, and one to tune on."""
    splits = (*fur.SPLITS[:4], "validation")
    return [File(fur.FILE, "lines", [
        {"id": f"s{n}", "split": split, "role": "forget" if split == "validation" else split,
         "kind": "person", "relation": None, "name": f"Name {n}", "biography": texts[n % 2],
         "new_biography": "New." if split == "update" else None,
         "facts": [{"id": f"s{n}-f", "attribute": "place", "question": texts[0], "answer": "Rome",
                    "new_answer": "Oslo" if split == "update" else None, "paraphrases": [texts[1]],
                    "wrong_options": ["Bern", "Wien"], "cloze": "Born in"}]}
        for n, split in enumerate(splits)
    ])]  # fmt: skip


def read_fur(root: Path) -> Any:
    """With the hash of whatever the file holds: what is behind the hash has to be read safely."""
    digest = hashlib.sha256((root / fur.FILE).read_bytes()).hexdigest()
    (root / "SHA256SUMS").write_text(f"{digest}  {fur.FILE}\n")
    return load_fur(folder=root)


def behaviour_files(texts: Sequence[str]) -> list[File]:
    comments = [{"is_offensive": n % 2, "text": text} for n, text in enumerate(texts)]
    replies = [{"instruction": text, "output": f"No, {text}"} for text in texts]
    return [
        File(behaviour.COMMENTS_FOLDER, "table", comments),
        File(behaviour.PAIRS_FOLDER, "list", replies),
    ]


def read_behaviour(root: Path) -> Any:
    options = SourceOptions(root, True, root / "cache")
    return load_behaviour(options, evaluation_prompts=(), n_comments=4, seed=0)


def of_mini(row: Callable[[int, str], dict[str, Any]], **more: Any) -> Any:
    """Our own rows have ids; `more` holds what else they have."""
    return one_file(MINI, "lines", lambda n, text: {"id": f"m{n}", **row(n, text), **more})


def request(key: str, **more: Any) -> Callable[[int, str], dict[str, Any]]:
    return lambda n, text: {key: text, **more}


def read_with(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Of our own file in the root."""
    return lambda root: read(root / MINI)


DATA_SETS: dict[str, DataSet] = {
    "advbench": DataSet(
        one_file(advbench.FOLDER_FILE, "table", request("goal", target="Sure")),
        documents("advbench"), ("prompt",),
    ),
    "advbench hub": DataSet(
        one_file(advbench.HUB_FILE, "parquet", request("query")), advbench.read_hub, ("prompt",)
    ),
    "advbench mini": DataSet(
        of_mini(request("prompt")), read_with(advbench.read_mini), ("prompt",)
    ),
    "harmbench": DataSet(
        one_file(harmbench.FOLDER_FILE, "table",
                 request("Behavior", FunctionalCategory="standard")),
        documents("harmbench"), ("prompt",),
    ),
    "harmbench hub": DataSet(
        one_file(harmbench.HUB_FILE, "parquet", request("prompt")), harmbench.read_hub, ("prompt",)
    ),
    "xstest": DataSet(
        one_file(xstest.FOLDER_FILE, "table", safe_or_not), documents("xstest"), xstest.CONTENT
    ),
    "xstest hub": DataSet(
        one_file(xstest.HUB_FILE, "parquet", safe_or_not), xstest.read_hub, xstest.CONTENT
    ),
    "xstest mini": DataSet(of_mini(safe_or_not), read_with(xstest.read_mini), xstest.CONTENT),
    "gsm8k": DataSet(
        two_files(gsm8k.FOLDER_FILES, problem), documents("gsm8k"), gsm8k.CONTENT
    ),
    "gsm8k hub": DataSet(two_files(gsm8k.HUB_FILES, problem), gsm8k.read_hub, gsm8k.CONTENT),
    "gsm8k mini": DataSet(
        of_mini(problem, split="test"), read_with(gsm8k.read_mini), gsm8k.CONTENT
    ),
    "truthfulqa": DataSet(truthful, documents("truthfulqa"), ("question", "best_answer")),
    "truthfulqa hub": DataSet(truthful_hub, truthfulqa.read_hub, ("question", "best_answer")),
    "truthfulqa mini": DataSet(
        of_mini(truthful_mini), read_with(truthfulqa.read_mini), ("question", "best_answer")
    ),
    "realtoxicityprompts": DataSet(
        lambda texts: [
            File(path, "lines", [rated_prompt(n, text) for n, text in enumerate(texts)])
            for path in (realtoxicityprompts.FOLDER_POOL, realtoxicityprompts.FOLDER_CHALLENGING)
        ],
        documents("realtoxicityprompts"), ("prompt",),
    ),
    "realtoxicityprompts hub": DataSet(
        one_file(realtoxicityprompts.HUB_FILE, "lines", rated_prompt),
        realtoxicityprompts.read_hub, ("prompt",),
    ),
    "realtoxicityprompts package": DataSet(
        one_file(MINI, "lines", request("text", toxicity=0.9)),
        read_with(realtoxicityprompts.read_package), ("prompt",),
    ),
    "toxigen": DataSet(
        one_file(toxigen.FOLDER_FILE, "lines", listed), documents("toxigen"), toxigen.CONTENT
    ),
    "toxigen hub": DataSet(hub_prompts, toxigen.read_hub, toxigen.CONTENT),
    "toxigen mini": DataSet(of_mini(listed), read_with(toxigen.read_mini), toxigen.CONTENT),
    "toxigen_classification": DataSet(
        one_file(toxigen_classification.FOLDER_FILE, "list", statement),
        documents("toxigen_classification"), ("text",),
    ),
    "toxigen_classification hub": DataSet(
        one_file(toxigen_classification.HUB_FILE, "parquet",
                 request("text", toxicity_ai=1.0, toxicity_human=5.0)),
        toxigen_classification.read_hub, ("text",),
    ),
    "toxigen_classification mini": DataSet(
        of_mini(statement), read_with(toxigen_classification.read_mini), ("text",)
    ),
    "wikitext hub": DataSet(
        one_file(wikitext.HUB_FILE, "parquet", request("page")), wikitext.read_hub, ("page",)
    ),
    "wikitext mini": DataSet(
        of_mini(request("text", split="test", title="A page")),
        read_with(wikitext.read_mini), ("page", "title"),
    ),
    "tofu": DataSet(tofu_files, edit_set("tofu_forget01")),
    "counterfact": DataSet(counterfact_files, edit_set("counterfact_100")),
    "zsre": DataSet(one_file(zsre.FILE, "list", zsre_record), edit_set("zsre_100")),
    "rwku": DataSet(rwku_files, edit_set("rwku_10")),
    "muse": DataSet(muse_files, edit_set("muse_news")),
    "wikibio": DataSet(wikibio_files, edit_set("wikibio")),
    "fur": DataSet(fur_subjects, read_fur),
    "behaviour": DataSet(behaviour_files, read_behaviour),
}  # fmt: skip


def any_count(patch: Any) -> None:
    """Let small copies pass for whole data sets."""
    from unlearn_bench.data import sources

    public_files.any_count(patch)
    for name, known in sources.DATASETS.items():
        patch.setitem(sources.DATASETS, name, replace(known, counts={}, released={}))
