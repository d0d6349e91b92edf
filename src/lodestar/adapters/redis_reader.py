"""Reads one selection from Redis over and over from an event loop, without Arrow and without threads.

All rows of a call go out in one piece, and what comes back is parsed straight into tuples.
"""

import logging
from collections.abc import Sequence
from typing import Any, Protocol

from lodestar.adapters.redis_connection import RedisConnection
from lodestar.adapters.redis_layout import COLUMN_PARSERS, PARSERS, entity_texts, heads_of
from lodestar.adapters.redis_rows import Entity
from lodestar.adapters.redis_stream import RedisStream
from lodestar.adapters.stored_columns import Stored, StoredColumns
from lodestar.interface.features import SelectedFeatures
from lodestar.settings.features import FeatureView

__all__ = ["Asked", "Layout", "RedisReader", "TextLayout"]

Row = tuple[Any, ...]
ROWS_AT_ONCE = 256  # per command, as Redis answers nobody else meanwhile
LONGEST_KEPT = 256  # bytes of a key for whose length what stands around it is kept
LOG = logging.getLogger(__name__)


class Layout(Protocol):
    """How a selection's values are asked for, and how the answers become columns."""

    keys: tuple[str, ...]
    columns: StoredColumns

    def packed(self, rows: Sequence[Row]) -> tuple[bytes, int]:
        """The commands that ask for these rows, in bytes, and how many they are."""
        ...

    def stored(self, rows: Sequence[Row], answers: Sequence[Any]) -> Sequence[Sequence[Stored]]:
        """Per namespace the columns of what was found."""
        ...


class RedisReader:
    """An `OnlineReader` of a single Redis; every call is one round trip of at most its `timeout`.

    A value that is not of the declared type makes its namespace unknown in that row, and is logged.
    """

    def __init__(self, connection: RedisConnection, layout: Layout) -> None:
        self.keys = layout.keys
        self._layout = layout
        self._stream = RedisStream(connection)
        self._strange: set[str] = set()

    async def read(self, rows: Sequence[Row]) -> list[Row]:
        """Answer n rows.

        Raises:
            ExternalError: Redis does not answer within the timeout, or refuses.
        """
        if not rows or not self.keys:
            return [()] * len(rows)
        layout = self._layout
        parts = [rows[at : at + ROWS_AT_ONCE] for at in range(0, len(rows), ROWS_AT_ONCE)]
        packed = [layout.packed(part) for part in parts]
        commands = b"".join([command for command, _ in packed])
        answers = await self._stream.ask(commands, sum(count for _, count in packed))
        found: list[Row] = []
        start = 0
        for part, (_, count) in zip(parts, packed, strict=True):
            stored = layout.stored(part, answers[start : start + count])
            parsed, strange = layout.columns.rows(stored)
            found += parsed
            start += count
            if strange:
                self._log(strange)
        return found

    async def close(self) -> None:
        """Close the connection."""
        await self._stream.close()

    def _log(self, namespaces: Sequence[str]) -> None:
        """Say it once for each namespace: a changed declaration makes every row strange."""
        for name in namespaces:
            if name not in self._strange:
                self._strange.add(name)
                LOG.warning(
                    "the online store holds values of %s that are not of the declared type; they "
                    "count as missing: materialise again",
                    name,
                )


class Asked:
    """Which keys a selection is asked by; namespaces of the same keys share their entities."""

    def __init__(self, selection: Sequence[SelectedFeatures]) -> None:
        self.keys = tuple(dict.fromkeys(key for one in selection for key in one.view.keys))
        distinct = dict.fromkeys(one.view.keys for one in selection)
        self._places = {keys: place for place, keys in enumerate(distinct)}
        self._columns = [[self.keys.index(key) for key in keys] for keys in distinct]

    def place(self, view: FeatureView) -> int:
        """Which of `entities` are the view's."""
        return self._places[view.keys]

    def entities(self, rows: Sequence[Row]) -> list[list[Entity | None]]:
        """Per distinct keys each row's entity; None where a part of it is null."""
        columns = list(zip(*rows, strict=True))
        found = [zip(*[columns[at] for at in places], strict=True) for places in self._columns]
        return [[None if None in entity else entity for entity in whose] for whose in found]


class TextLayout:
    """Keys and values as `redis_layout` has them, asked for by one MGET."""

    def __init__(self, selection: Sequence[SelectedFeatures], prefix: str) -> None:
        self._asked = Asked(selection)
        self.keys = self._asked.keys
        self.columns = StoredColumns(selection, PARSERS, COLUMN_PARSERS)
        # Of each namespace: whose keys it has, how many, and what stands around them.
        self._namespaces = [
            (self._asked.place(one.view), 1 + len(one.features), _Around(prefix, one))
            for one in selection
        ]
        self._width = sum(width for _, width, _ in self._namespaces)

    def packed(self, rows: Sequence[Row]) -> tuple[bytes, int]:
        """Namespace by namespace, row by row, key by key."""
        tails = [entity_texts(entities) for entities in self._asked.entities(rows)]
        pieces = [b"*%d\r\n$4\r\nMGET\r\n" % (1 + len(rows) * self._width)]
        for place, _, around in self._namespaces:
            pieces += [tail.join(around[len(tail)]) for tail in tails[place]]
        return b"".join(pieces), 1

    def stored(self, rows: Sequence[Row], answers: Sequence[Any]) -> Sequence[Sequence[Stored]]:
        """Cut what the MGET brought into columns."""
        (values,) = answers
        found = []
        start = 0
        for _, width, _ in self._namespaces:
            end = start + width * len(rows)
            found.append([values[at:end:width] for at in range(start, start + width)])
            start = end
        return found


class _Around(dict[int, list[bytes]]):
    """By the length of an entity's text: what stands before, between and behind it in its keys."""

    def __init__(self, prefix: str, selected: SelectedFeatures) -> None:
        super().__init__()
        heads = heads_of(prefix, selected.view, selected.features)
        self._heads = [head.encode() for head in heads]

    def __missing__(self, length: int) -> list[bytes]:
        texts = [b"$%d\r\n%b" % (len(head) + length, head) for head in self._heads]
        found = [texts[0], *[b"\r\n" + text for text in texts[1:]], b"\r\n"]
        if length <= LONGEST_KEPT:  # anybody may ask for keys of any length
            self[length] = found
        return found
