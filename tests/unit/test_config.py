"""RunConfig's four sources in their order, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from unlearn_bench.config import RunConfig, Suite, list_suites, load_config, load_suite
from unlearn_bench.data.sources import PUBLIC_SETS
from unlearn_bench.errors import UnknownNameError, UsageError
from unlearn_bench.protocols.catalog import list_protocols


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_the_embedded_model_and_the_quick_suite() -> None:
    config = load_config({})
    assert (config.model, config.suite, config.methods) == ("smollm2-135m", "quick", ("all",))
    assert config.seeds == (0,)


def test_command_line_beats_environment_beats_file_beats_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "run.yaml", "model: from-file\nsuite: smoke\nengine: transformers\n")
    monkeypatch.setenv("UNLEARN_BENCH_MODEL", "from-environment")
    monkeypatch.setenv("UNLEARN_BENCH_SUITE", "full")
    config = load_config({"model": "from-command-line", "suite": None}, file=file)
    assert config.model == "from-command-line"
    assert config.suite == "full"
    assert config.engine == "transformers"
    assert config.dtype == "auto"


def test_settings_of_file_and_command_line_merge_option_by_option(tmp_path: Path) -> None:
    file = write(tmp_path / "run.yaml", "set:\n  npo: {beta: 0.5, alpha: 2.0}\n  pke.steps: 3\n")
    config = load_config({"set": ["npo.beta=1e-4"]}, file=file)
    assert config.set == {"npo": {"beta": 1e-4, "alpha": 2.0}, "pke": {"steps": 3}}


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.2", 0.2), ("3", 3), ("1e-4", 1e-4), ("true", True), ("abc", "abc"), ("", None)],
)
def test_values_of_set_are_read_as_yaml_reads_them(text: str, value: object) -> None:
    assert load_config({"set": [f"m.o={text}"]}).set == {"m": {"o": value}}


@pytest.mark.parametrize("item", ["npo", "npo.beta", "beta=1", "npo.beta=nan", "npo.=1", "npo.b=["])
def test_malformed_set_is_refused(item: str) -> None:
    with pytest.raises(UsageError):
        load_config({"set": [item]})


def test_an_option_set_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="set twice"):
        load_config({"set": ["npo.beta=1", "npo.beta=2"]})


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", (0, 1, 2)), ("7,11", (7, 11)), ("7,", (7,)), ("1", (0,))]
)
def test_seeds_count_or_list(text: str, seeds: tuple[int, ...]) -> None:
    assert load_config({"seeds": text}).seeds == seeds


@pytest.mark.parametrize("text", ["0", "-1", "1,1", "a", "1.5", f"{2**32},", "", ",", "5000"])
def test_impossible_seeds_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        load_config({"seeds": text})


def test_names_split_at_commas_without_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNLEARN_BENCH_TASKS", "fur, gsm8k")
    config = load_config({"methods": "npo,noop,npo"})
    assert config.methods == ("npo", "noop")
    assert config.tasks == ("fur", "gsm8k")


def test_unknown_setting_in_a_file_is_refused_with_the_near_match(tmp_path: Path) -> None:
    file = write(tmp_path / "run.yaml", "modle: x\n")
    with pytest.raises(UnknownNameError) as caught:
        load_config({}, file=file)
    assert "model" in caught.value.near
    assert caught.value.exit_code == 2


def test_unknown_environment_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNLEARN_BENCH_SIUTE", "smoke")
    with pytest.raises(UnknownNameError, match="UNLEARN_BENCH_SUITE"):
        load_config({})


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\x00", "just words"])
def test_a_file_that_holds_no_settings_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError):
        load_config({}, file=write(tmp_path / "run.yaml", text))


@pytest.mark.parametrize(
    "given", [{"limit": 0}, {"limit": -3}, {"engine": "tgi"}, {"dtype": "int8"}, {"model": ""}]
)
def test_impossible_values_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        load_config(given)


def test_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config({}).model = "other"  # type: ignore[misc]


def test_shipped_suites_grow_and_full_asks_every_task() -> None:
    suites = list_suites()
    assert set(suites) == {"smoke", "quick", "full", "requests", "validation"}
    for task in suites["full"].tasks:
        sizes = [suites[name].limits.get(task) or math.inf for name in ("smoke", "quick", "full")]
        assert sizes == sorted(sizes)
    assert set(suites["smoke"].tasks) == set(suites["quick"].tasks) <= set(suites["full"].tasks)
    every = {protocol.base for protocol in list_protocols().values()} - set(PUBLIC_SETS)
    assert every - set(suites["full"].tasks) == {"jailbreak_harmbench"}  # it has no mini set


def test_suite_file_is_read_and_its_unknown_keys_refused(tmp_path: Path) -> None:
    good = write(tmp_path / "mine.yaml", "name: mine\ntasks: [fur]\nlimits: {fur: 5}\n")
    assert load_suite(str(good)).limits == {"fur": 5}
    with pytest.raises(UnknownNameError, match="limits"):
        load_suite(str(write(tmp_path / "bad.yaml", "name: mine\ntasks: [fur]\nlimit: 5\n")))


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".hidden", "x" * 200])
def test_suite_names_that_could_leave_the_output_folder_are_refused(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError):
        load_suite(str(write(tmp_path / "s.yaml", f"name: {name!r}\ntasks: [fur]\n")))


def test_unknown_suite_gets_the_near_matches() -> None:
    with pytest.raises(UnknownNameError, match="quick"):
        load_suite("quik")


def test_a_suite_narrowed_to_many_tasks_has_a_name_that_files_can_have() -> None:
    """Cut, so a hash of the whole tells two such suites apart that begin alike."""
    tasks = tuple(f"a_task_with_a_long_name_{number}" for number in range(10))
    suite = Suite(name="s", tasks=(*tasks, "fur"))
    names = [suite.narrowed(chosen, 3).name for chosen in (tasks, tasks[:9])]
    assert len(set(names)) == 2
    assert all(len(name) <= 128 and name.endswith("-limit3") for name in names)


def test_a_narrowed_suite_has_another_name_and_the_smaller_limit() -> None:
    suite = Suite(name="s", tasks=("fur", "gsm8k"), limits={"fur": 3})
    narrowed = suite.narrowed(("fur",), 5)
    assert narrowed.name == "s-fur-limit5"
    assert narrowed.limits == {"fur": 3}
    assert suite.narrowed(None, 2).limits == {"fur": 2, "gsm8k": 2}
    assert suite.narrowed(None, None) == suite.model_copy(
        update={"limits": {"fur": 3, "gsm8k": None}}
    )


def test_every_setting_has_a_default() -> None:
    assert all(not item.is_required() for item in RunConfig.model_fields.values())
