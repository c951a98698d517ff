"""Options that several commands have: one name, one meaning, one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlearn_bench.cli.complete import complete_names

# The parts of a long help page; what has no part is about the run itself.
EDITED, ASKED, ANSWERED = "What is edited", "What is asked", "How it is asked and judged"

Model = Annotated[
    str | None,
    typer.Option(
        help="The base model: an embedded name, a hub id with a revision (org/name@commit), "
        "a folder, a folder with a PEFT adapter, or a GGUF file. Default: smollm2-135m.",
        autocompletion=complete_names("models"),
        rich_help_panel=EDITED,
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        help="A target model of your own, to be edited as it is. No exact model is trained.",
        rich_help_panel=EDITED,
    ),
]
Suite = Annotated[
    str | None,
    typer.Option(
        help="How much is asked: smoke, quick, full, or a YAML file. Default: quick.",
        autocompletion=complete_names("suites"),
        rich_help_panel=ASKED,
    ),
]
Tasks = Annotated[
    str | None,
    typer.Option(
        help="Only these tasks, separated by commas: ours, any that lm-eval knows by name "
        "(mmlu, wmdp_bio), or an lm-eval task file by its path.",
        autocompletion=complete_names("tasks"),
        rich_help_panel=ASKED,
    ),
]
AllowTaskCode = Annotated[
    bool | None,
    typer.Option(
        "--allow-task-code",
        help="Let task files given by path run the code that they name.",
        rich_help_panel=ASKED,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(help="At most this many items of each task.", rich_help_panel=ASKED),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        help="A number is how many seeds to run: 3 means 0, 1 and 2. "
        "A list means exactly those: 7,11. Write '7,' for the one seed 7.",
        rich_help_panel=EDITED,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="METHOD.OPTION=VALUE",
        help="Set one option of a method. Repeatable.",
        rich_help_panel=EDITED,
    ),
]
Tuned = Annotated[
    Path | None,
    typer.Option(
        help="The tuned.yaml of a tuning run: its winners stand above the defaults and below "
        "--set.",
        rich_help_panel=EDITED,
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(help="A folder with your own copies of the data sets.", rich_help_panel=ASKED),
]
Engine = Annotated[
    str | None,
    typer.Option(
        help="auto, vllm or transformers. Auto takes vllm where it is installed.",
        rich_help_panel=ANSWERED,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="For evaluation: auto, mixed, float32, bfloat16 or float16. Mixed scores "
        "likelihoods in float32 and generates in bfloat16. Auto is bfloat16 on CUDA; on CPU "
        "it is mixed where vLLM runs and the CPU multiplies bfloat16, else float32.",
        rich_help_panel=ANSWERED,
    ),
]
EngineArgs = Annotated[
    list[str] | None,
    typer.Option(
        "--engine-arg",
        metavar="NAME=VALUE",
        help="An engine argument of vLLM's own, such as tensor_parallel_size=2. Repeatable. "
        "Spread over several devices, a model's likelihoods are vLLM's own too.",
        rich_help_panel=ANSWERED,
    ),
]
Scorer = Annotated[
    str | None,
    typer.Option(
        help="Who judges toxicity: auto, or a name from 'list scorers'. "
        "Auto takes embedded, else profanity_check; with --scorer-checkpoint detoxify. Two with a "
        "comma: the first one's values are the board's, and how far the two agree.",
        autocompletion=complete_names("scorers"),
        rich_help_panel=ANSWERED,
    ),
]
ScorerCheckpoint = Annotated[
    Path | None,
    typer.Option(
        help="A local checkpoint for the scorer: a file or folder for detoxify, a folder for "
        "others. Of two scorers the first that takes one has it.",
        rich_help_panel=ANSWERED,
    ),
]
Guard = Annotated[
    str | None,
    typer.Option(
        help="A guard model (folder or hub id) that judges whether answers to harmful requests do "
        "the harm: one that writes safe or unsafe, as Llama Guard does.",
        rich_help_panel=ANSWERED,
    ),
]
Leaderboards = Annotated[
    Path | None,
    typer.Option(help="Folder of the leaderboards. Default: leaderboards, below the output."),
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="A YAML file with any of these settings. "
        "The command line and UNLEARN_BENCH_* variables come before it."
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        help="Seconds that one cell may take, the models ready. One that takes longer is ended "
        "and counts as failed, as one whose process dies does; the others go on."
    ),
]
Offline = Annotated[
    bool | None,
    typer.Option("--offline", help="Use no network: caches, folders and bundled data only."),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Let the libraries talk.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PlanAsJson = Annotated[bool, typer.Option("--json", help="With --dry-run: print it as JSON.")]
Run = Annotated[Path, typer.Argument(help="The output folder of a run.", metavar="RUN")]
AllowLimited = Annotated[
    bool, typer.Option("--allow-limited", help="Take runs whose suite was narrowed.")
]
AllowDirty = Annotated[
    bool,
    typer.Option("--allow-dirty", help="Go on though this package's source has uncommitted edits."),
]
