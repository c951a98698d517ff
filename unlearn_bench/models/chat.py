"""The template through which a model is asked what is a conversation: it comes with the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unlearn_bench.errors import CorruptDataError, UnsafeArtefactError
from unlearn_bench.models.safety import read_json

TEMPLATE_FILE = "chat_template.jinja"
QUESTION = "What do bees make of nectar?"
CONVERSATION = [{"role": "user", "content": QUESTION}]


def read_template(folder: Path) -> str:
    """The chat template's text, "" for a model without one; several named ones as JSON.

    Raises CorruptDataError for files that are not UTF-8, or not what a tokenizer writes.
    """
    file, config = folder / TEMPLATE_FILE, folder / "tokenizer_config.json"
    try:
        if file.is_file():
            template: object = file.read_text(encoding="utf-8")
        else:
            template = read_json(config).get("chat_template") if config.is_file() else None
    except (UnicodeDecodeError, AttributeError) as error:
        raise CorruptDataError(
            f"the chat template cannot be read: {error}",
            where=str(folder),
            next_step="fetch or write the model's tokenizer files again",
        ) from error
    if not template:
        return ""
    return template if isinstance(template, str) else json.dumps(template, sort_keys=True)


def refuse_hostile_template(folder: Path) -> None:
    """Raise UnsafeArtefactError for a template that reaches for Python's insides.

    It could not have: transformers renders it in Jinja's sandbox. What else may be wrong with it
    matters only where a task asks in conversation, which `require_shown` is for.
    """
    template = read_template(folder)
    if not template:
        return
    from jinja2.exceptions import SecurityError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        render_jinja_template([CONVERSATION], chat_template=template, add_generation_prompt=True)
    except SecurityError as error:
        raise UnsafeArtefactError(
            f"the chat template asks for Python's insides: {error}",
            where=str(folder),
            next_step="use a model whose template only arranges messages",
        ) from error
    except Exception:  # noqa: S110 - one that wants other messages or names is no attack
        pass


def require_shown(tokenizer: Any) -> None:
    """Raise CorruptDataError unless the tokenizer's template shows the model what a user says.

    All questions would be the same one, or none.
    """
    try:
        text = tokenizer.apply_chat_template(
            CONVERSATION, tokenize=False, add_generation_prompt=True
        )
        why = "" if QUESTION in text else f"of a question it makes {text[:60]!r}"
    except Exception as error:  # a template may raise anything
        why = f"{type(error).__name__}: {error}"
    if why:
        raise CorruptDataError(
            f"the model's chat template does not show it what is asked: {why}",
            next_step="mend chat_template.jinja, or leave out tasks that ask in conversation",
        )
