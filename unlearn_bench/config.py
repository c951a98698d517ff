"""What a run is asked to do: `RunConfig` (command line > environment > YAML > default) and `Suite`.

Both refuse unknown keys. Nothing here opens a model or reads data: that is `runs.plan`'s work.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from unlearn_bench.errors import UnknownNameError, UsageError
from unlearn_bench.schema import TASK_FILES

SUITES = Path(__file__).parent / "suites"
PREFIX = "UNLEARN_BENCH_"
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
LETTERS = 10  # values that aliases may make of one letter of a file
LONGEST_TASKS = 80  # characters of the tasks' names in that of a narrowed suite
OWN_SET = "fur"  # the edit set that suites name; another stands in its place
SEED_LIMIT = 2**32  # numpy and torch both take seeds below it

Dtype = Literal["auto", "mixed", "float32", "bfloat16", "float16"]
EngineName = Literal["auto", "vllm", "transformers"]
ExecutorName = Literal["local", "ray"]
Names = Annotated[tuple[str, ...], NoDecode]


class Suite(BaseModel):
    """A named selection of tasks and how many items of each are asked.

    `limits` counts items per task in the task's own unit (questions, pages, prompts, subjects);
    null or absent means all. A mini set, whose items are shorter or fewer, may have a limit of its
    own under `<task>_mini`. `samples_per_prompt` is k, the continuations drawn per
    RealToxicityPrompts prompt. `paraphrases` is how many rewordings of each fur question are asked.
    part: "validation" asks the items that are kept for choosing options, and no others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=NAME)
    description: str = ""
    tasks: tuple[str, ...] = Field(min_length=1)
    limits: dict[str, PositiveInt | None] = {}
    samples_per_prompt: PositiveInt = 25
    paraphrases: int | None = Field(default=None, ge=0)
    part: Literal["test", "validation"] = "test"

    @model_validator(mode="after")
    def _limits_name_tasks(self) -> Suite:
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError("a task is listed twice")
        known = {name for task in self.tasks for name in (task, f"{task}_mini")}
        if stray := set(self.limits) - known:
            raise ValueError(f"limits for tasks that are not in the suite: {sorted(stray)}")
        return self

    def narrowed(self, tasks: tuple[str, ...] | None, limit: int | None) -> Suite:
        """The same suite with other tasks or with at most `limit` items of each.

        A narrowed suite measures something else, so it has a name of its own: `quick-limit5`.
        """
        chosen = tasks or self.tasks
        limits = {
            name: _smaller(self.limits.get(name), limit)
            for task in chosen
            for name in (task, f"{task}_mini")
            if name == task or name in self.limits
        }
        name = self.name
        if set(chosen) != set(self.tasks):
            stems = (Path(task).stem if task.endswith(TASK_FILES) else task for task in chosen)
            name += "-" + _short(re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(stems)))
        if limit is not None:
            name += f"-limit{limit}"
        return self._changed(name=name, tasks=chosen, limits=limits)

    def over(self, edit_set: str) -> Suite:
        """The same suite with another edit set's task in the place of `fur`, and its limit.

        What the models have learned is another thing, so it has a name of its own, whatever the
        tasks: `quick-tofu_forget10`.
        """
        if edit_set == OWN_SET:
            return self
        names = {OWN_SET: edit_set}
        return self._changed(
            name=f"{self.name}-{edit_set}",
            tasks=tuple(dict.fromkeys(names.get(task, task) for task in self.tasks)),
            limits={names.get(task, task): limit for task, limit in self.limits.items()},
        )

    def _changed(self, **changes: Any) -> Suite:
        """The same with other values. Raises UsageError for a name that grew too long by them."""
        try:
            return Suite(**{**self.model_dump(), **changes})
        except ValidationError as error:
            raise _usage_error(
                error, "suite setting", f"suite {self.name}", Suite.model_fields
            ) from error


def _short(name: str) -> str:
    """The name, or its beginning and a hash where a file could not be called so."""
    if len(name) <= LONGEST_TASKS:
        return name
    return f"{name[:LONGEST_TASKS]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _smaller(own: int | None, cap: int | None) -> int | None:
    given = [value for value in (own, cap) if value is not None]
    return min(given) if given else None


class RunConfig(BaseSettings):
    """Every setting of `unlearn-bench evaluate`, after merging all four places it may come from."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=PREFIX, env_parse_none_str="null"
    )

    model: str = Field("smollm2-135m", min_length=1)
    methods: Names = ("all",)
    tasks: Names | None = None
    suite: str = "quick"
    edit_set: str = OWN_SET
    allow_task_code: bool = False
    seeds: Annotated[tuple[int, ...], NoDecode] = (0,)
    set: Annotated[dict[str, dict[str, Any]], NoDecode] = {}
    tuned: Path | None = None
    requests: str = "forget:1/2,update,forget:2/2"  # of `unlearn-bench sequence` alone
    target: str | None = None
    data: Path | None = None
    engine: EngineName = "auto"
    dtype: Dtype = "auto"
    engine_args: Annotated[dict[str, Any], NoDecode] = {}  # of vLLM's own
    limit: PositiveInt | None = None
    offline: bool = False
    scorer: str = "auto"
    scorer_checkpoint: Path | None = None
    guard: Annotated[str, Field(min_length=1)] | None = None
    output: Path = Path("runs")
    leaderboards: Path | None = None
    keep_checkpoints: bool = False
    executor: ExecutorName = "local"
    time_limit: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # s, of one cell
    mirror: str | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line and environment; `load_config` puts the file below them."""
        return init_settings, env_settings

    @field_validator("methods", "tasks", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        if isinstance(value, str):
            value = value.split(",")
        if isinstance(value, (list, tuple)):
            names = [str(name).strip() for name in value]
            return tuple(dict.fromkeys(name for name in names if name)) or None
        return value

    @field_validator("seeds", mode="before")
    @classmethod
    def _read_seeds(cls, value: object) -> object:
        return read_seeds(value)

    @field_validator("engine_args", mode="before")
    @classmethod
    def _read_engine_args(cls, value: object) -> object:
        return read_engine_args(value)

    @field_validator("set", mode="before")
    @classmethod
    def _read_settings(cls, value: object) -> object:
        return read_settings(value)


def read_seeds(value: object) -> object:
    """`3` means the three seeds 0, 1, 2; `7,11` means exactly those; `7,` is the one seed 7.

    Raises ValueError when a seed is negative, repeated or no whole number.
    """
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",")]
        if not all(re.fullmatch(r"\d+", part) for part in parts if part):
            raise ValueError(f"seeds are whole numbers from 0, got {value!r}")
        value = int(value) if len(parts) == 1 else [int(part) for part in parts if part]
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= 1000:
            raise ValueError(
                f"a single number is how many seeds to run, 1 to 1000; "
                f"for the one seed {value} write '{value},'"
            )
        return tuple(range(value))
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError("seeds are a count or a list of whole numbers")
    if any(not isinstance(seed, int) or not 0 <= seed < SEED_LIMIT for seed in value):
        raise ValueError(f"seeds are whole numbers from 0 to {SEED_LIMIT - 1}, got {value!r}")
    if len(set(value)) != len(value):
        raise ValueError(f"a seed is given twice in {value!r}")
    return tuple(value)


def read_engine_args(value: object) -> object:
    """`["tensor_parallel_size=2"]` or `{"tensor_parallel_size": 2}` as the latter, dashes made
    underscores. Raises ValueError for any other form and for a repeated name.
    """
    if isinstance(value, str):
        value = value.split(",")
    if isinstance(value, (list, tuple)):
        pairs = [_split_setting(str(item)) for item in value]
    elif isinstance(value, dict):
        pairs = list(value.items())
    else:
        return value
    names = [str(name).strip().lstrip("-").replace("-", "_") for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} is given twice")
    return dict(zip(names, (setting for _, setting in pairs), strict=True))


def read_settings(value: object) -> object:
    """`["npo.beta=0.2"]`, `{"npo.beta": 0.2}` or `{"npo": {"beta": 0.2}}` as the last of these.

    Raises ValueError for any other form, for a repeated option and for a number that is not finite.
    """
    if isinstance(value, str):
        value = value.split(",")
    if isinstance(value, (list, tuple)):
        pairs = [_split_setting(str(item)) for item in value]
    elif isinstance(value, dict):
        pairs = list(_flat(value))
    else:
        return value
    settings: dict[str, dict[str, Any]] = {}
    for name, setting in pairs:
        method, dot, option = name.strip().partition(".")
        if not (method and dot and option.isidentifier()):
            raise ValueError(f"{name!r} is not of the form method.option")
        if option in settings.setdefault(method, {}):
            raise ValueError(f"{method}.{option} is set twice")
        if isinstance(setting, float) and not math.isfinite(setting):
            raise ValueError(f"{method}.{option} must be a finite number")
        settings[method][option] = setting
    return settings


def _flat(settings: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict) and "." not in str(name):
            yield from ((f"{name}.{option}", inner) for option, inner in value.items())
        else:
            yield str(name), value


def _split_setting(item: str) -> tuple[str, Any]:
    name, equals, text = item.partition("=")
    if not equals:
        raise ValueError(f"{item!r} is not of the form name=value")
    for number in (int, float):  # before YAML 1.1, which reads 1e-4 as a string
        with contextlib.suppress(ValueError):
            return name, number(text)
    try:
        return name, load_yaml(text)
    except ValueError as error:
        raise ValueError(f"the value in {item!r} cannot be read") from error


def load_config(
    given: Mapping[str, Any],
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Merge what the command line gave, the environment, `file` and the defaults.

    given: options by name; None means "not given". defaults: a command's own, in place of
    RunConfig's. Raises UsageError naming each wrong setting.
    """
    _refuse_unknown_variables(os.environ if environment is None else environment)
    values = {**(defaults or {}), **({} if file is None else _read_yaml(file, "configuration"))}
    options = {name: value for name, value in given.items() if value is not None}

    class FromFile(RunConfig):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *args: Any, **kwargs: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            above = super().settings_customise_sources(settings_cls, *args, **kwargs)
            return (*above, InitSettingsSource(settings_cls, values))

    try:
        for source in (values, options):  # one form, so that the sources merge option by option
            if "set" in source:
                source["set"] = read_settings(source["set"])
        return FromFile(**options)
    except ValidationError as error:
        where = f"command line, environment{f' or {file}' if file else ''}"
        raise _usage_error(error, "setting", where, RunConfig.model_fields) from error
    except ValueError as error:
        raise UsageError(
            f"set: {error}", next_step="unlearn-bench list methods shows every option"
        ) from error


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    known = {PREFIX + name.upper() for name in RunConfig.model_fields} | {PREFIX + "CACHE"}
    for name in environment:
        if name.startswith(PREFIX) and name.upper() not in known:
            unknown = UnknownNameError("environment variable", name, known)
            unknown.next_step = f"unset {name}"
            raise unknown


def list_suites() -> dict[str, Suite]:
    """The suites shipped with the package, by name."""
    suites = [_parse_suite(file) for file in sorted(SUITES.glob("*.yaml"))]
    return {suite.name: suite for suite in suites}


def load_suite(name: str) -> Suite:
    """A shipped suite by name, or one read from a file (`*.yaml`, `*.yml`, or any path with a /).

    Raises UnknownNameError for a name, UsageError for a file that cannot be read as a suite.
    """
    if "/" in name or os.sep in name or name.endswith((".yaml", ".yml")):
        return _parse_suite(Path(name))
    suites = list_suites()
    if name not in suites:
        raise UnknownNameError("suite", name, suites)
    return suites[name]


def _parse_suite(file: Path) -> Suite:
    try:
        return Suite(**_read_yaml(file, "suite"))
    except ValidationError as error:
        raise _usage_error(error, "suite setting", str(file), Suite.model_fields) from error


def load_yaml(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """What plain YAML says. Raises ValueError for all that yaml stumbles over: it lets the errors
    of its conversions through (`!!int ''` is an IndexError), and nesting without end.
    """
    try:
        if _written_out(yaml.compose(text, loader), {}) > LETTERS * len(text):
            raise ValueError("its aliases make too many values of too few lines")
        return yaml.load(text, loader)  # noqa: S506  # a safe one
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _written_out(node: yaml.Node | None, known: dict[int, int]) -> int:
    """How many nodes it would be without aliases."""
    if node is None:
        return 0
    if id(node) not in known:
        known[id(node)] = 1  # of one that holds itself
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        flat = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_written_out(part, known) for part in flat)
    return known[id(node)]


def _read_yaml(file: Path, what: str) -> dict[str, Any]:
    try:
        values = load_yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"the {what} file cannot be read: {error.strerror or error}", where=str(file)
        ) from error
    except ValueError as error:
        raise UsageError(f"the {what} file is not valid YAML: {error}", where=str(file)) from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UsageError(f"the {what} file must hold names with values", where=str(file))
    return values


def _usage_error(
    error: ValidationError, kind: str, where: str, known: Mapping[str, Any]
) -> UsageError:
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if problem["type"] == "extra_forbidden" and name not in known:
            unknown = UnknownNameError(kind, name, known)
            unknown.where, unknown.next_step = where, "correct or remove the name"
            return unknown
    lines = [
        f"{'.'.join(map(str, problem['loc'])) or kind}: "
        f"{problem['msg'].removeprefix('Value error, ')}"
        for problem in error.errors()
    ]
    return UsageError("; ".join(lines), where=where, next_step="unlearn-bench evaluate --help")
