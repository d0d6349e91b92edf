"""Reads one selection from Redis over and over from an event loop, without Arrow and without threads.

All rows of a call go out in one piece, and what comes back is parsed straight into tuples.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from lodestar.adapters.online.columns import Stored, StoredColumns, StrangeValues
from lodestar.adapters.online.entities import Asked, entity_texts
from lodestar.adapters.redis.connection import RedisConnection
from lodestar.adapters.redis.layout import COLUMN_PARSERS, PARSERS, heads_of
from lodestar.adapters.redis.stream import RedisStream
from lodestar.interface.features import SelectedFeatures

__all__ = ["Layout", "RedisReader", "TextLayout"]

Row = tuple[Any, ...]
ROWS_AT_ONCE = 256  # per command, as Redis answers nobody else meanwhile
LONGEST_KEPT = 256  # bytes of a key for whose length what stands around it is kept


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
        self._strange = StrangeValues()

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
                self._strange.log(strange)
        return found

    async def close(self) -> None:
        """Close the connection."""
        await self._stream.close()


class TextLayout:
    """Keys and values as `layout` has them, asked for by one MGET."""

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
