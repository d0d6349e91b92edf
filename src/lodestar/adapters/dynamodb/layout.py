"""How features lie in DynamoDB: a table per namespace, an item per entity, an attribute per value.

    lodestar.user_demographics
    {"@entity": {"S": "user_000017"}, "@event": {"N": "1738281600000000"},
     "@created": {"N": "1738281660000000"}, "age": {"N": "34"}, "ltv": {"S": "0.1"}, …}

Each type is kept as what holds it exactly: `int` and `timestamp` (µs since 1970, UTC) as numbers, which
have 38 digits; `bool` as a boolean, `string` as text, null as null. A `float` is the shortest text that
reads back as the same 64 bits: DynamoDB's numbers are decimal, end at 1E126 and know no NaN, infinity
or -0. The entity is its text of `entities`; the watermark stands in the namespace's own table, under a
name that no entity has.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Protocol

from lodestar.adapters.dynamodb.calls import Item
from lodestar.adapters.online.entities import entity_text
from lodestar.adapters.online.rows import EVENT, Entity, Parsers, Version
from lodestar.errors import DataError, UsageError
from lodestar.settings.features import FeatureView

__all__ = ["ItemLayout", "TypedLayout", "condition", "expiry", "number", "require_size", "text"]

ENTITY, EVENT_TIME, CREATED, MARK = "@entity", "@event", "@created", "@watermark"
WATERMARK = "%watermark"  # no entity's text: a "%" stands alone or before 25, 3A, 7B or 7D
LEAST, MOST = -(2**63), 2**63 - 1
MOST_BYTES = 400 * 1024  # of an item, its attributes' names included
MOST_KEY_BYTES = 2048
SHORTEST_NAME, LONGEST_NAME = 3, 255  # of a table
MICROS = 1_000_000
MICROSECOND = timedelta(microseconds=1)


class ItemLayout(Protocol):
    """Where rows stand and how items become values; `key` is the attribute that keys the table."""

    key: str
    parsers: Parsers
    watermark_key: str
    watermark: str

    def table(self, namespace: str) -> str:
        """The name of a namespace's table."""
        ...

    def name_of(self, view: FeatureView) -> Callable[[Entity], str]:
        """Makes the keys of one namespace's entities."""
        ...

    def projection(self, features: Sequence[str]) -> dict[str, Any]:
        """What of an item is asked for: its key, its times and these features."""
        ...

    def stored(self, features: Sequence[str], item: Item) -> list[Any]:
        """Its event time and these features, as `parsers` read them; None for what is not there."""
        ...

    def item(self, view: FeatureView, row: Version, name: str) -> Item:
        """A version as it is written."""
        ...

    def times(self, item: Item) -> tuple[int, int | None]:
        """When a version happened and when it was created, in µs."""
        ...

    def unless_newer(self, row: Version) -> dict[str, Any]:
        """The condition that what is there may be replaced by this version."""
        ...


class TypedLayout:
    """The direct adapter's own layout; `expires` is the attribute for the end of a version's ttl."""

    key = ENTITY
    watermark_key = WATERMARK
    watermark = MARK

    def __init__(self, prefix: str, expires: str | None = None) -> None:
        self._prefix = prefix
        self._expires = expires
        self.parsers: Parsers = PARSERS

    def table(self, namespace: str) -> str:
        """The name of a namespace's table.

        Raises:
            UsageError: DynamoDB takes no such name.
        """
        name = f"{self._prefix}{namespace}"
        if not SHORTEST_NAME <= len(name) <= LONGEST_NAME:
            raise UsageError(
                f"a DynamoDB table cannot be called {name!r}: its name has 3 to 255 characters",
                hint="see feature_store.dynamodb.table_prefix",
            )
        return name

    def name_of(self, view: FeatureView) -> Callable[[Entity], str]:
        """An entity's text, whatever the namespace."""
        del view
        return entity_text

    def projection(self, features: Sequence[str]) -> dict[str, Any]:
        """Attributes by numbers, as a name may be one of DynamoDB's words."""
        names = (ENTITY, EVENT_TIME, CREATED, *features)
        places = {f"#{at}": name for at, name in enumerate(names)}
        return {"ProjectionExpression": ", ".join(places), "ExpressionAttributeNames": places}

    def stored(self, features: Sequence[str], item: Item) -> list[Any]:
        """Attributes as they are."""
        return [item.get(EVENT_TIME), *[item.get(name) for name in features]]

    def item(self, view: FeatureView, row: Version, name: str) -> Item:
        """All attributes of a version."""
        made: dict[str, Mapping[str, Any]] = {ENTITY: text(name), EVENT_TIME: number(row.event)}
        if row.created is not None:
            made[CREATED] = number(row.created)
        made |= expiry(view, row, self._expires)
        for (feature, declared), value in zip(view.features.items(), row.values, strict=True):
            made[feature] = {"NULL": True} if value is None else WRITERS[declared.type](value)
        return made

    def times(self, item: Item) -> tuple[int, int | None]:
        """When a version happened and when it was created."""
        created = item.get(CREATED)
        return PARSERS[EVENT](item[EVENT_TIME]), None if created is None else _whole(created["N"])

    def unless_newer(self, row: Version) -> dict[str, Any]:
        """Of equal event times the last created stays."""
        if row.created is None:
            return condition(ENTITY, EVENT_TIME, None, number(row.event), None)
        return condition(ENTITY, EVENT_TIME, CREATED, number(row.event), number(row.created))


def condition(
    key: str,
    event: str,
    created: str | None,
    at: Mapping[str, Any],
    arrived: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Nothing is there, or an older version, or one of the same event time that was created no later."""
    names = {"#k": key, "#e": event}
    values = {":e": at}
    if created is None or arrived is None:
        words = "attribute_not_exists(#k) OR #e <= :e"
    else:
        names["#c"], values[":c"] = created, arrived
        equal = "#e = :e AND (attribute_not_exists(#c) OR #c <= :c)"
        words = f"attribute_not_exists(#k) OR #e < :e OR ({equal})"
    return {
        "ConditionExpression": words,
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
    }


def expiry(view: FeatureView, row: Version, attribute: str | None) -> dict[str, Mapping[str, Any]]:
    """The attribute by which DynamoDB deletes a version in the second after its ttl."""
    if attribute is None or view.ttl is None:
        return {}
    ends = row.event + view.ttl // MICROSECOND
    return {attribute: number(ends // MICROS + 1)}


def text(value: str) -> Mapping[str, Any]:
    """An attribute of text."""
    return {"S": value}


def number(value: int) -> Mapping[str, Any]:
    """An attribute that is a whole number."""
    return {"N": str(value)}


def require_size(view: FeatureView, name: str, item: Item) -> None:
    """See that DynamoDB can keep an item.

    Raises:
        DataError: its key or all of it is too large.
    """
    length = len(name.encode())
    if length > MOST_KEY_BYTES:
        raise DataError(
            f"{view.namespace}: an entity's key has {length:,} bytes, and DynamoDB takes 2,048; it "
            f"begins with {name[:40]!r}"
        )
    sizes = {attribute: _size(attribute, value) for attribute, value in item.items()}
    if sum(sizes.values()) > MOST_BYTES:
        largest = max(sizes, key=lambda attribute: sizes[attribute])
        raise DataError(
            f"{view.namespace}: the item of {name[:40]!r} has {sum(sizes.values()):,} bytes, and "
            f"DynamoDB takes 400 KB; the largest is {largest} with {sizes[largest]:,}",
            hint="keep large values elsewhere, or split the namespace",
        )


def _size(name: str, value: Mapping[str, Any]) -> int:
    """Bytes, as DynamoDB counts them."""
    ((kind, content),) = value.items()
    sizes: dict[str, Callable[[], int]] = {
        "S": lambda: len(content.encode()),
        "B": lambda: len(content),
        "N": lambda: len(content) // 2 + 2,
        "M": lambda: 3 + sum(1 + _size(key, inner) for key, inner in content.items()),
    }
    return len(name.encode()) + sizes.get(kind, lambda: 1)()


def _whole(value: str) -> int:
    if not value.lstrip("-").isdecimal():
        return _written_otherwise(value)
    found = int(value)
    if not LEAST <= found <= MOST:
        raise ValueError("more than 64 bits")
    return found


def _written_otherwise(value: str) -> int:
    """A whole number with an exponent or with zeros behind a point, which are DynamoDB's to choose."""
    try:
        exact = Decimal(value)
        if LEAST <= exact <= MOST and exact == exact.to_integral_value():
            return int(exact)
    except ArithmeticError as error:
        raise ValueError("no number") from error
    raise ValueError("no whole number of 64 bits")


def _parser(kind: str, convert: Callable[[Any], Any]) -> Callable[[Mapping[str, Any]], Any]:
    def parse(stored: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- of the feature's type
        if kind in stored:
            return convert(stored[kind])
        if "NULL" in stored:
            return None
        raise ValueError("of another type")

    return parse


def _moment(stored: Mapping[str, Any]) -> int:
    if "N" not in stored:
        raise ValueError("no event time")
    return _whole(stored["N"])


WRITERS: dict[str, Callable[[Any], Mapping[str, Any]]] = {
    "bool": lambda value: {"BOOL": value},
    "int": number,
    "float": lambda value: {"S": repr(value)},
    "string": text,
    "timestamp": number,
}
PARSERS: dict[str, Callable[[Any], Any]] = {
    EVENT: _moment,
    "bool": _parser("BOOL", lambda value: value),
    "int": _parser("N", _whole),
    "float": _parser("S", float),
    "string": _parser("S", lambda value: value),
    "timestamp": _parser("N", _whole),
}
