"""Feast's online store in Redis, read and written as Feast lays it out but within a deadline.

Feast's own code takes more than twice the time, waits for ever on a frozen Redis, drops a version of
the same event time that was created later, and compares before it writes without holding the two
together. Feast reads what this writes, and this reads what Feast writes.
"""

from collections.abc import Iterator, Sequence
from hashlib import sha1
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lodestar.adapters.feast.layout import (
    PARSERS,
    created_field,
    entity_key,
    event_field,
    feature_field,
    time_bytes,
    value_bytes,
)
from lodestar.adapters.online.rows import EVENT, Entity, Questions, Version
from lodestar.adapters.redis.connection import RedisConnection
from lodestar.adapters.redis.store import ROWS_AT_ONCE, RedisStore
from lodestar.interface.features import OnlineRows, SelectedFeatures
from lodestar.settings.features import FeatureView

if TYPE_CHECKING:
    from lodestar.adapters.redis.node import Words
    from lodestar.adapters.redis.reader import Layout
    from lodestar.adapters.redis.wire import Command

__all__ = ["FeastRedisStore"]

# Sets fields unless the version is no longer the one that was compared with.
REPLACE = """\
local there = redis.call('HMGET', KEYS[1], ARGV[1], ARGV[2])
if (there[1] or '') ~= ARGV[3] or (there[2] or '') ~= ARGV[4] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
return 1
"""
DIGEST = sha1(REPLACE.encode(), usedforsecurity=False).hexdigest()


class FeastRedisStore(RedisStore):
    """One Feast project's features: each entity's hash is asked for once, whatever the namespaces."""

    def __init__(self, connection: RedisConnection, project: str) -> None:
        super().__init__(connection, REPLACE)
        self._project = project
        self._plan: _Plan | None = None

    def read(self, keys: pa.RecordBatch, selection: Sequence[SelectedFeatures]) -> OnlineRows:
        """The values of n entities; a thousand rows per round trip."""
        plan = self._plan
        if plan is None or not plan.questions.same(selection):
            plan = self._plan = _Plan(selection)
        whose = plan.questions.entities(keys)
        rows: list[tuple[Any, ...]] = []
        for start in range(0, len(whose), ROWS_AT_ONCE):
            part = whose[start : start + ROWS_AT_ONCE]
            commands = [one for row in part for one in plan.commands(row, self._project)]
            answers = iter(self._client.exchange(commands))
            rows += [plan.questions.parsed(plan.values(row, answers)) for row in part]
        return plan.questions.answered(rows)

    def _layout(self, selection: Sequence[SelectedFeatures]) -> "Layout":
        from lodestar.adapters.feast.reader import FeastLayout

        return FeastLayout(selection, self._project)

    def forget(self, namespaces: Sequence[str]) -> None:
        """Drop the watermarks of namespaces that are no longer declared."""
        keys = [f"_watermark:{self._project}:{namespace}" for namespace in namespaces]
        self._client.exchange([(key, ("DEL", key)) for key in keys])

    def _due(self, view: FeatureView, rows: Sequence[Version]) -> "list[tuple[Version, Command]]":
        times = (event_field(view), created_field(view))
        fields = [feature_field(view, name) for name in view.features]
        keys = [entity_key(view, row.entity, self._project) for row in rows]
        there = self._client.exchange([(key, ("HMGET", key, *times)) for key in keys])
        return [
            (row, (key, _replacement(view, fields, row, key, held)))
            for row, key, held in zip(rows, keys, there, strict=True)
            if held[0] is None or not row.is_older_than(*_version_of(held))
        ]

    def _watermark_key(self, view: FeatureView) -> str:
        return f"_watermark:{self._project}:{view.namespace}"


class _Plan:
    """A selection's questions, with the namespaces of equal keys asked for by one command."""

    def __init__(self, selection: Sequence[SelectedFeatures]) -> None:
        self.questions = Questions(selection, PARSERS)
        self._groups: list[tuple[int, FeatureView, list[bytes]]] = []
        self._places: list[tuple[int, slice]] = []  # of each namespace: its group, its fields in it
        by_keys: dict[tuple[str, ...], int] = {}
        for position, one in enumerate(self.questions.asked):
            fields = [event_field(one.view), *[feature_field(one.view, f) for f in one.features]]
            group = by_keys.setdefault(tuple(sorted(one.view.keys)), len(self._groups))
            if group == len(self._groups):
                self._groups.append((position, one.view, []))
            asked = self._groups[group][2]
            self._places.append((group, slice(len(asked), len(asked) + len(fields))))
            asked += fields

    def commands(self, row: Sequence[Entity | None], project: str) -> "Iterator[Command]":
        for position, view, fields in self._groups:
            entity = row[position]
            if entity is not None:
                key = entity_key(view, entity, project)
                yield key, ("HMGET", key, *fields)

    def values(
        self, row: Sequence[Entity | None], answers: Iterator[Sequence[bytes | None]]
    ) -> list[bytes | None]:
        found = [
            [None] * len(fields) if row[position] is None else next(answers)
            for position, _, fields in self._groups
        ]
        values: list[bytes | None] = []
        for group, span in self._places:
            values += found[group][span]
        return values


def _version_of(held: Sequence[bytes | None]) -> tuple[int, int | None]:
    event, created = held
    return PARSERS[EVENT](event or b""), int(created) if created else None


def _replacement(
    view: FeatureView,
    fields: Sequence[bytes],
    row: Version,
    key: bytes,
    held: Sequence[bytes | None],
) -> "Words":
    times = (event_field(view), created_field(view))
    words: list[bytes | str | int] = ["EVALSHA", DIGEST, 1, key, *times]
    words += [value or b"" for value in held]
    created = b"" if row.created is None else str(row.created).encode()
    words += [times[0], time_bytes(row.event), times[1], created]
    for field, feature, value in zip(fields, view.features.values(), row.values, strict=True):
        words += [field, value_bytes(feature.type, value)]
    return tuple(words)
