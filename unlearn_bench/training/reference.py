"""θ₀ beside a model in training: a frozen copy that is proven not to move, or the adapter off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from unlearn_bench.errors import ReferenceMovedError, UsageError
from unlearn_bench.training.options import Training

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class AdapterOff:
    """θ₀ as the model in training with its LoRA adapter at strength zero: no second copy.

    peft's own switch also takes the adapter's `requires_grad` away for a while; sharded weights
    would not get it back.
    """

    def __init__(self, model: Any) -> None:
        self._model = model.get_base_model() if hasattr(model, "get_base_model") else model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The unadapted model's forward pass, without gradients."""
        from peft.helpers import rescale_adapter_scale

        with torch.no_grad(), rescale_adapter_scale(self._model, 0.0):
            return self._model(*args, **kwargs)

    def get_base_model(self) -> Any:
        """The module that holds the layers, as peft's models have it."""
        return self._model

    def get_output_embeddings(self) -> torch.nn.Module:
        """The output layer, which carries no adapter."""
        head: torch.nn.Module = self._model.get_output_embeddings()
        return head


@contextmanager
def adapted(model: PreTrainedModel, training: Training) -> Iterator[None]:
    """With `training.lora`: put adapters into `model` in place and merge them when the block ends.

    Only linear layers whose weight would have trained get one, so that what is frozen stays so; as
    everywhere, the output layer gets none. Only the adapters train meanwhile. Raises UsageError
    where there is no such layer.
    """
    if not training.lora:
        yield
        return
    from peft import LoraConfig, get_peft_model

    trainable = [parameter.requires_grad for parameter in model.parameters()]
    config = LoraConfig(
        r=training.lora_rank,
        lora_alpha=training.lora_alpha,
        lora_dropout=0.0,
        target_modules=trained_layers(model),
        task_type="CAUSAL_LM",
    )
    peft_model: Any = get_peft_model(model, config)
    try:
        yield
    finally:
        peft_model.merge_and_unload()
        for parameter, before in zip(model.parameters(), trainable, strict=True):
            parameter.requires_grad_(before)
        # peft leaves its mark on the model object; a later adapter would warn about it.
        if hasattr(model, "peft_config"):
            del model.peft_config


def trained_layers(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers, the output layer left out, whose whole weight is in training.

    Raises UsageError when there is none.
    """
    from transformers.pytorch_utils import Conv1D

    output = model.get_output_embeddings()
    names = []
    for name, module in model.named_modules():
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        linear = isinstance(module, (torch.nn.Linear, Conv1D)) and module is not output
        if linear and weight is not None and weight.requires_grad:
            names.append(name)
    if not names:
        raise UsageError(
            "LoRA changes linear layers, and none is in training here",
            next_step="leave `lora` off for this method",
        )
    return names


@contextmanager
def guarded(
    build: Callable[[], PreTrainedModel] | None, model: PreTrainedModel
) -> Iterator[PreTrainedModel | None]:
    """The frozen reference for the block. None when nothing is to be built.

    Raises ReferenceMovedError when it shares memory with `model`, or when any of its bits differ
    after the block: a reference that follows the edit makes every KL and ratio look better.
    """
    if build is None:
        yield None
        return
    reference = build()
    own = {parameter.data_ptr() for parameter in model.parameters()}
    if reference is model or any(p.data_ptr() in own for p in reference.parameters()):
        raise ReferenceMovedError("the reference shares its weights with the model in training")
    reference.requires_grad_(False)
    reference.eval()
    before = _bit_sums(reference)
    yield reference
    if _bit_sums(reference) != before:
        raise ReferenceMovedError("the reference model changed while the model was trained")


def _bit_sums(model: PreTrainedModel) -> list[int]:
    """Per tensor the sum of its raw 16- or 32-bit words: any single changed bit changes it."""
    words = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return [
        int(tensor.detach().view(words[tensor.element_size()]).sum(dtype=torch.int64))
        for tensor in model.state_dict().values()
    ]
