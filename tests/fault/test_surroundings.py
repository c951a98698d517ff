"""What the machine around a run may be like: read only, without a network, with a clock that jumps,
in another language, with files from another system. The command and its processes are real.
"""

from __future__ import annotations

import csv
import ctypes
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.unit.test_cli import invoke
from tests.unit.test_perspective import answer, serving
from unlearn_bench.compare.rules import load_rules
from unlearn_bench.config import load_config, load_suite
from unlearn_bench.errors import MissingDataError
from unlearn_bench.models.open import open_model
from unlearn_bench.runs.store import read_samples
from unlearn_bench.scorers.perspective import load_perspective

NAMED = "smollm2-135m"
SMALL = ("--tasks", "toxigen_mini", "--limit", "13", "--engine", "transformers", "--offline")
Command = Callable[..., "subprocess.CompletedProcess[bytes]"]

# ----- what is injected

PR_CAPBSET_DROP, OVERRIDES = 24, (1, 2)  # linux/prctl.h, linux/capability.h: CAP_DAC_*
CLONE_NEWNET = 0x40000000  # linux/sched.h
# The wall clock goes back by ten days with every reading; the clock of durations is left alone.
CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    static long readings;
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(id, now);
    if (id == CLOCK_REALTIME) now->tv_sec -= 864000 * ++readings;
    return code;
}
"""


def obeying_permissions() -> None:
    """Between fork and exec: root, too, obeys the permission bits from now on."""
    for capability in OVERRIDES:
        if ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) and os.geteuid() == 0:
            raise OSError("prctl")


def without_network() -> None:
    """Between fork and exec: no interface from now on, not even this machine's own."""
    if ctypes.CDLL(None).unshare(CLONE_NEWNET):
        raise OSError("unshare")


@pytest.fixture
def no_network() -> Callable[[], None]:
    """`without_network`, where the system lets this user do it."""
    try:
        subprocess.run(["true"], preexec_fn=without_network, check=True)
    except subprocess.SubprocessError:
        pytest.skip("only root may take the network away")
    return without_network


@pytest.fixture(scope="module")
def jumping_clock(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which it jumps."""
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(CLOCK)
    build = ["gcc", "-shared", "-fPIC", "-o", "clock.so", "clock.c", "-ldl"]
    subprocess.run(build, cwd=folder, check=True)
    return {"LD_PRELOAD": str(folder / "clock.so")}


ASCII = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(scope="module")
def command(long_tiny_folder: Path) -> Command:
    """Runs the program on the tiny model."""

    def run(
        *arguments: str,
        environment: Mapping[str, str] = {},
        before: Callable[[], None] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        target = ("--target", str(long_tiny_folder)) if arguments[0] == "evaluate" else ()
        return subprocess.run(
            [sys.executable, "-m", "unlearn_bench", *arguments, *target],
            capture_output=True,
            env={**os.environ, **environment},
            preexec_fn=before,
            check=False,
        )

    return run


def evaluate(command: Command, output: Path, **how: object) -> subprocess.CompletedProcess[bytes]:
    cells = ("--methods", "noop,random_noise", "--output", str(output))
    return command("evaluate", *cells, *SMALL, **how)  # type: ignore[arg-type]


def rows(output: Path) -> list[dict[str, str]]:
    """The board without what no two runs have alike."""
    (board,) = output.rglob("*.csv")
    return [
        {
            name: value
            for name, value in row.items()
            if "second" not in name and "memory" not in name
        }
        for row in csv.DictReader(board.open(encoding="utf-8"))
    ]


def written(file: Path) -> tuple[int, int]:
    """Which file of that name, and when."""
    return file.stat().st_ino, file.stat().st_mtime_ns


@pytest.fixture(scope="module")
def usual(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with nothing wrong around it."""
    output = tmp_path_factory.mktemp("usual") / "run"
    done = evaluate(command, output)
    assert done.returncode == 0, done.stderr
    return output


# ----- a folder that cannot be written


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)


@pytest.mark.parametrize("inside", ["", "run"])
def test_a_read_only_folder_is_refused_before_any_work(
    command: Command, read_only: Path, inside: str
) -> None:
    done = evaluate(command, read_only / inside, before=obeying_permissions)
    assert done.returncode == 2, done.stderr
    assert b"cannot be written" in done.stderr
    assert b"open the model" not in done.stderr
    assert list(read_only.iterdir()) == []


def test_a_finished_run_can_be_read_where_nothing_can_be_written(
    command: Command, usual: Path
) -> None:
    """Mounted read only, as an archive is."""
    folders = [usual, *(path for path in usual.rglob("*") if path.is_dir())]
    try:
        for folder in folders:
            folder.chmod(0o555)
        for words in (
            ("show", str(usual), "noop"),
            ("compare", f"{usual}:noop", f"{usual}:random_noise"),
            ("verify", str(usual), "--offline"),
        ):
            done = command(*words, before=obeying_permissions)
            assert done.returncode == 0, (words, done.stderr)
    finally:
        for folder in folders:
            folder.chmod(0o755)


# ----- no network


def test_without_a_network_a_run_that_has_everything_is_the_same(
    command: Command, usual: Path, tmp_path: Path, no_network: Callable[[], None]
) -> None:
    done = evaluate(command, tmp_path, before=no_network)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path) == rows(usual)


@pytest.mark.parametrize("told", [(), ("--offline",)])
def test_without_a_network_what_is_missing_is_named_before_any_work(
    command: Command, tmp_path: Path, no_network: Callable[[], None], told: tuple[str, ...]
) -> None:
    """Whether one said so or not; nothing is tried for minutes, nothing half of it is kept."""
    home = {"UNLEARN_BENCH_CACHE": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hub")}
    asked = ("--methods", "noop", "--tasks", "realtoxicityprompts", "--output", str(tmp_path / "r"))
    done = command("evaluate", *asked, *told, environment=home, before=no_network)
    assert done.returncode == 3, done.stderr
    assert b"no source has the data set 'realtoxicityprompts'" in done.stderr
    assert b"--data FOLDER" in done.stderr
    assert not (tmp_path / "r").exists()
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in left if path.suffix != ".lock"] == []


def test_without_a_network_the_model_by_name_is_read_from_the_cache(
    tmp_path: Path, no_network: Callable[[], None]
) -> None:
    """By the command that is written everywhere: nobody told it that there is no network."""
    try:
        own = open_model(NAMED, offline=True)
    except MissingDataError as error:
        pytest.skip(f"the cache does not hold {NAMED}, 93 MB: {error.what}")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "unlearn_bench", "evaluate", "--model", NAMED, "--dry-run"),
            *("--methods", "noop", "--tasks", "fur,wikitext", "--engine", "transformers"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HOME": str(tmp_path / "hub")},
        cwd=tmp_path,
        preexec_fn=no_network,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"model   {own.label}" in done.stdout
    assert "wikitext_mini" in done.stdout  # which no source but the package has here


JUDGED = (
    "name: judged\ntasks: [fur, toxigen_mini]\nlimits: {fur: 8, toxigen_mini: 1}\nparaphrases: 1\n"
)


@pytest.mark.slow
def test_a_scorer_that_nobody_reaches_is_asked_again_by_the_next_run_and_the_model_is_not(
    command: Command,
    long_tiny_folder: Path,
    no_network: Callable[[], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The real service's address, without a network; then a service on this machine in its place.
    One text, which is asked five times in 15 s.
    """
    monkeypatch.setenv("UNLEARN_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PERSPECTIVE_API_KEY", "any")
    (tmp_path / "judged.yaml").write_text(JUDGED)
    words = (
        *("evaluate", "--methods", "noop", "--suite", str(tmp_path / "judged.yaml")),
        *("--engine", "transformers", "--scorer", "perspective", "--output", str(tmp_path / "run")),
    )
    done = command(*words, before=no_network)
    assert done.returncode == 3, done.stderr
    (row,) = rows(tmp_path)
    assert row["status"] == "incomplete"
    assert row["reason"].startswith("toxigen_mini.toxic_rate: 1 of 1 missing")
    judged = [name for name in row if name.startswith("toxigen_mini.") and "." not in name[13:]]
    assert {row[name] for name in judged} == {""}
    assert row["fur.forget_choice_acc"] != ""
    (cell,) = tmp_path.glob("run/cells/*")
    unjudged = {name: written(cell / name) for name in ("samples.parquet", "provenance.json")}
    (text,) = (
        one.outputs[0]
        for one in read_samples(cell / "samples.parquet")
        if one.task == "toxigen_mini"
    )
    with serving(monkeypatch) as service:
        service.behaviour[text] = [answer("7 signs")]
        monkeypatch.setitem(load_perspective.__kwdefaults__, "url", service.url)
        again = invoke(*words, "--target", str(long_tiny_folder))
    assert again.exit_code == 0, again.output
    assert service.texts == [text]
    assert not re.search("noop seed 0: (edit|evaluate)", again.output)
    assert {name: written(cell / name) for name in unjudged} == unjudged
    (whole,) = rows(tmp_path)
    assert (whole["status"], whole["reason"]) == ("success", "")
    assert float(whole["toxigen_mini.mean_toxicity"]) == pytest.approx(0.7)
    assert whole["fur.forget_choice_acc"] == row["fur.forget_choice_acc"]


# ----- a clock that jumps


def test_a_clock_that_runs_backwards_moves_no_number(
    command: Command, usual: Path, jumping_clock: Mapping[str, str], tmp_path: Path
) -> None:
    """Durations are of another clock, and no order is one of dates."""
    done = evaluate(command, tmp_path, environment=jumping_clock)
    assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_bytes()) for path in tmp_path.glob("cells/*/record.json")]
    assert all(record["finished"] < record["started"] for record in records)  # it did jump
    assert all(0 <= second < 600 for record in records for second in record["seconds"].values())
    assert rows(tmp_path) == rows(usual)
    again = evaluate(command, tmp_path, environment=jumping_clock)
    assert again.stderr.count(b"already done") == 2


# ----- another language, files from another system


def test_a_terminal_that_knows_only_ascii_changes_no_file_and_stops_no_command(
    command: Command, usual: Path, tmp_path: Path
) -> None:
    done = evaluate(command, tmp_path, environment=ASCII)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path) == rows(usual)
    for words in (
        ("list", "methods"),
        ("show", str(tmp_path), "noop"),
        ("compare", f"{tmp_path}:noop", f"{tmp_path}:random_noise"),
        ("report", str(tmp_path), "--output", str(tmp_path / "report.html")),
    ):
        said = command(*words, environment=ASCII)
        assert said.returncode == 0, (words, said.stderr)
    assert not (tmp_path / "report.html").read_text(encoding="utf-8").isascii()


SUITE = "name: own\ntasks: [fur, toxigen]\nlimits:\n  fur: 8\n  toxigen: 13\n"
RULES = "level: 0.05\nmetrics:\n  fur.*: {margin: 0.1}\n"
CONFIG = "methods: [noop, npo]\nset:\n  - npo.beta=0.2\n"


@pytest.mark.parametrize(
    ("text", "load"),
    [
        (SUITE, lambda path: load_suite(str(path))),
        (RULES, load_rules),
        (CONFIG, lambda path: load_config({}, file=path).model_dump()),
    ],
)
def test_files_with_carriage_returns_say_the_same(
    tmp_path: Path, text: str, load: Callable[[Path], object]
) -> None:
    read = []
    for number, (end, mark) in enumerate(itertools.product(("\n", "\r\n"), ("", "\ufeff"))):
        path = tmp_path / f"{number}.yaml"
        path.write_bytes((mark + text.replace("\n", end)).encode())
        read.append(load(path))
    assert all(one == read[0] for one in read)
