"""Which rows `FrameSchema.conform` and the scaler would refuse, told in a few microseconds."""

from collections.abc import Callable, Mapping
from typing import Any

from lodestar.schema import Column, FrameSchema
from lodestar.serving.plan.encoding import Encoder
from lodestar.serving.scoring import Row, RowRefusal

__all__ = ["RowCheck"]

# Whole numbers up to here are all exact as float64; Arrow refuses to cast larger ones.
EXACT = 2**53
WHOLE = range(-(2**63), 2**63)
DAYS = range(-(2**31), 2**31)
LARGEST = float.fromhex("0x1.fffffffffffffp+1023")


class RowCheck:
    """Compares rows with what training saw.

    The usual values take one comparison each; only a row with any other one is looked at closely.
    """

    def __init__(self, schema: FrameSchema, encoder: Encoder | None = None) -> None:
        self._columns = schema.columns
        self._encoder = encoder
        limits = encoder.limits() if encoder else {}
        self._usual = [
            (at, _TYPES[column.type], _usually(column, limits), column.nullable)
            for at, column in enumerate(schema.columns)
        ]

    def refusal(self, row: Row) -> RowRefusal | None:
        """What would be refused in a row, and why; None where nothing is."""
        for at, kind, fits, nullable in self._usual:
            value = row[at]
            if value is None:
                if not nullable:
                    return self._closely(row)
            elif type(value) is not kind or not fits(value):
                return self._closely(row)
        return None

    def _closely(self, row: Row) -> RowRefusal | None:
        for column, value in zip(self._columns, row, strict=True):
            if value is None:
                reason = "" if column.nullable else "is null, and training saw no null"
            else:
                reason = _REASONS[column.type](value, column)
            if reason:
                return RowRefusal(column.name, reason)
        name = self._encoder.overflow(row) if self._encoder else None
        return RowRefusal(name, "is too large to be scaled") if name else None


def _usually(column: Column, limits: Mapping[str, float]) -> Callable[[Any], bool]:
    """A quick test of values of the column's own type; what it denies may still be fine."""
    if column.type == "string":
        return str.isascii
    if column.type == "bool":
        return (False, True).__contains__
    limit = limits.get(column.name, LARGEST)
    if column.type == "float":
        return lambda value: -limit <= value <= limit
    if column.type == "date":
        return DAYS.__contains__
    whole = int(min(limit, WHOLE[-1]))
    return range(-whole, whole + 1).__contains__


def _of_float(value: Any, column: Column) -> str:  # noqa: ANN401 -- a row's plain value
    if isinstance(value, int):
        return "" if abs(value) <= EXACT else "is a whole number too large to be exact as float"
    if not isinstance(value, float):
        return "is no number"
    if value != value:  # noqa: PLR0124 -- NaN
        return "" if column.nullable else "is NaN, and training saw none"
    return "is infinite" if abs(value) > LARGEST else ""


def _of_int(value: Any, column: Column) -> str:  # noqa: ANN401 -- a row's plain value
    del column
    if isinstance(value, float):
        # 2.0**63 is the first float that is no 64-bit number.
        inside = value.is_integer() and -(2.0**63) <= value < 2.0**63
        return "" if inside else "is not a whole number of 64 bits"
    if not isinstance(value, int):
        return "is no number"
    return "" if value in WHOLE else "is not a whole number of 64 bits"


def _of_time(value: Any, column: Column) -> str:  # noqa: ANN401 -- a row's plain value
    allowed = DAYS if column.type == "date" else WHOLE
    return "" if type(value) is int and value in allowed else f"is no {column.type}"


def _of_bool(value: Any, column: Column) -> str:  # noqa: ANN401 -- a row's plain value
    del column
    return "" if isinstance(value, bool) else "is neither true nor false"


def _of_text(value: Any, column: Column) -> str:  # noqa: ANN401 -- a row's plain value
    del column
    if not isinstance(value, str):
        return "is no text"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "is text that is no Unicode"
    return ""


_REASONS: dict[str, Callable[[Any, Column], str]] = {
    "float": _of_float,
    "int": _of_int,
    "bool": _of_bool,
    "string": _of_text,
    "date": _of_time,
    "timestamp": _of_time,
}
_TYPES: dict[str, type] = {
    "float": float,
    "int": int,
    "bool": bool,
    "string": str,
    "date": int,
    "timestamp": int,
}
