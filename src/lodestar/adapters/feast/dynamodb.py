"""Feast's online store in DynamoDB, read and written as Feast lays it out but within a deadline.

Feast's own code takes keys that DynamoDB left unprocessed for entities that it does not know, replaces
newer versions by older ones, and asks for one namespace after the other. Feast reads what this writes,
and this reads what Feast writes. An item is

    {"entity_id": murmur3 of the entity key, "event_ts": "2025-03-30 12:00:00+00:00",
     "values": {feature: protobuf Value}}

and what is ours besides: `@created`, when the version was created. Event times are compared as text,
which is in their order as long as they are in UTC, as Feast materialises them.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import mmh3

from lodestar.adapters.dynamodb.calls import Item
from lodestar.adapters.dynamodb.layout import condition, expiry, number, text
from lodestar.adapters.dynamodb.store import ItemStore
from lodestar.adapters.feast.layout import PARSERS as BYTES
from lodestar.adapters.feast.layout import entity_key_writer, value_bytes
from lodestar.adapters.online.rows import EVENT, Entity, Parsers, Version
from lodestar.settings.dynamodb import DynamoDBStore
from lodestar.settings.features import FeatureView

__all__ = ["FeastDynamoDBStore", "FeastItems"]

ENTITY, EVENT_TIME, CREATED, VALUES = "entity_id", "event_ts", "@created", "values"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class FeastItems:
    """Feast's layout; `template` makes a table's name of {project} and {table_name}."""

    key = ENTITY
    watermark_key = "@watermark"  # no hash's text
    watermark = "@watermark"

    def __init__(self, template: str, project: str, expires: str | None = None) -> None:
        self._template = template
        self._project = project
        self._expires = expires
        self.parsers: Parsers = PARSERS

    def table(self, namespace: str) -> str:
        """The name of a view's table."""
        return self._template.format(project=self._project, table_name=namespace)

    def name_of(self, view: FeatureView) -> Callable[[Entity], str]:
        """Hashes of Feast's entity keys, which here hold no project."""
        write = entity_key_writer(view, "")
        return lambda entity: mmh3.hash_bytes(write(entity)).hex()

    def projection(self, features: Sequence[str]) -> dict[str, Any]:
        """Of the map of values only those that are asked for."""
        names = {"#k": ENTITY, "#e": EVENT_TIME, "#c": CREATED}
        words = [*names]
        if features:
            places = {f"#{at}": name for at, name in enumerate(features)}
            words += [f"#v.{place}" for place in places]
            names |= {"#v": VALUES, **places}
        return {"ProjectionExpression": ", ".join(words), "ExpressionAttributeNames": names}

    def stored(self, features: Sequence[str], item: Item) -> list[Any]:
        """Text of the event time, and protobufs."""
        values = item.get(VALUES, {}).get("M", {})
        return [item.get(EVENT_TIME), *[values.get(name) for name in features]]

    def item(self, view: FeatureView, row: Version, name: str) -> Item:
        """A version as Feast writes it, and when it was created."""
        values = {
            feature: {"B": value_bytes(declared.type, value)}
            for (feature, declared), value in zip(view.features.items(), row.values, strict=True)
        }
        made: dict[str, Mapping[str, Any]] = {
            ENTITY: text(name),
            EVENT_TIME: text(_moment_text(row.event)),
            VALUES: {"M": values},
        }
        if row.created is not None:
            made[CREATED] = number(row.created)
        return made | expiry(view, row, self._expires)

    def times(self, item: Item) -> tuple[int, int | None]:
        """When a version happened and when it was created."""
        created = item.get(CREATED)
        return PARSERS[EVENT](item[EVENT_TIME]), None if created is None else int(created["N"])

    def unless_newer(self, row: Version) -> dict[str, Any]:
        """Of equal event times the last created stays."""
        at = text(_moment_text(row.event))
        if row.created is None:
            return condition(ENTITY, EVENT_TIME, None, at, None)
        return condition(ENTITY, EVENT_TIME, CREATED, at, number(row.created))


class FeastDynamoDBStore(ItemStore):
    """One Feast project's features: all namespaces are asked for together."""

    def __init__(self, config: DynamoDBStore, template: str, project: str) -> None:
        super().__init__(config, FeastItems(template, project, config.tables.expires))


def _moment_text(micros: int) -> str:
    return str(EPOCH + timedelta(microseconds=micros))


def _moment(stored: Mapping[str, Any]) -> int:
    if "S" not in stored:
        raise ValueError("no event time")
    found = datetime.fromisoformat(stored["S"])
    return ((found if found.tzinfo else found.replace(tzinfo=UTC)) - EPOCH) // MICROSECOND


def _parser(kind: str) -> Callable[[Mapping[str, Any]], Any]:
    parse = BYTES[kind]

    def parsed(stored: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- of the feature's type
        if "B" not in stored:
            raise ValueError("no protobuf")
        return parse(stored["B"])

    return parsed


PARSERS: dict[str, Callable[[Any], Any]] = {
    EVENT: _moment,
    **{kind: _parser(kind) for kind in BYTES if kind != EVENT},
}
