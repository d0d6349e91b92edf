"""Words pydantic's findings as our problems: where in the file, what is wrong, what would be right."""

from collections.abc import Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from lodestar.errors import Problem, choices
from lodestar.settings.section import EnvText
from lodestar.settings.yaml_source import KeyPath, Source

__all__ = ["problems_of"]

# Tags of discriminated unions appear in pydantic's locations, but are no keys of the file.
_TAGS = {"range", "fixed", "built-in", "transformer", "[key]", "[log]", "[webhook]", "[email]"}
_KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}


def problems_of(error: ValidationError, section: type[BaseModel], source: Source) -> list[Problem]:
    """One problem for each finding, in the order of the section's fields."""
    return [_problem(finding, section, source) for finding in error.errors(include_url=False)]


def _problem(finding: Any, section: type[BaseModel], source: Source) -> Problem:  # noqa: ANN401 -- pydantic's dict
    path: KeyPath = tuple(part for part in finding["loc"] if part not in _TAGS)
    kind: str = finding["type"]
    context: dict[str, Any] = finding.get("ctx") or {}
    where = source.where(path)
    if kind == "extra_forbidden":
        known = _fields_at(section, path[:-1])
        return Problem(f"unknown key {path[-1]!r}", where, choices(str(path[-1]), known))
    if kind == "missing":
        return Problem(f"the key {path[-1]!r} is missing", where)
    if kind == "literal_error":
        plain = isinstance(finding["input"], str | int)
        # A variable's value is not repeated: it may be a secret in the wrong place.
        secret = isinstance(finding["input"], EnvText)
        given = repr(finding["input"]) if plain and not secret else "this"
        return Problem(f"{given} is none of the choices", where, f"valid: {context['expected']}")
    if kind in _KINDS:
        given = _worded(finding["input"])
        return Problem(f"must be {_KINDS[kind]}, not {given}", where)
    if kind == "string_pattern_mismatch":
        return Problem("is not of the form package.module.Class", where)
    message = str(finding["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return Problem(message, where)


def _worded(value: object) -> str:
    """Name a value's kind without repeating it: it may be a secret."""
    names = {bool: "true or false", int: "a number", float: "a number", dict: "a mapping"}
    if value is None:
        return "empty"
    return names.get(type(value), "a list" if isinstance(value, list | tuple) else "text")


def _fields_at(section: type[BaseModel], path: KeyPath) -> list[str]:
    """The keys that the model at this path knows."""
    models: list[type[BaseModel]] = [section]
    for part in path:
        if isinstance(part, int):
            continue
        deeper: list[type[BaseModel]] = []
        for model in models:
            if part in model.model_fields:
                deeper += _models_in(model.model_fields[part].annotation)
        models = deeper or models
    return sorted(
        {field.alias or name for model in models for name, field in model.model_fields.items()}
    )


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401 -- any annotation
    if get_origin(annotation) in (Union, UnionType, tuple, dict) or get_args(annotation):
        for argument in get_args(annotation):
            yield from _models_in(argument)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
