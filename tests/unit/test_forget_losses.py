"""The forget losses of one file each against numbers worked out by hand.

Three words; the next one depends on the current one only. Row 0 of POLICY gives word 1 a quarter,
row 1 gives it a half. FORGET is "0 | 1 1": its answer's probabilities are 1/4 and 1/2.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from table_model import TableModel, set_batches, token_batch

from unlearn_bench.methods.ceu import ceu
from unlearn_bench.methods.kl_min import kl_min
from unlearn_bench.methods.pdu import flatness
from unlearn_bench.methods.preference import dpo
from unlearn_bench.methods.satimp import satimp
from unlearn_bench.methods.simnpo import simnpo
from unlearn_bench.methods.undial import undial
from unlearn_bench.methods.wga import wga
from unlearn_bench.training.likelihood import nll_mean

LN2, LN3 = math.log(2), math.log(3)
POLICY = [[1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 2, 1 / 4], [1 / 8, 1 / 8, 3 / 4]]
REFERENCE = [[1 / 4, 1 / 2, 1 / 4], *POLICY[1:]]
FORGET = token_batch(([0, 1, 1], 1), width=5)  # answer NLL: ln 4 + ln 2, and two tokens of padding
RETAIN = token_batch(([2, 0, 2], 2))  # prompt 2 0, answer 2 after 0: NLL ln 4; its KL: see below
# KL(REFERENCE ‖ POLICY) in row 0: 1/4·ln(1/2) + 1/2·ln 2 + 1/4·ln 1 = ln 2 / 4.
KL_ROW_0 = LN2 / 4


def sets(**changes: Any) -> Any:
    return set_batches(**({"forget": FORGET, "retain": RETAIN} | changes))


def policy() -> TableModel:
    return TableModel(POLICY)


def reference() -> TableModel:
    return TableModel(REFERENCE)


def value(loss: torch.Tensor) -> float:
    assert loss.shape == ()
    return loss.item()


# --- kl_min -------------------------------------------------------------------------------------


def test_kl_min_by_hand() -> None:
    """−(ln 4 + ln 2)/2 + 2·(ln 2 / 4) = −1.5·ln 2 + 0.5·ln 2 = −ln 2. The KL the other way round,
    Σ p_θ·ln(p_θ/p_θ₀) = 1/2·ln 2 + 1/4·ln(1/2) = ln 2 / 4, is equal here; see the next test.
    """
    assert value(kl_min(sets(), policy(), reference(), alpha=2.0)) == pytest.approx(-LN2, abs=1e-6)


def test_kl_min_takes_the_references_expectation() -> None:
    """Row 0 of another reference: (1/8, 1/8, 3/4) against POLICY's (1/2, 1/4, 1/4):
    KL(ref ‖ policy) = 1/8·ln(1/4) + 1/8·ln(1/2) + 3/4·ln 3 = 3/4·ln 3 − 3/8·ln 2 = 0.5640;
    KL(policy ‖ ref) = 1/2·ln 4 + 1/4·ln 2 + 1/4·ln(1/3) = 5/4·ln 2 − 1/4·ln 3 = 0.5918.
    """
    other = TableModel([[1 / 8, 1 / 8, 3 / 4], *POLICY[1:]])
    loss = kl_min(sets(), policy(), other, alpha=1.0)
    assert value(loss) == pytest.approx(-1.5 * LN2 + 0.75 * LN3 - 0.375 * LN2, abs=1e-6)


def test_kl_is_the_mean_over_answer_tokens() -> None:
    """Answer tokens after 0 (KL ln 2 / 4) and after 2 (KL 0): half of ln 2 / 4."""
    kept = token_batch(([2, 0, 2, 1], 2))
    loss = kl_min(sets(retain=kept), policy(), reference(), alpha=1.0)
    assert value(loss) == pytest.approx(-1.5 * LN2 + KL_ROW_0 / 2, abs=1e-6)


def test_kl_min_moves_the_policy_only() -> None:
    student, teacher = policy(), reference()
    kl_min(sets(), student, teacher, alpha=1.0).backward()
    assert student.logits.grad is not None
    assert teacher.logits.grad is None


# --- simnpo -------------------------------------------------------------------------------------


def test_simnpo_by_hand() -> None:
    """Per token NLL = 1.5·ln 2. β = 2, δ = ln 2 / 2: σ(2·(1.5 − 0.5)·ln 2) = σ(ln 4) = 4/5, so the
    term is −(2/2)·ln(4/5) = ln(5/4); γ = 3, α = 1/2 with NLL(retain) = ln 4: 3·ln(5/4) + ln 2.
    The summed NLL instead of the mean would give σ(ln 32) = 32/33.
    """
    loss = simnpo(sets(), policy(), None, beta=2.0, delta=LN2 / 2, gamma=3.0, alpha=0.5)
    assert value(loss) == pytest.approx(3 * math.log(5 / 4) + LN2, abs=1e-6)


def test_simnpo_counts_each_answers_own_tokens() -> None:
    """Two answers, "1 1" after 0 (1.5·ln 2 per token) and "1" after 0 (2·ln 2): β = 1, δ = 0:
    −2·[ln σ(1.5·ln 2) + ln σ(2·ln 2)]/2 = ln(1 + 2^−1.5) + ln(1 + 1/4).
    """
    forget = token_batch(([0, 1, 1], 1), ([0, 1], 1))
    loss = simnpo(sets(forget=forget), policy(), None, beta=1.0, delta=0.0, gamma=1.0, alpha=0.0)
    assert value(loss) == pytest.approx(math.log(1 + 2**-1.5) + math.log(5 / 4), abs=1e-6)


# --- undial -------------------------------------------------------------------------------------


def test_undial_by_hand() -> None:
    """β = ln 2 halves the answer's odds before normalising. Row 0 of θ₀ is (1/4, 1/2, 1/4) with
    y = 1: target (1/3, 1/3, 1/3); CE with (1/2, 1/4, 1/4): (ln 2 + ln 4 + ln 4)/3 = 5/3·ln 2.
    Row 1 is (1/4, 1/2, 1/4) in both: target uniform again, CE (ln 4 + ln 2 + ln 4)/3 = 5/3·ln 2.
    Mean over the two answer tokens: 5/3·ln 2. Retain: + 1/2·ln 4.
    """
    loss = undial(sets(), policy(), reference(), beta=LN2, alpha=0.5)
    assert value(loss) == pytest.approx(5 / 3 * LN2 + LN2, abs=1e-6)


def test_undial_at_beta_zero_is_distillation() -> None:
    """β = 0, policy = θ₀: CE is the entropy of (1/4, 1/2, 1/4), 1.5·ln 2, with zero gradient."""
    student = reference()
    loss = undial(set_batches(forget=FORGET), student, reference(), beta=0.0)
    loss.backward()
    assert value(loss) == pytest.approx(1.5 * LN2, abs=1e-6)
    assert student.logits.grad is not None
    assert student.logits.grad.abs().max() < 1e-7


def test_undial_leaves_the_reference_alone() -> None:
    """The penalty is taken off a copy: a second call gives the same loss."""
    teacher = reference()
    first = undial(set_batches(forget=FORGET), policy(), teacher, beta=3.0)
    assert torch.equal(teacher.logits, reference().logits)
    assert value(undial(set_batches(forget=FORGET), policy(), teacher, beta=3.0)) == value(first)


# --- wga, satimp --------------------------------------------------------------------------------


def test_wga_by_hand() -> None:
    """β = 1: mean of 1/4·ln(1/4) and 1/2·ln(1/2) = −(1/2 + 1/2)·ln 2/2 = −ln 2 / 2; + 1/2·ln 4."""
    assert value(wga(sets(), policy(), None, beta=1.0, alpha=0.5)) == pytest.approx(
        -LN2 / 2 + LN2, abs=1e-6
    )


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_wga_weights_carry_no_gradient(beta: float) -> None:
    """Its gradient is the weighted ascent's: Σ p^β·∇ log p / 2, here from two one-token answers.
    A weight that is differentiated adds β·p^β·log p·∇ log p, another number.
    """
    mine, theirs = policy(), policy()
    wga(set_batches(forget=FORGET), mine, None, beta=beta, alpha=0.0).backward()
    first, second = token_batch(([0, 1], 1)), token_batch(([1, 1], 1))
    by_hand = (1 / 4) ** beta * -nll_mean(theirs, first) + 0.5**beta * -nll_mean(theirs, second)
    (by_hand / 2).backward()
    torch.testing.assert_close(mine.logits.grad, theirs.logits.grad)


def test_wga_at_beta_zero_is_gradient_ascent() -> None:
    assert value(wga(set_batches(forget=FORGET), policy(), None, beta=0.0, alpha=0.0)) == (
        pytest.approx(-value(nll_mean(policy(), FORGET)), abs=1e-6)
    )


def test_satimp_by_hand() -> None:
    """β₁ = 2, β₂ = 1: (1/16)·(3/4)·ln(1/4) = −3/32·ln 2 and (1/4)·(1/2)·ln(1/2) = −1/8·ln 2; their
    mean is −7/64·ln 2; γ = 8: −7/8·ln 2; + 1/2·ln 4.
    """
    loss = satimp(sets(), policy(), None, saturation=2.0, importance=1.0, gamma=8.0, alpha=0.5)
    assert value(loss) == pytest.approx(-7 / 8 * LN2 + LN2, abs=1e-6)


def test_satimp_weights_carry_no_gradient() -> None:
    mine, theirs = policy(), policy()
    satimp(set_batches(forget=FORGET), mine, None,
           saturation=1.0, importance=1.0, gamma=1.0, alpha=0.0).backward()  # fmt: skip
    first, second = token_batch(([0, 1], 1)), token_batch(([1, 1], 1))
    by_hand = 3 / 16 * -nll_mean(theirs, first) + 1 / 4 * -nll_mean(theirs, second)
    (by_hand / 2).backward()
    torch.testing.assert_close(mine.logits.grad, theirs.logits.grad)


# --- ceu ----------------------------------------------------------------------------------------


def test_ceu_by_hand() -> None:
    """Row 0 without word 1: target (2/3, 0, 1/3); CE with (1/2, 1/4, 1/4): 2/3·ln 2 + 1/3·ln 4 =
    4/3·ln 2. Row 1 without word 1: (1/2, 0, 1/2); CE with (1/4, 1/2, 1/4): ln 4 = 2·ln 2.
    Mean: 5/3·ln 2.
    """
    loss = ceu(set_batches(forget=FORGET), policy(), None)
    assert value(loss) == pytest.approx(5 / 3 * LN2, abs=1e-6)


def test_ceu_gradient_stops_at_the_target() -> None:
    """d CE/dz = p − target: row 0 (1/2 − 2/3, 1/4, 1/4 − 1/3)/2, row 1 (−1/4, 1/2, −1/4)/2."""
    student = policy()
    ceu(set_batches(forget=FORGET), student, None).backward()
    expected = torch.tensor([[-1 / 12, 1 / 8, -1 / 24], [-1 / 8, 1 / 4, -1 / 8], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(student.logits.grad, expected)


def test_ceu_without_the_first_answer_token() -> None:
    """Only row 1 is left: 2·ln 2. An answer of one token is not read: zero, and no NaN."""
    forget = token_batch(([0, 1, 1], 1), ([0, 1], 1))
    loss = ceu(set_batches(forget=forget), policy(), None, skip_first=1)
    assert value(loss) == pytest.approx(2 * LN2, abs=1e-6)
    student = policy()
    nothing = ceu(set_batches(forget=token_batch(([0, 1], 1))), student, None, skip_first=1)
    nothing.backward()
    assert value(nothing) == 0
    assert student.logits.grad is not None
    assert student.logits.grad.abs().max() == 0


# --- dpo, pdu -----------------------------------------------------------------------------------

REFUSAL = token_batch(([0, 2], 1))  # log p = ln(1/4) under both


def test_dpo_by_hand() -> None:
    """Forget answer "1" after 0: Δ = ln(1/4) − ln(1/2) = −ln 2. Chosen "2" after 0: Δ = 0.
    β = 2: σ(2·(0 + ln 2)) = 4/5, so −(2/2)·ln(4/5) = ln(5/4). Swapped answers: σ(−2·ln 2) = 1/5.
    """
    forget = token_batch(([0, 1], 1))
    loss = dpo(policy(), reference(), REFUSAL, forget, 2.0)
    assert value(loss) == pytest.approx(math.log(5 / 4), abs=1e-6)
    swapped = dpo(policy(), reference(), forget, REFUSAL, 2.0)
    assert value(swapped) == pytest.approx(math.log(5), abs=1e-6)


def test_dpo_takes_the_references_margin_off() -> None:
    """Chosen "2" after 2 and rejected "1" after 0: θ gives 3/4 and 1/4, θ₀ 3/4 and 1/2. Then
    Δ(chosen) − Δ(rejected) = 0 − (ln(1/4) − ln(1/2)) = ln 2; added instead of taken off, θ₀'s
    margin would make it ln 3 + ln(3/2). β = 1: −2·ln σ(ln 2) = 2·ln(3/2).
    """
    chosen, rejected = token_batch(([2, 2], 1)), token_batch(([0, 1], 1))
    assert value(dpo(policy(), reference(), chosen, rejected, 1.0)) == pytest.approx(
        2 * math.log(3 / 2), abs=1e-6
    )


def test_dpo_sums_over_an_answers_tokens() -> None:
    """Chosen "2 2" after 0 under a policy that doubled both: Δ = 2·ln 2, rejected Δ = 0; β = 1:
    −2·ln σ(2·ln 2) = 2·ln(5/4). A mean over tokens would give 2·ln(3/2).
    """
    student = TableModel([[1 / 4, 1 / 4, 1 / 2], POLICY[1], [1 / 4, 1 / 4, 1 / 2]])
    teacher = TableModel([[1 / 2, 1 / 4, 1 / 4], POLICY[1], [1 / 2, 1 / 4, 1 / 4]])
    chosen, rejected = token_batch(([0, 2, 2], 1)), token_batch(([0, 1], 1))
    assert value(dpo(student, teacher, chosen, rejected, 1.0)) == pytest.approx(
        2 * math.log(5 / 4), abs=1e-6
    )


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_dpo_starts_at_two_ln_two_over_beta(beta: float) -> None:
    loss = dpo(policy(), policy(), REFUSAL, token_batch(([0, 1], 1)), beta)
    assert value(loss) == pytest.approx(2 / beta * LN2, rel=1e-6)


def test_pdu_flatness_by_hand() -> None:
    """Logits (0, 3, 0): max 3, mean 1, (3 − 1)² = 4. (1, 1, 1): 0. Mean 2; a shift of all logits
    of a row changes nothing.
    """
    logits = torch.tensor([[0.0, 3.0, 0.0], [1.0, 1.0, 1.0]])
    assert value(flatness(logits)) == pytest.approx(2.0)
    assert value(flatness(logits + torch.tensor([[5.0], [-7.0]]))) == pytest.approx(2.0)


# --- what no loss may do ------------------------------------------------------------------------

LOSSES: dict[str, Any] = {
    "kl_min": kl_min,
    "simnpo": simnpo,
    "undial": undial,
    "wga": wga,
    "satimp": satimp,
    "ceu": ceu,
}


@pytest.mark.parametrize("name", LOSSES)
def test_prompt_and_padding_do_not_count(name: str) -> None:
    """The same answer behind a longer prompt that ends in the same word, and with more padding."""
    short, long = token_batch(([0, 1, 1], 1)), token_batch(([2, 1, 0, 1, 1], 3), width=11)
    kept, longer = token_batch(([0, 2], 1)), token_batch(([1, 2, 0, 2], 3), width=9)
    loss = LOSSES[name]
    pair = (policy(), reference())
    assert value(loss(set_batches(forget=long, retain=longer), *pair)) == pytest.approx(
        value(loss(set_batches(forget=short, retain=kept), *pair)), abs=1e-6
    )


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"ceu"}))
def test_weight_zero_reads_no_retain_set(name: str) -> None:
    loss = LOSSES[name](set_batches(forget=FORGET), policy(), reference(), alpha=0.0)
    assert math.isfinite(value(loss))


@pytest.mark.parametrize("name", LOSSES)
def test_one_step_makes_the_forget_answer_less_likely(name: str) -> None:
    student = policy()
    before = value(nll_mean(student, FORGET))
    LOSSES[name](sets(), student, reference()).backward()
    with torch.no_grad():
        student.logits -= 0.1 * student.logits.grad
    assert value(nll_mean(student, FORGET)) > before
