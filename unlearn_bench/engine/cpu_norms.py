"""vLLM's own RMS norm kernels, on CPU too.

vLLM's CPU build carries compiled kernels for the norms but offers them to GPUs only: on CPU each
norm is eight torch operations. A model of 30 layers has 61 norms, and with few texts left to
continue, such small operations are half of a step (docs/design/engine.md has the figures).
"""

from __future__ import annotations

import torch
from torch import Tensor

from unlearn_bench.training.precision import supports_bf16

PROVIDER = "unlearn_bench_cpu"


def cpu_norm_priority() -> dict[str, list[str]]:
    """vLLM's `ir_op_priority`: the compiled kernels first. Registers them, once per process.

    Without bf16 in hardware the kernels cut results to bf16 where torch rounds them, an error twice
    as large and always towards zero: there they serve float32 alone. Empty where this vLLM has no
    such kernels or no such setting. Each call that a kernel does not support (another format of the
    weight, a part of the width) stays with torch's operations.
    """
    try:
        from vllm import ir
        from vllm.platforms import current_platform
    except ImportError:
        return {}
    current_platform.import_kernels()
    if not all(hasattr(torch.ops._C, name) for name in ("rms_norm", "fused_add_rms_norm")):
        return {}
    if PROVIDER not in ir.ops.rms_norm.impls:
        supports = {"supported": True, "supports_args": _is_supported}
        ir.ops.rms_norm.register_impl(PROVIDER, **supports)(_rms_norm)
        supports["supports_args"] = _is_supported_with_residual
        ir.ops.fused_add_rms_norm.register_impl(PROVIDER, inplace=True, **supports)(_add_rms_norm)
    return {"rms_norm": [PROVIDER, "native"], "fused_add_rms_norm": [PROVIDER, "native"]}


def _is_supported(
    x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> bool:
    same = weight is not None and weight.dtype == x.dtype
    rounds = x.dtype == torch.float32 or supports_bf16(x.device)
    return same and rounds and variance_size is None and x.is_contiguous()


def _is_supported_with_residual(
    x: Tensor,
    x_residual: Tensor,
    weight: Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> bool:
    same = x_residual.dtype == x.dtype and x_residual.is_contiguous()
    return same and _is_supported(x, weight, epsilon, variance_size)


def _rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> torch.Tensor:
    normed = torch.empty_like(x)
    torch.ops._C.rms_norm(normed, x, weight, epsilon)
    return normed


def _add_rms_norm(
    x: torch.Tensor,
    x_residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
    return x, x_residual
