"""Each loss is broken in plausible ways, and its tests by hand must notice every one.

A mutation is a piece of the loss's source and what stands in its place: a lost sign, a sum for a
mean, a divergence turned round, prompt tokens inside. The mutated file is executed, its functions
take the place of the real ones in the test module, and at least one of the tests listed for it must
fail. A test that passes for any formula shows here.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from unlearn_bench.data.files import tasks_folder

METHODS = "unlearn_bench.methods"
LIKELIHOOD = "unlearn_bench.training.likelihood"


@dataclass(frozen=True)
class Mutation:
    """`old` becomes `new` in the source of `module`; `tests` are test modules beside this file."""

    module: str
    old: str
    new: str
    tests: str = "test_forget_losses"

    def __str__(self) -> str:
        return f"{self.module.rsplit('.', 1)[-1]}: {self.old} -> {self.new}"


def of(name: str, *changes: tuple[str, str], tests: str = "test_forget_losses") -> list[Mutation]:
    return [Mutation(f"{METHODS}.{name}", old, new, tests) for old, new in changes]


MUTATIONS = [
    *of("grad_diff",
        ("-nll_mean(policy, batch.forget)", "nll_mean(policy, batch.forget)"),
        ("alpha * nll_mean(policy, batch.retain)", "-alpha * nll_mean(policy, batch.retain)"),
        ("+ alpha * nll_mean", "+ nll_mean"),
        ("nll_mean(policy, batch.retain)", "nll_mean(policy, batch.forget)"),
        tests="test_losses"),
    *of("npo",
        ("- before  #", "+ before  #"),
        ("nll_sum(policy, batch.forget)", "nll_mean(policy, batch.forget)"),
        ("nll_sum(reference, batch.forget)", "nll_sum(policy, batch.forget)"),
        ("-2 / beta *", "2 / beta *"),
        ("-2 / beta *", "-1 / beta *"),
        ("logsigmoid(beta * raised).mean()", "logsigmoid(beta * raised).sum()"),
        ("logsigmoid(beta * raised)", "logsigmoid(raised)"),
        tests="test_losses"),
    *of("llm_surgery",
        ("loss - forget_weight", "loss + forget_weight"),
        ("loss - old_weight", "loss + old_weight"),
        ("loss + update_weight", "loss - update_weight"),
        ("loss + retain_weight", "loss - retain_weight"),
        ("keep(reference, policy, batch.retain)", "keep(policy, reference, batch.retain)"),
        tests="test_losses"),
    *of("kl_min",
        ("-nll_mean(policy, batch.forget)", "nll_mean(policy, batch.forget)"),
        ("kl_to_reference(reference, policy, batch.retain)",
         "kl_to_reference(policy, reference, batch.retain)"),
        ("kl_to_reference(reference, policy, batch.retain)",
         "kl_to_reference(reference, policy, batch.forget)"),
        ("loss + alpha", "loss - alpha")),
    *of("simnpo",
        (" / answer_lengths(batch.forget)", ""),
        ("(per_token - delta)", "(per_token + delta)"),
        ("-gamma * 2", "gamma * 2"),
        ("logsigmoid(beta *", "logsigmoid(-beta *"),
        ("nll_sum(policy, batch.forget) / answer_lengths(batch.forget)",
         "nll_mean(policy, batch.forget)")),
    *of("undial",
        ("-= beta", "+= beta"),
        ("[torch.arange(len(targets), device=wanted.device), targets] -=", "[:, 0] -="),
        ("answer_logits(reference, batch.forget)", "answer_logits(policy, batch.forget)"),
        ("soft_cross_entropy(wanted, answer_logits(policy, batch.forget))",
         "soft_cross_entropy(answer_logits(policy, batch.forget), wanted)")),
    *of("wga",
        (".detach()", ""),
        ("* log_probs).mean()", "* log_probs).sum()"),
        ("* log_probs).mean()", "* -log_probs).mean()"),
        (".mul(beta)", ""),
        ("loss + alpha", "loss - alpha")),
    *of("satimp",
        (".detach()", ""),
        ("(1 - known)", "known"),
        ("known**saturation * (1 - known) ** importance",
         "known**importance * (1 - known) ** saturation"),
        ("* log_probs).mean()", "* log_probs).sum()"),
        ("gamma * (known", "-gamma * (known")),
    *of("ceu",
        ("lowest), logits)", "lowest), logits.detach())"),
        ("scatter(1, targets[:, None], lowest)", "scatter(1, targets[:, None], 0.0)"),
        ("place >= skip_first", "place > skip_first")),
    *of("pdu",
        (".square()", ".abs()"),
        ("wide.amax(dim=1) - wide.mean(dim=1)", "wide.amax(dim=1) + wide.mean(dim=1)"),
        ("wide.mean(dim=1)).square().mean()", "wide.mean(dim=1)).square().sum()"),
        ("wide.amax(dim=1) - wide.mean(dim=1)", "wide.amax(dim=1) - wide.amin(dim=1)")),
    *of("preference",
        ("nll_sum(reference, chosen) - nll_sum(reference, rejected)",
         "nll_sum(policy, chosen) - nll_sum(policy, rejected)"),
        ("before - (nll_sum(policy, chosen) - nll_sum(policy, rejected))",
         "before + (nll_sum(policy, chosen) - nll_sum(policy, rejected))"),
        ("before - (nll_sum(policy, chosen) - nll_sum(policy, rejected))",
         "nll_mean(policy, rejected) - nll_mean(policy, chosen)"),
        ("-2 / beta *", "-1 / beta *"),
        ("logsigmoid(beta * preferred)", "logsigmoid(preferred)")),
    *of("rmu",
        (".sum(dim=-1).mean()", ".mean()"),
        ("gap.square()", "gap.abs()"),
        ("states.float() - goal", "states.float() + goal"),
        ("torch.rand(size", "torch.randn(size"),
        ("drawn / drawn.norm()", "drawn"),
        tests="test_rmu"),
    *of("task_vector",
        ("old.float() - scale * vector", "old.float() + scale * vector"),
        ("old.float() - scale * vector", "weight.float() - scale * vector"),
        ("if not weight.is_floating_point() or scale == 0:", "if scale == 0:"),
        ("torch.where(vector == 0, old.float(), old.float() - scale * vector)",
         "old.float() - scale * vector"),
        tests="test_task_vector"),
    *of("selective_pruning",
        (".abs()\n", "\n"),
        ("dim=0 if name", "dim=1 if name"),
        ("total / tokens", "total"),
        ("neurons[\"down_proj\"][:, here] = 0", "neurons[\"down_proj\"][here] = 0"),
        ("weight.float() * weight.grad.float()", "weight.float()"),
        tests="test_selective_pruning"),
    *of("closed_form",
        ("value - weight @ key", "value"),
        ("return solved.T.float()\n\n\ndef rank_one", "return keys\n\n\ndef rank_one"),
        ("/ (direction @ key)", "/ (key @ key)"),
        ("weight * moment.double() + wide.T @ wide", "moment.double() + weight * wide.T @ wide"),
        ("moment.diagonal().mean()", "moment.mean()"),
        ("return sums / sizes", "return sums + 0 * sizes"),
        tests="test_closed_form"),
    *of("eul",
        ("[x @ (layer - mean)", "[x @ layer"),
        ("mean + correction.float()", "mean - correction.float()"),
        ("mean + correction.float()", "correction.float()"),
        ("mean + correction.float()", "mean"),
        tests="test_eul"),
]  # fmt: skip

# Faults of the shared likelihoods that every loss would inherit.
SHARED = [
    Mutation(LIKELIHOOD, "-answer_log_probs(model, batch).mean()",
             "-answer_log_probs(model, batch).sum()"),
    Mutation(LIKELIHOOD, "return shifted[shifted != IGNORE]",
             "return batch.input_ids[:, :-1][shifted != IGNORE]"),
    Mutation(LIKELIHOOD, "(batch.labels[:, 1:] != IGNORE).nonzero(as_tuple=True)",
             "(batch.labels[:, 1:] > -200).nonzero(as_tuple=True)"),
    Mutation(LIKELIHOOD, "token_divergences(expected, answer_logits(policy, batch)).mean()",
             "token_divergences(expected, answer_logits(policy, batch)).sum()"),
    Mutation(LIKELIHOOD, "token_divergences(expected, found) + token_entropies(expected)",
             "token_divergences(expected, found)"),
    Mutation(LIKELIHOOD, "index_add(0, answer_rows(batch), -log_probs)",
             "index_add(0, answer_rows(batch), log_probs)", "test_losses"),
]  # fmt: skip


# Formulas of tasks, whose files lie beside their YAML: lm-eval imports them, and tests by name.
TASKS = [
    Mutation("fur", "float(nearer > 0)", "1.0", "test_fur_metrics"),
    Mutation("fur", "float(nearer > 0)", "float(nearer >= 0)", "test_fur_metrics"),
    Mutation("fur", "mean_log_prob(new) - mean_log_prob(old)",
             "mean_log_prob(old) - mean_log_prob(new)", "test_fur_metrics"),
    Mutation("fur", "scores[0] > max(scores[1:])", "scores[0] >= max(scores[1:])",
             "test_fur_metrics"),
    Mutation("fur", "float(option.token_log_probs.mean())", "float(option.token_log_probs.sum())",
             "test_fur_metrics"),
    Mutation("fur", "float(greedy.mean())", "0.75", "test_fur_metrics"),
    Mutation("fur", "1.0 - prefix / len(greedy)", "prefix / len(greedy)", "test_fur_metrics"),
    Mutation("fur", '["rougeL"].recall', '["rougeL"].precision', "test_fur_metrics"),
    Mutation("membership", 'compressed_bytes(document["text"])',
             'compressed_bytes(document["prompt"] + document["text"])', "test_membership"),
    Mutation("membership", "mean / compressed_bytes", "mean * compressed_bytes",
             "test_membership"),
    Mutation("membership", "np.sort(values)[:count]", "np.sort(values)[-count:]",
             "test_membership"),
    Mutation("membership", "max(1, int(K * len(values)))", "int(K * len(values))",
             "test_membership"),
    Mutation("membership", "(logs - means) / np.where", "(logs + means) / np.where",
             "test_membership"),
]  # fmt: skip
ACCESS = {"fur": "fur", "membership": "attack"}  # by task the tests' function that takes a name


def mutated(mutation: Mutation) -> types.ModuleType:
    """A new module made of the changed source."""
    source = inspect.getsource(importlib.import_module(mutation.module))
    assert mutation.old in source, "the mutation no longer fits the source"
    module = types.ModuleType(mutation.module)
    exec(compile(source.replace(mutation.old, mutation.new, 1), mutation.module, "exec"),
         module.__dict__)  # fmt: skip
    return module


def cases_by_hand(module: types.ModuleType) -> Iterator[Callable[[], Any]]:
    """Every test of the module that needs no fixture, once per parameter."""
    for name, function in list(vars(module).items()):
        if not name.startswith("test_"):
            continue
        cases: list[dict[str, Any]] = [{}]
        for mark in getattr(function, "pytestmark", []):
            if mark.name == "parametrize":
                names = [part.strip() for part in mark.args[0].split(",")] if isinstance(
                    mark.args[0], str) else list(mark.args[0])  # fmt: skip
                values = [v if len(names) > 1 else (v,) for v in mark.args[1]]
                cases = [case | dict(zip(names, v, strict=True)) for case in cases for v in values]
        for case in cases:
            if set(inspect.signature(function).parameters) <= set(case):
                yield lambda function=function, case=case: function(**case)


@pytest.mark.parametrize("mutation", [*MUTATIONS, *SHARED], ids=str)
def test_some_test_by_hand_notices(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = mutated(mutation)
    tests = importlib.import_module(mutation.tests)
    original = importlib.import_module(mutation.module)
    replaced = {
        name: value
        for name, value in vars(changed).items()
        if isinstance(value, types.FunctionType) and value.__module__ == mutation.module
    }
    for user in (tests, *users_of(original, tests)):
        for name, value in replaced.items():
            if getattr(user, name, None) is vars(original).get(name):
                monkeypatch.setattr(user, name, value)
        for name in ("LOSSES",):
            if hasattr(user, name):
                table = {
                    key: replaced.get(key, value) for key, value in getattr(user, name).items()
                }
                monkeypatch.setattr(user, name, table)
    outcomes = []
    for test in cases_by_hand(tests):
        try:
            test()
            outcomes.append(True)
        except Exception:
            outcomes.append(False)
    assert outcomes, "no test without fixtures"
    assert not all(outcomes), "every test passed with the mutated formula"


@pytest.mark.parametrize("mutation", TASKS, ids=str)
def test_some_test_by_hand_notices_in_a_task(
    mutation: Mutation, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (tasks_folder() / mutation.module / f"{mutation.module}.py").read_text("utf-8")
    assert mutation.old in source, "the mutation no longer fits the source"
    changed = types.ModuleType(mutation.module)
    exec(source.replace(mutation.old, mutation.new, 1), changed.__dict__)
    tests = importlib.import_module(mutation.tests)
    monkeypatch.setattr(tests, ACCESS[mutation.module], changed.__dict__.__getitem__)
    for test in cases_by_hand(tests):
        try:
            test()
        except Exception:
            return
    pytest.fail("every test passed with the mutated formula")


def users_of(original: types.ModuleType, tests: types.ModuleType) -> list[types.ModuleType]:
    """Modules whose functions the test module holds: they import the mutated functions too."""
    names = {
        value.__module__
        for value in vars(tests).values()
        if isinstance(value, types.FunctionType) and value.__module__.startswith("unlearn_bench")
    }
    return [importlib.import_module(name) for name in sorted(names) if name != original.__name__]


def test_every_loss_has_three_mutations() -> None:
    """Every built-in method that trains on a loss of its own, and the shared algebra."""
    counts: dict[str, int] = {}
    for mutation in MUTATIONS:
        counts[mutation.module] = counts.get(mutation.module, 0) + 1
    assert min(counts.values()) >= 3
    from unlearn_bench.registry import PACKAGE, list_cards

    losses = {name for name, card in list_cards("method").items()
              if card.facts["kind"] == "loss" and PACKAGE in card.file.parents}  # fmt: skip
    assert losses <= {module.removeprefix(f"{METHODS}.") for module in counts}


def test_the_source_is_parsed_as_it_is_shipped() -> None:
    """The mutations are of code, not of docstrings: each changes the syntax tree."""
    for mutation in [*MUTATIONS, *SHARED]:
        source = inspect.getsource(importlib.import_module(mutation.module))
        changed = source.replace(mutation.old, mutation.new, 1)
        assert ast.dump(ast.parse(source)) != ast.dump(ast.parse(changed)), str(mutation)
