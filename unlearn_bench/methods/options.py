"""A method's options, read from its signature: what may be set, of which type, in which range."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo

from unlearn_bench.errors import UnknownNameError, UsageError
from unlearn_bench.registry import Card, load_function
from unlearn_bench.training.options import Training

PLAIN_TYPES = {
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "number": "a number",
    "string": "text",
}
BOUNDS = {  # of JSON schema, lower before upper
    "minimum": "at least",
    "exclusiveMinimum": "greater than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}


def resolve_options(card: Card, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of the method, JSON-able: `given` checked, the rest at their defaults.

    The training loop's options are among them for every method that uses it. Raises
    UnknownNameError with near matches for an unknown option, UsageError with the allowed values for
    one of the wrong type or out of range.
    """
    model = options_model(card)
    for name in given:
        if name not in model.model_fields:
            raise UnknownNameError(f"option of {card.name}", name, model.model_fields)
    try:
        return model(**given).model_dump(mode="json")
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        words = allowed_values(model.model_fields[name])
        if first["type"] == "finite_number":
            words = words.replace("number", "finite number", 1)
        why = f"must be {words}" if words else first["msg"]
        raise UsageError(
            f"{card.name}.{name}: {why}, got {given.get(name, first['input'])!r}",
            next_step=f"choose another value with --set {card.name}.{name}=VALUE",
        ) from error


def split_options(card: Card, options: Mapping[str, Any]) -> tuple[dict[str, Any], Training | None]:
    """The keyword arguments of the method's function, as typed values, and the loop's options.

    options: as given or as resolved. None for a method that does not use the shared loop.
    """
    values = dict(options_model(card)(**options))
    if not uses_loop(card, load_function(card)):
        return values, None
    training = {name: values.pop(name) for name in Training.model_fields}
    return values, Training(**training)


def own_defaults(card: Card) -> dict[str, Any]:
    """The method's own options, without the training loop's, at their defaults."""
    return {name: field.default for name, (_, field) in _own_fields(card).items()}


def allowed_values(field: FieldInfo) -> str:
    """What an option may be, in words: "a number from 0 to 1". "" for a type without plain words.

    JSON schema knows no infinity, so "finite" is not among them.
    """
    return _in_words(TypeAdapter(field.rebuild_annotation()).json_schema())


def _in_words(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        choices = [_in_words(choice) for choice in schema["anyOf"]]
        return " or ".join(choices) if all(choices) else ""
    if "enum" in schema or "const" in schema:
        values = [repr(value) for value in schema.get("enum", [schema.get("const")])]
        return " or ".join(filter(None, (", ".join(values[:-1]), values[-1])))
    words = PLAIN_TYPES.get(schema.get("type", ""), "")
    return f"{words} {_range(schema)}".rstrip() if words else ""


def _range(schema: Mapping[str, Any]) -> str:
    limits = {key: f"{schema[key]:g}" for key in BOUNDS if key in schema}
    if limits.keys() == {"minimum", "maximum"}:
        return f"from {limits['minimum']} to {limits['maximum']}"
    words = " and ".join(f"{BOUNDS[key]} {value}" for key, value in limits.items())
    return f"of {words}" if words.startswith("at") else words


def uses_loop(card: Card, function: Callable[..., Any]) -> bool:
    """Whether the loop's options are options of the method: losses, and edits that take them."""
    return card.facts.get("kind") == "loss" or "training" in inspect.signature(function).parameters


def options_model(card: Card) -> type[BaseModel]:
    """A pydantic model of the method's keyword-only arguments, with the loop's options if used.

    The decorator's `training` replaces the loop's own defaults. Raises UsageError for a method
    whose signature cannot serve: an option without a default or type, or one named like the loop's.
    """
    fields = _own_fields(card)
    if uses_loop(card, load_function(card)):
        fields |= _loop_fields(card, fields)
    elif card.facts.get("training"):
        raise _unfit(card, "it sets `training` and does not use the shared loop")
    return create_model(
        f"{card.name}_options", __config__=ConfigDict(extra="forbid", frozen=True), **fields
    )


def _own_fields(card: Card) -> dict[str, Any]:
    """(type, pydantic field) of each keyword-only argument; errors as in `options_model`."""
    function = load_function(card)
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        if parameter.default is inspect.Parameter.empty or name not in hints:
            raise _unfit(card, f"its option {name!r} needs a type and a default")
        fields[name] = (hints[name], Field(default=parameter.default, validate_default=True))
    return fields


def _loop_fields(card: Card, own: Mapping[str, Any]) -> dict[str, Any]:
    defaults = card.facts.get("training", {})
    if taken := own.keys() & Training.model_fields.keys():
        raise _unfit(card, f"its option {min(taken)!r} is also one of the training loop's")
    if unknown := defaults.keys() - Training.model_fields.keys():
        near = difflib.get_close_matches(min(unknown), Training.model_fields, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise _unfit(card, f"`training` sets the unknown option {min(unknown)!r}{hint}")
    return {
        name: (
            field.rebuild_annotation(),
            Field(default=defaults.get(name, field.default), validate_default=True),
        )
        for name, field in Training.model_fields.items()
    }


def _unfit(card: Card, why: str) -> UsageError:
    return UsageError(f"method {card.name!r} cannot be used: {why}", where=str(card.file))
