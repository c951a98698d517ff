"""Does the running vLLM engine really hold the checkpoint? Two independent answers.

Tensors: every linear layer is asked to multiply unit vectors, which give back columns of the weight
that it really multiplies with, so repacked or stale copies are caught wherever they hide (with tied
embeddings on CPU the packed output layer keeps the old weights across a plain reload). A sum of one
weight and zeros is exact in every format, where the product with any other vector is rounded by
more than a usual edit changes it. Everything else is compared as it is. Canaries: greedy texts and
their log-probabilities must be those of the checkpoint under torch; their prompts are long enough
to sit in the prefix cache, and straight after a swap no token of them may come from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from unlearn_bench.errors import WeightSwapError

COLUMNS = 64  # of each layer: an edit changes nearly all, or so much that the canaries tell
TF32 = 1e-3  # to which a GPU may round a float32 factor
CANARY_TOLERANCE = {"float32": 1e-3, "bfloat16": 3e-1, "float16": 5e-2}  # nats per token
CANARY_TOKENS = 8
# Over 100 tokens each: only whole blocks of the prefix cache (32 tokens on CPU) can be stale.
CANARIES = (
    "The old lighthouse keeper counted the ships again, as he had done on every evening of the "
    "past thirty years, and wrote the number with a pencil on the white wall beside the door. Some "
    "evenings there were none, and then he drew a small circle, which his daughter, when she was "
    "little, had taken for the moon. Below the window the sea went on moving stones from one side "
    "of the bay to the other, without haste, and the wind leaned on the tower and let it go. "
    "Tonight he counted seven, then eight, and the eighth of them turned slowly and",
    "Water boils at a lower temperature on a mountain than at the coast, because the air above it "
    "presses less. A cook who moves to the mountains learns this in the first week: the potatoes "
    "stay hard, the beans take all afternoon, and a soft egg needs a minute more than the book "
    "allows. A lid with a heavy weight on it brings the coast back into the kitchen, since steam "
    "that cannot leave presses on the water in the place of the missing air. For the same reason "
    "the engineers of early locomotives were careful with their valves, and a valve that",
)


def compare_tensors(engine_model: Any, reference: Mapping[str, torch.Tensor], dtype: str) -> int:
    """Number of the checkpoint's tensors found in the engine's model with equal effect.

    reference: the checkpoint's tensors by name. Raises WeightSwapError at the first that differs,
    and where there is none to compare. Tensors under names that the engine renames are skipped; the
    caller reports how many.
    """
    packed = getattr(engine_model, "packed_modules_mapping", None) or {}
    checked = 0
    for module_name, module in engine_model.named_modules():
        for names in _candidate_names(module_name, module, packed):
            if all(name in reference for name in names):
                checked += _check_module(module_name, module, names, reference, dtype)
                break
    if not checked:
        raise WeightSwapError(
            "the engine calls all tensors otherwise than the checkpoint: nothing could be compared",
            next_step="run with --engine transformers, and report the kind of model",
        )
    return checked


def _check_module(
    module_name: str,
    module: Any,
    names: Sequence[str],
    reference: Mapping[str, torch.Tensor],
    dtype: str,
) -> int:
    """Weight and bias, each of as many parts as `names`; returns how many tensors that were."""
    _require_equal(module_name, module, torch.cat([reference[name] for name in names]), dtype)
    biases = [name.removesuffix("weight") + "bias" for name in names]
    if getattr(module, "bias", None) is None or not all(name in reference for name in biases):
        return len(names)
    bias = torch.cat([reference[name] for name in biases]).to(module.bias.dtype).cpu()
    if not torch.equal(module.bias.data[: len(bias)].cpu(), bias):
        raise _other(f"{module_name}.bias")
    return 2 * len(names)


def _candidate_names(module_name: str, module: Any, packed: Mapping[str, Any]) -> list[list[str]]:
    """Checkpoint names of a module's weight: one per fused part, with the tied name as a second."""
    if getattr(module, "weight", None) is None:
        return []
    parent, _, leaf = module_name.rpartition(".")
    leaves = packed.get(leaf, [leaf])
    names = [[f"{parent}.{part}.weight" if parent else f"{part}.weight" for part in leaves]]
    if leaf == "lm_head":
        names.append(["model.embed_tokens.weight"])
    return names


def _require_equal(name: str, module: Any, weight: torch.Tensor, dtype: str) -> None:
    weight = weight.to(getattr(torch, dtype))
    if is_multiplied(name, module):
        equal = _same_columns(module, weight)
    else:
        held = module.weight.data[: len(weight)]
        equal = torch.equal(held.to(weight.dtype).cpu(), weight.cpu())
    if not equal:
        raise _other(name)


def _other(name: str) -> WeightSwapError:
    return WeightSwapError(
        f"the engine's {name} is not the checkpoint's",
        where=name,
        next_step="this is a fault of the engine: run with --engine transformers and report it",
    )


def is_multiplied(name: str, module: Any) -> bool:
    """Whether vLLM multiplies with the module's weight, packed or not. An embedding table is looked
    up; the output layer is a table that is multiplied.
    """
    is_table = hasattr(module, "num_embeddings") and not name.endswith("lm_head")
    return getattr(module, "quant_method", None) is not None and not is_table


def columns(module: Any, width: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of n of a weight's `width` columns, and what its kernel has there: (n, outputs)."""
    device = next(iter(module.parameters())).device
    chosen = torch.linspace(0, width - 1, min(COLUMNS, width)).round().long()
    units = torch.nn.functional.one_hot(chosen, width).to(device=device, dtype=dtype)
    with torch.inference_mode():
        held: torch.Tensor = module.quant_method.apply(module, units, bias=None)
    return chosen, held


def _same_columns(module: Any, weight: torch.Tensor) -> bool:
    chosen, held = columns(module, weight.shape[1], weight.dtype)
    wanted = weight[:, chosen.to(weight.device)].T.cpu()
    found = held[:, : len(weight)].to(weight.dtype).cpu()
    if held.device.type != "cpu" and weight.dtype == torch.float32:
        return bool(((found - wanted).abs() <= TF32 * wanted.abs()).all())
    return torch.equal(found, wanted)


def require_canaries(gap: float, dtype: str) -> None:
    """Raise WeightSwapError when the canary log-probabilities differ by more than rounding."""
    if not gap <= CANARY_TOLERANCE[dtype]:  # written so that NaN fails
        raise WeightSwapError(
            f"the engine's canary log-probabilities differ from the checkpoint's by {gap:.3g} nats "
            f"per token (allowed {CANARY_TOLERANCE[dtype]:.1g})",
            next_step="the engine may still answer with another model's weights or cache; "
            "run with --engine transformers and report it",
        )


def require_fresh(cached_tokens: Sequence[int | None]) -> None:
    """Raise WeightSwapError when a canary's prompt was read from the prefix cache after a swap."""
    if any(cached_tokens):
        raise WeightSwapError(
            "the engine answered a canary from the cache of the model before",
            next_step="this is a fault of the engine: run with --engine transformers and report it",
        )
