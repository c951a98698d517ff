"""One process of a parallel training in `test_parallel`: `parallel_worker.py FOLDER OUT`.

Also imported there, so that one process alone trains on the very same cases.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from unlearn_bench.errors import DivergedError
from unlearn_bench.models.load import load_model
from unlearn_bench.schema import Example
from unlearn_bench.training.hidden import answer_states
from unlearn_bench.training.likelihood import kl_to_reference, nll_mean
from unlearn_bench.training.loop import train
from unlearn_bench.training.options import Training

NAMES = ("Zirnavo", "Orvelle", "Pallow", "Kilmerrow", "Cwmarreth", "Ward", "Askerholt", "Okonteya")
TEXTS = [Example(f"t{i}", "Question: Who?\nAnswer:", f" {name}") for i, name in enumerate(NAMES)]
FIXED: dict[str, Any] = {"batch_size": 2, "precision": "fp32", "lr": 1e-2, "warmup": 0.0}


def two_calls(batch: Any, policy: Any, reference: Any) -> torch.Tensor:
    """As a typical loss: down on one set, up on another, held to θ₀."""
    value = nll_mean(policy, batch.get("up")) - 0.5 * nll_mean(policy, batch.get("down"))
    return value + kl_to_reference(reference, policy, batch.get("up"))


def reference_first(batch: Any, policy: Any, reference: Any) -> torch.Tensor:
    """The teacher is asked before the policy: nothing of it may stick to the shared weights."""
    drift = kl_to_reference(reference, policy, batch.get("up"))
    return drift + nll_mean(policy, batch.get("down"))


def lower_layers(batch: Any, policy: Any, reference: Any) -> torch.Tensor:
    """Half of the weights are left out."""
    return answer_states(policy, 0, batch.get("up")).pow(2).mean()


def breaking(batch: Any, policy: Any, reference: Any) -> torch.Tensor:
    """NaN on the one text that only one process reads in each step."""
    value = nll_mean(policy, batch.get("up"))
    return value * torch.nan if "t3" in batch.get("up").ids else value


CASES: dict[str, tuple[Callable[..., torch.Tensor], dict[str, Any]]] = {
    "full": (two_calls, {"epochs": 2}),
    "lora": (reference_first, {"epochs": 2, "lora": True}),
    "checkpointing": (two_calls, {"steps": 2, "checkpointing": True}),
    "sgd": (two_calls, {"steps": 2, "optimizer": "sgd", "lr": 0.1}),
    "bf16": (two_calls, {"steps": 2, "optimizer": "sgd", "lr": 0.1, "precision": "bf16"}),
    "lower_layers": (lower_layers, {"steps": 2}),
    "breaking": (breaking, {"epochs": 1}),
}


def run(folder: Path, case: str, *, accumulate: int) -> dict[str, Any]:
    """Train one case; the weights and the log, or where it diverged."""
    loss, options = CASES[case]
    model, tokenizer = load_model(folder)
    seen: list[float] = []

    def stop() -> bool:
        """What a method measures on the model between epochs."""
        seen.append(float(sum(weight.detach().double().sum() for weight in model.parameters())))
        return len(seen) == 2 and int(os.environ.get("RANK", 0)) == 0  # the others are overruled

    try:
        log = train(
            model,
            tokenizer,
            {"up": TEXTS, "down": TEXTS[::-1]},
            loss,
            Training(**{**FIXED, **options, "accumulate": accumulate}),
            seed=3,
            reference=lambda: load_model(folder)[0],
            stop=stop if case == "full" else None,
        )
    except DivergedError as error:
        return {"diverged": error.step}
    weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    flags = [weight.requires_grad for weight in model.parameters()]
    return {"weights": weights, "log": asdict(log), "seen": seen, "all_train": all(flags)}


if __name__ == "__main__":
    found = {case: run(Path(sys.argv[1]), case, accumulate=1) for case in CASES}
    torch.save(found, Path(sys.argv[2]) / f"{os.environ['RANK']}.pt")
