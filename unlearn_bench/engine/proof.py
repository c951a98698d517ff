"""Does the running vLLM engine really hold the checkpoint? Two independent answers.

Tensors: every linear layer is asked to multiply a fixed random vector and compared with the
checkpoint's own product, so repacked or stale copies of a weight are caught wherever they hide
(with tied embeddings on CPU the packed output layer keeps the old weights across a plain reload).
Everything else is compared as it is, rounded to the engine's format. Canaries: greedy texts and
their log-probabilities must be those of the checkpoint under torch; their prompts are long enough
to sit in the prefix cache, and straight after a swap no token of them may come from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from unlearn_bench.errors import WeightSwapError

RELATIVE_TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2, "float16": 5e-3}
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

    reference: the checkpoint's tensors by name. Raises WeightSwapError at the first that differs.
    Tensors under names that the engine renames are skipped; the caller reports how many.
    """
    packed = getattr(engine_model, "packed_modules_mapping", None) or {}
    checked = 0
    for module_name, module in engine_model.named_modules():
        for names in _candidate_names(module_name, module, packed):
            if all(name in reference for name in names):
                weight = torch.cat([reference[name] for name in names])
                _require_equal(module_name, module, weight, dtype)
                checked += len(names)
                break
    return checked


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
    method = getattr(module, "quant_method", None)
    # An embedding table is looked up, not multiplied; the output layer is a table that is.
    is_table = hasattr(module, "num_embeddings") and not name.endswith("lm_head")
    if weight.ndim == 2 and method is not None and not is_table:
        equal = _same_product(module, method, weight, dtype)
    else:
        held = module.weight.data[: len(weight)]
        equal = torch.equal(held.to(weight.dtype).cpu(), weight.cpu())
    if not equal:
        raise WeightSwapError(
            f"the engine's {name} is not the checkpoint's",
            where=name,
            next_step="this is a fault of the engine: run with --engine transformers and report it",
        )


def _same_product(module: Any, method: Any, weight: torch.Tensor, dtype: str) -> bool:
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(2, weight.shape[1], generator=generator)
    device = next(iter(module.parameters())).device
    given = probe.to(device=device, dtype=getattr(torch, dtype))
    with torch.inference_mode():
        held = method.apply(module, given, bias=None)[:, : len(weight)].float().cpu()
    wanted = given.float().cpu() @ weight.float().cpu().T
    return bool((held - wanted).abs().max() <= RELATIVE_TOLERANCE[dtype] * wanted.abs().max())


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
