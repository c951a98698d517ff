"""vLLM's compiled norms on CPU against the definition of RMSNorm (arXiv 1910.07467, equation 4)."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("vllm", reason="the vllm engine is not installed")
if torch.cuda.is_available():
    pytest.skip("a CUDA build of vLLM has kernels of its own", allow_module_level=True)

from unlearn_bench.engine import cpu_norms
from unlearn_bench.engine.cpu_norms import PROVIDER, cpu_norm_priority
from unlearn_bench.training.precision import supports_bf16

EPSILON = 1e-5
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2**-8}  # one rounding of the result
BF16 = pytest.param(
    torch.bfloat16,
    marks=pytest.mark.skipif(
        not supports_bf16(torch.device("cpu")), reason="this CPU does not round to bf16 in hardware"
    ),
)


def rms_norm_by_definition(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    wide = x.double()
    return wide / (wide.pow(2).mean(-1, keepdim=True) + EPSILON).sqrt() * weight.double()


@pytest.fixture(scope="module")
def ops() -> object:
    """vLLM's registry of operations, with ours in it."""
    from vllm import ir

    assert cpu_norm_priority()["rms_norm"] == [PROVIDER, "native"]
    assert cpu_norm_priority() == cpu_norm_priority(), "a second engine registers nothing twice"
    return ir.ops


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_the_norm_is_the_definition(ops: object, dtype: torch.dtype) -> None:
    x, weight = torch.randn(5, 96).to(dtype), torch.rand(96).to(dtype)
    before = x.clone()
    normed = ops.rms_norm.impls[PROVIDER].impl_fn(x, weight, EPSILON)  # type: ignore[attr-defined]
    expected = rms_norm_by_definition(x, weight)
    torch.testing.assert_close(normed.double(), expected, atol=1e-6, rtol=TOLERANCE[dtype])
    assert torch.equal(x, before), "the input is the residual of the next layer"


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_the_residual_is_added_first_and_kept(ops: object, dtype: torch.dtype) -> None:
    x, residual = torch.randn(5, 96).to(dtype), torch.randn(5, 96).to(dtype)
    weight = torch.rand(96).to(dtype)
    total = x.double() + residual.double()
    fused = ops.fused_add_rms_norm.impls[PROVIDER].impl_fn  # type: ignore[attr-defined]
    normed, kept = fused(x, residual, weight, EPSILON)
    torch.testing.assert_close(kept.double(), total, atol=1e-6, rtol=TOLERANCE[dtype])
    # The kernel may norm the sum as it is or as it was rounded: two roundings in all.
    expected = rms_norm_by_definition(total, weight)
    torch.testing.assert_close(normed.double(), expected, atol=1e-6, rtol=2 * TOLERANCE[dtype])


def test_what_the_kernel_cannot_do_stays_with_torch(ops: object) -> None:
    x, weight = torch.randn(4, 8), torch.ones(8)
    norm = ops.rms_norm  # type: ignore[attr-defined]
    supports = norm.impls[PROVIDER].supports_args
    assert supports(x, weight, EPSILON)
    assert not supports(x, weight.bfloat16(), EPSILON), "the kernel reads the weight as x's format"
    assert not supports(x, None, EPSILON)
    assert not supports(x, weight, EPSILON, 4), "a variance over a part of the width"
    assert not supports(x.T, torch.ones(4), EPSILON), "the kernel walks rows"
    fused = ops.fused_add_rms_norm.impls[PROVIDER].supports_args  # type: ignore[attr-defined]
    assert fused(x, x.clone(), weight, EPSILON)
    assert not fused(x, x.bfloat16(), weight, EPSILON)


@pytest.mark.parametrize("rounds", [True, False])
def test_bf16_is_for_hardware_that_rounds(
    rounds: bool, ops: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_norms, "supports_bf16", lambda device: rounds)
    supports = ops.rms_norm.impls[PROVIDER].supports_args  # type: ignore[attr-defined]
    x, weight = torch.randn(4, 8), torch.ones(8)
    assert supports(x, weight, EPSILON)
    assert supports(x.bfloat16(), weight.bfloat16(), EPSILON) == rounds
