"""How features are laid out in Redis under readable keys, `namespace:feature:entity`, and in words.

    user_demographics:age:user_000017            34
    user_demographics:@event_time:user_000017    1738281600000000 1738281660000000
    user_demographics:@watermark                 1738281600000000 age:int … user_id:string

The entity is its text of `entities`. Numbers are written so that they read back exactly, bools as `true`
and `false`, timestamps as µs since 1970 (UTC), text as itself; nothing is null, and text that is empty
or begins with a backslash has one more in front. Behind the event time stands when the version was
created.
"""

from collections.abc import Callable, Sequence
from typing import Any

from lodestar.adapters.online.columns import ColumnParsers
from lodestar.adapters.online.rows import EVENT
from lodestar.settings.features import FeatureView

__all__ = [
    "COLUMN_PARSERS",
    "PARSERS",
    "WRITERS",
    "heads_of",
    "times_of",
    "watermark_key",
]

EVENT_TIME = "@event_time"  # no feature can be called so
WATERMARK = "@watermark"
LEAST, MOST = -(2**63), 2**63 - 1
SHORT = 18  # as many digits and signs fit 64 bits for sure
BACKSLASH = 0x5C


def heads_of(prefix: str, view: FeatureView, features: Sequence[str]) -> list[str]:
    """What the keys of an entity's event time and features begin with."""
    return [f"{prefix}{view.namespace}:{name}:" for name in (EVENT_TIME, *features)]


def watermark_key(prefix: str, view: FeatureView) -> str:
    """Where the namespace's watermark stands."""
    return f"{prefix}{view.namespace}:{WATERMARK}"


def times_of(value: bytes) -> tuple[int, int | None]:
    """When a version happened and when it was created, in µs."""
    event, _, created = value.partition(b" ")
    return int(event), int(created) if created else None


def _text(value: str) -> str:
    return f"\\{value}" if not value or value.startswith("\\") else value


def _untext(value: bytes) -> str:
    return (value[1:] if value.startswith(b"\\") else value).decode()


def _whole(value: bytes) -> int:
    number = int(value)
    if not LEAST <= number <= MOST:
        raise ValueError("more than 64 bits")
    return number


def _flag(value: bytes) -> bool:
    if value not in {b"true", b"false"}:
        raise ValueError("neither true nor false")
    return value == b"true"


WRITERS: dict[str, Callable[[Any], str]] = {
    "bool": lambda value: "true" if value else "false",
    "int": str,
    "float": repr,
    "string": _text,
    "timestamp": str,
}


def _or_null(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    return lambda value: parse(value) if value else None


PARSERS: dict[str, Callable[[bytes], Any]] = {
    EVENT: lambda value: int(value.partition(b" ")[0]),
    "bool": _or_null(_flag),
    "int": _or_null(_whole),
    "float": _or_null(float),
    "string": _or_null(_untext),
    "timestamp": _or_null(_whole),
}


def _whole_numbers(column: Sequence[bytes]) -> Sequence[int | None]:
    if max(map(len, column)) > SHORT:
        return [PARSERS["int"](value) for value in column]
    return [int(value) if value else None for value in column]


COLUMN_PARSERS: ColumnParsers = {
    EVENT: lambda column: [int(value.partition(b" ")[0]) for value in column],
    "int": _whole_numbers,
    "float": lambda column: [float(value) if value else None for value in column],
    "string": lambda column: [
        (value[1:] if value[0] == BACKSLASH else value).decode() if value else None
        for value in column
    ],
    "timestamp": _whole_numbers,
}
