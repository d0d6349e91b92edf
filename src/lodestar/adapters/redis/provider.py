"""Features in Redis as plain text under readable keys: `namespace:feature:entity`.

`layout` says what stands where. In a Cluster the entity stands in braces, which keeps all its
keys on one node. An entity of which any key asked for is gone counts as unknown: no half a row.
"""

from collections.abc import Sequence
from hashlib import sha1
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lodestar.adapters.online.entities import NOBODY, entity_text
from lodestar.adapters.online.rows import Entity, Questions, Version
from lodestar.adapters.redis.connection import RedisConnection
from lodestar.adapters.redis.layout import (
    PARSERS,
    WRITERS,
    heads_of,
    times_of,
    watermark_key,
)
from lodestar.adapters.redis.store import ROWS_AT_ONCE, RedisStore
from lodestar.interface.features import OnlineRows, SelectedFeatures
from lodestar.settings.features import FeatureView

if TYPE_CHECKING:
    from lodestar.adapters.redis.node import Words
    from lodestar.adapters.redis.reader import Layout
    from lodestar.adapters.redis.wire import Command

__all__ = ["RedisConnection", "RedisOnlineStore"]

# Sets an entity's keys unless its version is no longer the one that was compared with.
REPLACE = """\
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 1]) end
return 1
"""
DIGEST = sha1(REPLACE.encode(), usedforsecurity=False).hexdigest()


class RedisOnlineStore(RedisStore):
    """Reads n entities of all namespaces in one round trip of at most `connection.timeout` seconds."""

    def __init__(self, connection: RedisConnection) -> None:
        super().__init__(connection, REPLACE)
        self._prefix = connection.prefix
        self._braces = connection.mode == "cluster"
        self._asked: tuple[Questions, list[list[str]]] | None = None

    def read(self, keys: pa.RecordBatch, selection: Sequence[SelectedFeatures]) -> OnlineRows:
        """The values of n entities; a thousand rows per round trip."""
        asked = self._asked
        if asked is None or not asked[0].same(selection):
            heads = [self._heads(one.view, one.features) for one in selection]
            self._asked = asked = Questions(selection, PARSERS), heads
        questions, heads = asked
        whose = questions.entities(keys)
        rows: list[tuple[Any, ...]] = []
        for start in range(0, len(whose), ROWS_AT_ONCE):
            groups = [
                self._keys(of_view, entity)
                for row in whose[start : start + ROWS_AT_ONCE]
                for of_view, entity in zip(heads, row, strict=True)
            ]
            values = self._values(groups)
            rows += [
                questions.parsed(values[at : at + questions.width])
                for at in range(0, len(values), questions.width or 1)
            ]
        return questions.answered(rows if selection else [()] * len(whose))

    def _layout(self, selection: Sequence[SelectedFeatures]) -> "Layout":
        from lodestar.adapters.redis.reader import TextLayout

        return TextLayout(selection, self._prefix)

    def _due(self, view: FeatureView, rows: Sequence[Version]) -> "list[tuple[Version, Command]]":
        heads = self._heads(view, tuple(view.features))
        groups = [self._keys(heads, row.entity) for row in rows]
        there = self._values([group[:1] for group in groups])
        return [
            (row, _replacement(view, row, group, value))
            for row, group, value in zip(rows, groups, there, strict=True)
            if value is None or not row.is_older_than(*times_of(value))
        ]

    def _values(self, groups: Sequence[Sequence[str]]) -> list[bytes | None]:
        """What stands under the keys, in order; a Cluster takes one command per group."""
        if self._braces:
            found = self._client.exchange([(group[0], ("MGET", *group)) for group in groups])
            return list(chain.from_iterable(found))
        if not groups:
            return []
        keys = chain.from_iterable(groups)
        values: list[bytes | None] = self._client.exchange([("", ("MGET", *keys))])[0]
        return values

    def _heads(self, view: FeatureView, features: Sequence[str]) -> list[str]:
        return heads_of(self._prefix, view, features)

    def _keys(self, heads: Sequence[str], entity: Entity | None) -> list[str]:
        """The keys of an entity; those of nobody have no values."""
        text = NOBODY if entity is None else entity_text(entity)
        tail = f"{{{text}}}" if self._braces else text
        return [head + tail for head in heads]

    def _watermark_key(self, view: FeatureView) -> str:
        return watermark_key(self._prefix, view)


def _replacement(
    view: FeatureView, row: Version, keys: Sequence[str], there: bytes | None
) -> "Command":
    texts = (
        "" if value is None else WRITERS[feature.type](value)
        for feature, value in zip(view.features.values(), row.values, strict=True)
    )
    times = f"{row.event}" if row.created is None else f"{row.event} {row.created}"
    words: Words = ("EVALSHA", DIGEST, len(keys), *keys, there or b"", times, *texts)
    return keys[0], words
