"""What a copy of this package does, run with that copy first on PYTHONPATH.

    python -m tests.fault.in_a_copy

Reads from stdin one JSON list a line: `["run", OUTPUT]` is a run of one cell without a model,
everything else the words of a command. Answers each with a JSON line: where the package lies, and
the command's exit code and output.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import unlearn_bench
from tests.unit.run_doubles import SmallSteps, cell, plan
from tests.unit.test_cli import invoke
from unlearn_bench.runs.execute import execute
from unlearn_bench.runs.progress import Reporter


def main() -> None:
    for line in sys.stdin:
        what, *words = json.loads(line)
        answer = [0, ""]
        if what == "run":
            execute(plan(Path(words[0]), cell("noop")), SmallSteps, Reporter())
        else:
            result = invoke(what, *words)
            answer = [result.exit_code, " ".join(result.output.split())]
        sys.stdout.write(json.dumps([unlearn_bench.__file__, *answer]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
