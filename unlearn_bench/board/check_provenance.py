"""Whether every row says what it is of, in the form that it has, and as the board's protocol."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from unlearn_bench.board.board_file import BoardFile, ProtocolPart, RowPart
from unlearn_bench.board.faults import Fault, place_of
from unlearn_bench.board.publish import data_digest
from unlearn_bench.board.table import MEAN
from unlearn_bench.schema import SCORED

SHA256 = re.compile(r"[0-9a-f]{64}")
FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")
FORMS = {
    "cell_key": SHA256,
    "data_sha256": SHA256,
    "scorer_sha256": SHA256,
    "weights_fingerprint": FINGERPRINT,
    "target_fingerprint": FINGERPRINT,
    "base_fingerprint": FINGERPRINT,
}
ALWAYS = (
    *("options", "limits", "seeds", "cell_key", "data_sha256"),
    *("engine", "dtype", "scorer", "versions"),
)
SCORED_TOO = ("weights_fingerprint",)
JUDGED_TOO = ("scorer_version",)
UNJUDGED = "none"  # the scorer of a run that asks nothing to be judged
TOLD = "take it from the cell's folder: unlearn-bench board merge RUN --output FOLDER"


def check_provenance(content: BoardFile) -> Iterator[Fault]:
    """The board's protocol, then each row's own account."""
    protocol = content.protocol
    if protocol.asked is None:
        what = "protocol.asked is missing: hashes of data and protocols, and how texts were drawn"
        yield Fault(what, TOLD)
    elif protocol.asked.tasks.keys() != protocol.tasks.keys():
        yield Fault("protocol.asked and protocol.tasks name other tasks", TOLD)
    if not FINGERPRINT.fullmatch(protocol.base_fingerprint):
        yield Fault(f"protocol.base_fingerprint is {protocol.base_fingerprint!r}, no hash", TOLD)
    seen: dict[str, str] = {}
    for row in content.rows:
        if row.seed == MEAN:
            continue
        yield from _missing(row)
        yield from _malformed(row)
        yield from _against_protocol(row, protocol)
        key, place = row.provenance.get("cell_key", ""), place_of(row)
        if key and seen.setdefault(key, place) != place:
            yield Fault(f"it is the same cell as {seen[key]}", TOLD, place, "cell_key")


def _missing(row: RowPart) -> Iterator[Fault]:
    needed = [*ALWAYS, *(SCORED_TOO if row.status in SCORED else ())]
    if row.status == "success" and row.told("scorer") != UNJUDGED:  # else perhaps none had loaded
        needed += JUDGED_TOO
    for name in needed:
        if not row.told(name):
            yield Fault("it is missing", TOLD, place_of(row), name)


def _malformed(row: RowPart) -> Iterator[Fault]:
    for name, form in FORMS.items():
        text = row.told(name)
        for part in filter(None, text.split(", ")):
            if not form.fullmatch(part):
                yield Fault(f"{part[:80]!r} is no hash of its form", TOLD, place_of(row), name)
    try:
        options = json.loads(row.provenance.get("options") or "{}")
    except ValueError:
        options = None
    if not isinstance(options, dict):
        yield Fault("it is no JSON object", TOLD, place_of(row), "options")


def _against_protocol(row: RowPart, protocol: ProtocolPart) -> Iterator[Fault]:
    """What the row says itself is what the board says of all rows."""
    for name, common in _common(protocol).items():
        told = row.told(name)
        if told and told != common:
            what = f"it is {told[:80]!r}, and by the board's protocol {common[:80]!r}"
            yield Fault(what, TOLD, place_of(row), name)
    if row.provenance.get("seeds", row.seed) != row.seed:
        yield Fault(f"it is not the row's seed {row.seed}", TOLD, place_of(row), "seeds")


def _common(protocol: ProtocolPart) -> Mapping[str, str]:
    scorers = [protocol.scorer, *([protocol.second_scorer] if protocol.second_scorer else [])]
    found = {
        "suite": protocol.suite,
        "engine": protocol.engine,
        "dtype": protocol.dtype,
        "edit_set": protocol.edit_set,
        "base_fingerprint": protocol.base_fingerprint,
        "limits": ", ".join(f"{name} {one.items or 'all'}" for name, one in protocol.tasks.items()),
        "scorer": ", ".join(one.get("name", "") for one in scorers),
        "scorer_version": ", ".join(one.get("version", "") for one in scorers),
        "scorer_sha256": ", ".join(one.get("weights_sha256", "") for one in scorers),
    }
    if protocol.asked:
        found["data_sha256"] = data_digest({"tasks": protocol.asked.tasks})
    return found
