"""A parquet object in parts that several processes read, each its own row groups of one version."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from lodestar.adapters.objects.store import ObjectInfo
from lodestar.adapters.registry import URI_READERS, adapter, scheme_of
from lodestar.errors import UsageError
from lodestar.interface.parts import Division

__all__ = ["ObjectPart", "RowGroups"]


@dataclass(frozen=True)
class RowGroups:
    """Some of an object's row groups, `stop` not among them, and how many rows are in them."""

    start: int
    stop: int
    rows: int


class _Reader(Protocol):
    def groups(
        self, info: ObjectInfo, groups: Sequence[int], chunk_rows: int
    ) -> Iterator[pa.RecordBatch]: ...


class ObjectPart:
    """Row groups of one version. Pickled, it holds no secret: who reads it makes a client anew."""

    def __init__(
        self, reader: _Reader, uri: str, info: ObjectInfo, groups: RowGroups, division: Division
    ) -> None:
        self._reader: _Reader | None = reader
        self._uri = uri
        self._info = info
        self._groups = groups
        self._chunk_rows = division.chunk_rows
        self._place = division.place

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_reader": None}

    @property
    def rows(self) -> int:
        """How many there are in its row groups."""
        return self._groups.rows

    def digest(self) -> str:
        """That of the version, and of which row groups they are; nothing is read."""
        said = f"{self._info}\0{self._groups}\0{self._chunk_rows}"
        return hashlib.sha256(said.encode()).hexdigest()

    def read(self) -> Iterator[pa.RecordBatch]:
        """The rows, a chunk at a time.

        Raises:
            ExternalError: the object is another one by now, or its store does not answer.
        """
        groups = range(self._groups.start, self._groups.stop)
        yield from self._made().groups(self._info, groups, self._chunk_rows)

    def _made(self) -> _Reader:
        """What reads the object by this process's own config, variables and credentials."""
        if self._reader is None:
            if self._place is None:
                raise UsageError(f"{self._uri} can only be read in parts where its config is known")
            data = self._place.read(os.environ).config.data
            make = adapter(URI_READERS, scheme_of(self._uri), what="the URI scheme")
            self._reader = make(data, self._place.project, self._uri)
        return self._reader
