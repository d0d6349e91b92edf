"""What every online store in Redis does alike, whatever keys it lays out: versions, watermarks."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from datetime import datetime
from secrets import token_hex
from typing import TYPE_CHECKING

import pyarrow as pa

from lodestar.adapters.online.rows import Version, newest_by_chunk, watermark_of, watermark_text
from lodestar.adapters.online.threaded_reader import ThreadedReader
from lodestar.adapters.redis.client import client_of, reader_of
from lodestar.adapters.redis.connection import RedisConnection
from lodestar.errors import ExternalError
from lodestar.interface.features import OnlineReader, OnlineRows, SelectedFeatures
from lodestar.settings.features import FeatureView

if TYPE_CHECKING:
    from lodestar.adapters.redis.reader import Layout
    from lodestar.adapters.redis.wire import Command

__all__ = ["ROWS_AT_ONCE", "RedisStore"]

ROWS_AT_ONCE = 1_000
ATTEMPTS = 20
PROBE_SECONDS = 60


class RedisStore(ABC):
    """Writes a version only over the one that it was compared with, so that writers may race.

    `script` sets an entity's values unless what is there has changed; it answers 1 where it did.
    """

    def __init__(self, connection: RedisConnection, script: str) -> None:
        self._connection = connection
        self._client = client_of(connection)
        self._script = script

    @abstractmethod
    def read(self, keys: pa.RecordBatch, selection: Sequence[SelectedFeatures]) -> OnlineRows:
        """The values of n entities."""

    def reader(self, selection: Sequence[SelectedFeatures]) -> OnlineReader:
        """Reads one selection from an event loop.

        A single Redis is asked from the loop itself; a Cluster and a Sentinel's master by this store, in
        a few threads.
        """
        if self._connection.mode == "single":
            return reader_of(self._connection, self._layout(selection))
        return ThreadedReader(self, selection, timeout=self._connection.timeout, closing=self.close)

    def write(self, view: FeatureView, rows: Iterator[pa.RecordBatch]) -> int:
        """Keep these versions, unless newer ones are there; how many were written."""
        return sum(self._write(view, chunk) for chunk in newest_by_chunk(view, rows))

    def watermark(self, view: FeatureView) -> datetime | None:
        """Until when it was materialised; None if never, or emptied since, or declared otherwise."""
        key = self._watermark_key(view)
        (value,) = self._client.exchange([(key, ("GET", key))])
        return watermark_of(view, value)

    def set_watermark(self, view: FeatureView, until: datetime) -> None:
        """Say so."""
        key = self._watermark_key(view)
        self._client.exchange([(key, ("SET", key, watermark_text(view, until)))])

    def probe(self, view: FeatureView) -> str:
        """Set a key beside the namespace's watermark, get it, delete it, in one round trip.

        It expires by itself, should the connection break in between.
        """
        key, value = f"{self._watermark_key(view)}:check:{token_hex(8)}", token_hex(8)
        commands = (("SET", key, value, "EX", PROBE_SECONDS), ("GET", key), ("DEL", key))
        _, found, _ = self._client.exchange([(key, command) for command in commands])
        if found != value.encode():
            raise ExternalError("Redis does not give back what was written to it")
        return "a value was set, read and removed"

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    def _write(self, view: FeatureView, pending: Sequence[Version]) -> int:
        """Compare with what is there, then set, and again where another writer came between."""
        written: int = 0
        for _ in range(ATTEMPTS):
            due = self._due(view, pending)
            answers = self._client.exchange(
                [command for _, command in due], first=("SCRIPT", "LOAD", self._script)
            )
            written += answers.count(1)
            pending = [row for (row, _), answer in zip(due, answers, strict=True) if not answer]
            if not pending:
                return written
        raise ExternalError(
            f"other writers keep changing the online rows of {view.namespace}",
            hint="run one materialisation of a namespace at a time",
        )

    @abstractmethod
    def _layout(self, selection: Sequence[SelectedFeatures]) -> "Layout":
        """How a selection is asked for in one piece."""

    @abstractmethod
    def _due(self, view: FeatureView, rows: Sequence[Version]) -> "list[tuple[Version, Command]]":
        """The rows that are not older than what is there, and the command that replaces it."""

    @abstractmethod
    def _watermark_key(self, view: FeatureView) -> str:
        """Where the namespace's watermark stands."""
