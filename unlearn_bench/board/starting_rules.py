"""The rules that `gate init` writes: YAML to be read, thought over and changed."""

from __future__ import annotations

import json
from collections.abc import Sequence

from unlearn_bench.compare.noise import Suggestion

HEAD = """\
# Written by `unlearn-bench gate init`: a start, not a decision. docs/gate.md says how to choose.
# margin: what a candidate may lose, in the metric's unit; `relative: 0.05` is a share of the
# baseline's value instead. Every metric that you add makes the test of all others stricter.
level: 0.05  # how often a candidate as good as the baseline may fail, over all metrics together
metrics:
"""


def render_rules(suggestions: Sequence[Suggestion], left_out: Sequence[tuple[str, str]]) -> str:
    """left_out: headline metrics that the gate cannot judge, with the reason."""
    lines = [HEAD.rstrip("\n")]
    for one in suggestions:
        lines.append(f"  # {one.source}")
        kind = "relative" if one.relative else "margin"
        lines.append(f"  {json.dumps(one.measure.name)}: {{{kind}: {_rounded_up(one.margin)}}}")
    lines += [f"  # not judged: {json.dumps(name)}, {reason}" for name, reason in left_out]
    return "\n".join(lines) + "\n"


def _rounded_up(margin: float) -> str:
    """Two digits, never below the margin."""
    text = f"{margin:.1e}"
    if float(text) < margin:
        mantissa, exponent = text.split("e")
        text = f"{float(mantissa) + 0.1:.1f}e{exponent}"
    return repr(float(text))
