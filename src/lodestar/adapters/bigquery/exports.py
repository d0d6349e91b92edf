"""A query's rows as parquet objects of a bucket, to which BigQuery exports them, for workers to read."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from lodestar.adapters.bigquery.session import Session
from lodestar.adapters.parts import MovingPart
from lodestar.adapters.registry import URI_READERS, WRITERS, adapter, scheme_of
from lodestar.errors import ExternalError, LodestarError, SchemaError
from lodestar.interface.parts import Divided, Division, PartitionedReader, PartRows
from lodestar.schema import canonical
from lodestar.settings.config import Data
from lodestar.settings.warehouses import BigQuery

__all__ = ["NO_EXPORTS", "ExportedPart", "Exports"]

NO_EXPORTS = Divided(
    None,
    "the rows are read by one session: data.bigquery.export_root names no place in Cloud Storage "
    "that BigQuery could export them to",
)


class _Writer(Protocol):
    """What the object store's writer is asked for here."""

    def has(self, destination: str) -> bool: ...

    def clear(self, folder: str) -> None: ...


class ExportedPart(MovingPart):
    """A part of the objects, its columns as the query's are. It holds no secret, as theirs do not."""

    def __init__(
        self, objects: PartRows, target: pa.Schema, first_row: int, division: Division
    ) -> None:
        super().__init__(objects.rows, first_row, division)
        self._objects = objects
        self._target = target

    def _fetched(self) -> Iterator[pa.RecordBatch]:
        for rows in self._objects.read():
            if rows.schema.names != self._target.names:
                raise SchemaError(
                    "the columns that BigQuery exported are not the query's",
                    hint="nothing was used; try again",
                )
            yield canonical(rows, self._target)


class Exports:
    """Where exports go: each to a folder of its own below `root`."""

    def __init__(self, data: Data, config: BigQuery, project: Path, root: str) -> None:
        self._data = data
        self._config = config
        self._project = project
        self._root = root

    @contextmanager
    def divided(
        self,
        sql: str,
        parameters: Sequence[Any],
        target: pa.Schema,
        division: Division,
        *,
        note: str = "",
    ) -> Iterator[Divided]:
        """Run a query once, its rows to objects of a bucket, which go when the block ends.

        Raises:
            LodestarError: the query fails, or the bucket is not to be written, read or cleared.
        """
        with self._folder() as folder:
            with Session(self._config, self._project) as session:
                rows = session.export(sql, parameters, f"{folder}part-*.parquet")
            with self._parts(folder, rows, target, division) as parts:
                yield Divided(parts, note, moving=True)

    @contextmanager
    def _folder(self) -> Iterator[str]:
        """A new folder's URI, with its slash; what is in it goes when the block ends.

        Raises:
            LodestarError: the bucket cannot be read from here, or what was exported not be removed.
        """
        folder = f"{self._root}/lodestar_export_{secrets.token_hex(8)}/"
        make = adapter(WRITERS, scheme_of(folder), what="the URI scheme")
        writer: _Writer = make(self._data, self._project)
        writer.has(f"{folder}part-*.parquet")  # before a query is paid for in vain
        try:
            yield folder
        except BaseException as error:
            try:
                writer.clear(folder)
            except LodestarError as left:
                error.add_note(f"what was exported to {folder} could not be removed: {left.what}")
            raise
        writer.clear(folder)

    @contextmanager
    def _parts(
        self, folder: str, rows: int, target: pa.Schema, division: Division
    ) -> Iterator[list[ExportedPart]]:
        """The `rows` that were exported to a folder, in order.

        Raises:
            ExternalError: other rows are there.
        """
        if not rows:
            yield []
            return
        make = adapter(URI_READERS, scheme_of(folder), what="the URI scheme")
        reader: PartitionedReader = make(self._data, self._project, folder)
        with reader.parts(division) as divided:
            yield _checked(divided, rows, target, division)


def _checked(
    divided: Divided, wanted: int, target: pa.Schema, division: Division
) -> list[ExportedPart]:
    parts, first = [], 0
    for objects in divided.parts or ():
        parts.append(ExportedPart(objects, target, first, division))
        first += objects.rows
    if first != wanted:
        raise ExternalError(
            f"{first:,} of {wanted:,} rows that BigQuery exported are there",
            hint="nothing was kept of them; try again",
        )
    return parts
