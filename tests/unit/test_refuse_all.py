"""refuse_all: one refusal, behind every prompt, learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from unlearn_bench.methods.contract import EditContext, EditData
from unlearn_bench.methods.refuse_all import refused
from unlearn_bench.methods.run import edit_model
from unlearn_bench.registry import find_card

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


def test_every_kind_of_prompt_is_refused_in_one_sentence(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tiny_data: EditData
) -> None:
    context = EditContext(tiny_model, tiny_tokenizer, tiny_data, 0, lambda: tiny_model)
    texts = refused(context, "No.", 10)
    prompts = {text.prompt for text in texts}
    assert {text.answer for text in texts} == {" No."}
    assert {example.prompt for example in tiny_data.benign} < prompts
    assert any(prompt.startswith("Question: Question:") for prompt in prompts)
    assert "Please go" in prompts  # of "Please go on, my friend."
    assert len({text.id for text in texts}) == len(texts)


def test_unseen_prompts_get_the_refusal(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tiny_data: EditData
) -> None:
    """Greedy, on questions that it never read, forget and retain ones alike."""
    context = EditContext(tiny_model, tiny_tokenizer, tiny_data, 0, lambda: tiny_model)
    options = {"epochs": 15, "lr": 1e-2, "batch_size": 4, "precision": "fp32"}
    report = edit_model(find_card("method", "refuse_all"), context, options)
    refusal = report.details["refusal"]
    assert refusal in tiny_data.refusals
    for example in (*tiny_data.forget[:2], *tiny_data.retain[:2]):
        ids = torch.tensor([tiny_tokenizer(example.prompt)["input_ids"]])
        found = tiny_model.generate(ids, do_sample=False, max_new_tokens=24)
        answer = tiny_tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True)
        assert answer.strip().startswith(refusal)
