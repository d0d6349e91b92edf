"""What every section of a recipe or config is built from."""

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

__all__ = ["EnvText", "Name", "Names", "Section", "Whole", "as_tuple"]


class EnvText(str):
    """A value that came from an environment variable: text, unless its field is numeric."""

    __slots__ = ()


class Section(BaseModel):
    """Frozen, without unknown keys, and nothing coerced from one type to another."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def as_tuple(value: object) -> object:
    """Take YAML's list where the field is a tuple."""
    return tuple(value) if isinstance(value, list) else value


def _whole_number(value: object) -> object:
    if not isinstance(value, EnvText):
        return value
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", value):
        raise ValueError("must be a whole number, and the environment variable's text is none")
    return int(value)


Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], BeforeValidator(as_tuple)]
Whole = Annotated[int, BeforeValidator(_whole_number)]
