"""Files that people write, whatever is in them: read for what they are, or refused; never run."""

from __future__ import annotations

import fnmatch
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.property.bounds import bounded
from tests.property.written import KINDS, RAN, TRAPS, Kind, outcome
from unlearn_bench.compare.measures import Measure
from unlearn_bench.compare.rules import Rule, Rules, choose_metrics, load_rules
from unlearn_bench.config import NAME, SEED_LIMIT, RunConfig, Suite, load_config, load_suite
from unlearn_bench.errors import UnlearnBenchError, UsageError
from unlearn_bench.registry import list_cards
from unlearn_bench.runs.tuned import Budget, Tuned, TunedFile, Winner, load_tuned, read_tuned

pytestmark = pytest.mark.timeout(120)  # no file may hang a reader

CARDS = list_cards("method")
ODD = (  # what YAML's own constructors stumble over
    "!!bool maybe", "!!int ''", "!!float ''", "!!int x", "!!timestamp x", "!!binary é", "!!null x",
    "!!omap [1]", "!!set {a}", "!!pairs x", "2001-99-99", "0x_", "1:99", "=", "<<", ".nan", ".inf",
    "1e400", "9" * 5000, "&a [*a]", "*a", '"\\0"', '"\\ud800"', "\0",
    "'", '"', "|", "> ", "? [a]\n: b", "{<<: [{a: 1}, x]}", "---", "%YAML 9.9", "\t", "\ufeff",
    "null", "fur",
)  # fmt: skip
NESTED = ("[" * 400, "{a: " * 400)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.just(10**400)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=2)
    ),
    max_leaves=6,
)
VALUES = st.sampled_from((*TRAPS, *ODD, *NESTED)) | JSON.map(json.dumps)
PUNCTUATION = st.sampled_from(
    (": ", "\n", "\n  ", "- ", "? ", ", ", "[", "]", "{", "}", "&a ", "# ")
)


def require_valid(found: Any) -> None:
    """What everything behind the readers takes for granted."""
    if isinstance(found, Suite):
        assert len(set(found.tasks)) == len(found.tasks) > 0
        assert all(limit is None or limit > 0 for limit in found.limits.values())
    elif isinstance(found, RunConfig):
        assert all(0 <= seed < SEED_LIMIT for seed in found.seeds)
    elif isinstance(found, Rules):
        assert 0 < found.level < 0.5
        sizes = [rule.allowed.size for rule in found.metrics.values()]
        assert sizes
        assert all(math.isfinite(size) and size >= 0 for size in sizes)
    elif isinstance(found, TunedFile):
        assert found.budget.trials > 0
        assert math.isfinite(found.budget.seconds)
    elif isinstance(found, tuple):
        for path in found:
            assert path.suffix == ".py" or all(map(is_plain, yaml.parse(path.read_text("utf-8"))))
    else:
        assert isinstance(found, UnlearnBenchError)


def is_plain(event: yaml.Event) -> bool:
    """Whether lm-eval's reader makes no Python object of it; code is named by `!function` alone."""
    tag = getattr(event, "tag", None) or "!"
    return tag in ("!", "!function") or (tag.startswith("tag:yaml.org") and "python" not in tag)


def read_text(kind: Kind, folder: Path, text: str) -> Any:
    """Beside the file lies the code that it may name, which ends the test if it is imported."""
    (folder / "code.py").write_text("raise SystemExit('imported')")
    path = folder / "file.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    found = outcome(lambda: kind.read(path))
    require_valid(found)
    return found


def test_the_traps_work() -> None:
    """Else nothing below could fail."""
    for text in TRAPS[:2]:
        RAN.clear()
        yaml.unsafe_load(text)
        assert RAN


@pytest.mark.parametrize("name", KINDS)
@bounded(60)
@given(content=st.binary(max_size=40) | st.text(max_size=30).map(str.encode))
def test_any_bytes(name: str, content: bytes, tmp_path: Path) -> None:
    read_text(KINDS[name], tmp_path, content.decode(errors="surrogateescape"))


@pytest.mark.parametrize("name", KINDS)
@bounded(60)
@given(parts=st.lists(PUNCTUATION | VALUES | st.sampled_from(("a", "tasks", "include"))))
def test_any_scraps_of_yaml(name: str, parts: list[str], tmp_path: Path) -> None:
    read_text(KINDS[name], tmp_path, "".join(parts))


@pytest.mark.parametrize("name", KINDS)
def test_what_yaml_stumbles_over_wherever_a_value_may_stand(name: str, tmp_path: Path) -> None:
    for form in KINDS[name].forms:
        for value in (*TRAPS, *ODD):
            read_text(KINDS[name], tmp_path, form % value)
    for value in NESTED:  # slow to refuse, wherever it stands
        read_text(KINDS[name], tmp_path, value)


@pytest.mark.parametrize("name", KINDS)
@bounded(60)
@given(data=st.data(), value=JSON.map(json.dumps))
def test_any_value_wherever_one_may_stand(
    name: str, data: st.DataObject, value: str, tmp_path: Path
) -> None:
    read_text(KINDS[name], tmp_path, data.draw(st.sampled_from(KINDS[name].forms)) % value)


@bounded(60)
@given(value=VALUES)
def test_any_value_of_an_option_that_was_tuned(value: str, tmp_path: Path) -> None:
    path = tmp_path / "tuned.yaml"
    path.write_text(KINDS["tuned options"].forms[-1] % value, encoding="utf-8")
    found = outcome(lambda: load_tuned(path, CARDS))
    if isinstance(found, Tuned):
        assert all(map(math.isfinite, found.options["npo"].values()))


@bounded(150)
@given(
    name=st.sampled_from(sorted(RunConfig.model_fields)),
    text=st.text(max_size=12)
    | st.sampled_from(("npo.beta=", "a.b=", "1,")).flatmap(
        lambda start: VALUES.map(lambda value: start + value)
    ),
)
def test_any_text_on_the_command_line(name: str, text: str) -> None:
    require_valid(outcome(lambda: load_config({name: text}, environment={})))
    require_valid(outcome(lambda: load_config({"set": [text]}, environment={})))


class TestBombs:
    """A few lines that name one another and would be billions of values if each were written out.

    Twice the lines may take twice the work, and not its square or worse.
    """

    BOMBS = ("[{0}, {0}]", "{{a: {0}, b: {0}}}", "{{<<: [{0}, {0}]}}")

    @staticmethod
    def text(bomb: str, levels: int) -> str:
        """A list whose one item holds every level."""
        lines = ["&l0 {a: x}"]
        lines += [f"&l{n} {bomb.format(f'*l{n - 1}')}" for n in range(1, levels)]
        return f"[[{', '.join(lines)}]]"

    @staticmethod
    def work(read: Callable[[], Any]) -> int:
        """Python calls, and letters of what is said."""
        calls = 0

        def count(frame: FrameType, event: str, argument: Any) -> None:
            nonlocal calls
            calls += 1

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            found = outcome(read)
        finally:
            sys.setprofile(before)
        said = found.methods if isinstance(found, RunConfig) else [str(found)]
        return calls + sum(map(len, said))

    @pytest.mark.parametrize("bomb", BOMBS)
    @pytest.mark.parametrize("name", KINDS)
    def test_of_aliases(self, name: str, bomb: str, tmp_path: Path) -> None:
        kind, path = KINDS[name], tmp_path / "file.yaml"
        grown = {}
        for form in kind.forms:
            spent = []
            for levels in (8, 16):
                path.write_text(form % self.text(bomb, levels))
                spent.append(self.work(lambda: kind.read(path)))
            grown[form] = spent[1] / spent[0]
        assert {form: more for form, more in grown.items() if more > 4} == {}

    def test_inside_options_that_were_tuned(self, tmp_path: Path) -> None:
        """There any value may stand, and the method that does not take it says so in a line."""
        path = tmp_path / "tuned.yaml"
        path.write_text(KINDS["tuned options"].forms[-1] % self.text(self.BOMBS[0], 12))
        refusal = outcome(lambda: load_tuned(path, CARDS))
        assert isinstance(refusal, UsageError)
        assert len(str(refusal)) < 2000


NAMES = st.from_regex(NAME, fullmatch=True)
SUITES = st.builds(
    lambda name, description, tasks, limits, samples, paraphrases, part: Suite(
        name=name, description=description, tasks=tuple(tasks),
        limits=dict(zip(tasks, limits, strict=False)), samples_per_prompt=samples,
        paraphrases=paraphrases, part=part,
    ),
    NAMES, st.text(max_size=20), st.lists(st.text(max_size=8), min_size=1, max_size=4, unique=True),
    st.lists(st.none() | st.integers(1, 10**9), max_size=4), st.integers(1, 100),
    st.none() | st.integers(0, 9), st.sampled_from(("test", "validation")),
)  # fmt: skip
SIZES = st.floats(0, allow_infinity=False)
RULES = st.builds(Rule, margin=SIZES, required=st.booleans()) | st.builds(
    Rule, relative=SIZES, required=st.booleans()
)
RULE_FILES = st.builds(
    Rules,
    level=st.floats(0, 0.5, exclude_min=True, exclude_max=True),
    metrics=st.dictionaries(st.text(max_size=8), RULES, min_size=1, max_size=3),
)
FINITE = st.none() | st.floats(allow_nan=False, allow_infinity=False)
TUNED = TunedFile(
    model="m", model_fingerprint="f", suite="quick", seed=0, budget=Budget(trials=1, seconds=1),
    tuning_sha256="0", complete=True, methods={},
)  # fmt: skip
WINNERS = st.builds(
    Winner,
    options=st.none() | st.dictionaries(NAMES, FINITE | st.text(max_size=6), max_size=3),
    best=FINITE, median=FINITE, trials=st.integers(0, 99),
)  # fmt: skip


class TestWhatIsWrittenReadsBack:
    @staticmethod
    def written(folder: Path, content: Any) -> Path:
        path = folder / "file.yaml"
        path.write_text(yaml.safe_dump(content.model_dump(mode="json", exclude_none=False)))
        return path

    @bounded(60)
    @given(suite=SUITES)
    def test_a_suite(self, suite: Suite, tmp_path: Path) -> None:
        assert load_suite(str(self.written(tmp_path, suite))) == suite

    @bounded(60)
    @given(rules=RULE_FILES)
    def test_rules(self, rules: Rules, tmp_path: Path) -> None:
        assert load_rules(self.written(tmp_path, rules)) == rules

    @bounded(60)
    @given(winners=st.dictionaries(st.text(max_size=6), WINNERS, max_size=3), seed=st.integers())
    def test_tuned_options(self, winners: Any, seed: int, tmp_path: Path) -> None:
        file = TUNED.model_copy(update={"methods": winners, "seed": seed})
        assert read_tuned(self.written(tmp_path, file)) == file


MEASURES = st.lists(
    st.builds(
        Measure,
        task=st.sampled_from(("fur", "quiz")),
        metric=st.sampled_from(("acc", "acc_norm", "ppl", "[x]")),
        reduce=st.sampled_from(("mean", "")),
        direction=st.sampled_from(("higher", "lower", "nearer_exact", "none")),
        unit=st.just(""),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda measure: measure.name,
)
PATTERNS = st.sampled_from(("fur.*", "*", "quiz.acc", "*.acc*", "fur.[[]x]", "fur.acc", "?*"))


@bounded(150)
@given(
    measures=MEASURES,
    patterns=st.dictionaries(PATTERNS, RULES, min_size=1, max_size=3)
    | st.dictionaries(st.text(max_size=5), RULES, min_size=1, max_size=3),
    data=st.data(),
)
def test_no_rule_stays_unchecked_in_silence(
    measures: Sequence[Measure], patterns: dict[str, Rule], data: st.DataObject
) -> None:
    """Every pattern names a metric that is judged, the last that fits counts; or all is refused."""
    names = [measure.name for measure in measures]
    testable = data.draw(st.just(names) | st.lists(st.sampled_from(names)))
    try:
        found = choose_metrics(Rules(metrics=patterns), measures, testable)
    except UsageError:
        return
    by_name = {one.measure.name: one for one in found}
    for pattern in patterns:
        assert any(not by_name[name].unjudged for name in fnmatch.filter(by_name, pattern))
    for name, one in by_name.items():
        fitting = [rule for pattern, rule in patterns.items() if fnmatch.fnmatch(name, pattern)]
        assert one.rule == fitting[-1]
        judged = one.measure.direction in ("higher", "lower") and one.measure.reduce
        assert bool(one.unjudged) == (not judged or name not in testable)
