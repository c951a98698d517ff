"""The training loop's options. No torch here, so that plans and listings can read them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["auto", "bf16", "fp32"]


class Training(BaseModel):
    """How a loss is minimised. A trained method's own defaults are in its decorator (`training`).

    lr: peak rate, reached after `warmup` (share of all steps), then falling linearly to zero or
    constant. epochs: passes over the first of the method's sets that is not empty; the others are
    cycled beside it. steps: optimiser steps, instead of epochs. batch_size: examples of each set
    per forward pass; accumulate: such passes per step. clip: largest gradient norm (inf = off).
    max_tokens: longer texts are cut. lora: train a low-rank adapter on every linear layer that the
    method trains, and merge it at the end. checkpointing: keep only the layers' inputs and compute
    the rest again in the backward pass: less memory, a third more time. precision: of activations;
    weights and optimiser states keep the model's own dtype.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-5
    epochs: Annotated[int, Field(ge=0)] = 5
    steps: Annotated[int, Field(ge=0)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 16
    accumulate: Annotated[int, Field(ge=1)] = 1
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    schedule: Literal["linear", "constant"] = "linear"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(gt=0)] = 1.0
    max_tokens: Annotated[int, Field(ge=2)] = 512
    precision: Precision = "auto"
    checkpointing: bool = False
    lora: bool = False
    lora_rank: Annotated[int, Field(ge=1)] = 16
    lora_alpha: Annotated[float, Field(gt=0)] = 32.0
