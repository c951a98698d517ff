"""What the unedited model thinks of what an edited one wrote: is it language at all?"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from unlearn_bench.engine.base import Engine, Progress
from unlearn_bench.engine.lm import EngineLM
from unlearn_bench.schema import Sample

READ = 1  # texts of one item: the mean over prompts is what counts, and another prompt says more


def score_under_target(
    engine: Engine,
    samples: Sequence[Sample],
    tasks: Collection[str],
    progress: Progress = lambda done, total: None,
) -> list[Sample]:
    """The samples in their order, those of `tasks` with `under_target` filled in.

    engine: holds θ₀. Of every sample the first READ texts are read after their prompt: on two cores
    all k of them would take as long as half of the other questions.
    """
    asked = [
        (sample.prompt, text)
        for sample in samples
        if sample.task in tasks
        for text in sample.outputs[:READ]
    ]
    lm = EngineLM(engine, seed=0, progress=progress)
    means = iter([float(found.token_log_probs.mean()) for found in lm.score_texts(asked)])
    return [
        dataclasses.replace(sample, under_target=tuple(next(means) for _ in sample.outputs[:READ]))
        if sample.task in tasks
        else sample
        for sample in samples
    ]
