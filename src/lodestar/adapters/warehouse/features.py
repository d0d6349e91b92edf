"""Feature tables in a warehouse, and the join with history there: no table leaves it.

Of the spine only keys and times go to the warehouse, each row with its number; its features come back
in the order of these numbers and are put beside the rows, which waited in a temporary file. So the
spine's own columns are never touched, memory holds a few batches, and a row that is missing is seen.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from sqlglot import exp

from lodestar.adapters.joins.rows import all_of, gathered, joined_schema
from lodestar.adapters.joins.staging import StagedSpine, stage
from lodestar.adapters.warehouse.join_sql import AskedRows, Joined, join_sql
from lodestar.adapters.warehouse.spool import ParquetSpool
from lodestar.adapters.warehouse.sql import Dialect, WarehouseTable
from lodestar.core.version_columns import VersionColumns
from lodestar.errors import ExternalError
from lodestar.interface.features import SelectedFeatures, TimeRange
from lodestar.settings.features import FeatureView

__all__ = ["HeldRows", "Warehouse", "WarehouseFeatures"]

SLICE_ROWS = 32_768
UPLOAD_ROWS = 131_072
# Whatever rows may ask for, when it is not known yet what they will.
ANY_TIME = TimeRange(None, datetime(2100, 1, 1, tzinfo=UTC))

RunsQuery = Callable[[str, pa.Schema], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class HeldRows:
    """Rows that wait in the warehouse, and what runs a query that sees them."""

    table: exp.Table
    query: RunsQuery


class Warehouse(Protocol):
    """What a warehouse does for feature tables. Rows of a query come in the schema's types, by place."""

    @property
    def dialect(self) -> Dialect:
        """The SQL that it speaks."""
        ...

    def tables(self, declared: Sequence[VersionColumns]) -> list[WarehouseTable]:
        """Find views' tables, and hold each to its declaration.

        Raises:
            SchemaError: a table or a column is missing, of another type, or without a zone.
        """
        ...

    def query(self, sql: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Run a query; its rows as they come."""
        ...

    def holding(self, schema: pa.Schema, rows: ParquetSpool) -> AbstractContextManager[HeldRows]:
        """Upload rows to a table of their own, which goes with the block.

        Raises:
            ExternalError: it may not be made, or not all rows came there.
        """
        ...

    def bytes_read(self, sql: str) -> int | None:
        """What a query reads at most, without running it; None where that is not what costs."""
        ...


class WarehouseFeatures:
    """The tables that `features/*.yaml` names, in a warehouse, and the join of their past there.

    `scratch` is the folder of the rows that wait, by default the system's.
    """

    def __init__(self, warehouse: Warehouse, scratch: Path | None = None) -> None:
        self._warehouse = warehouse
        self._scratch = scratch

    def versions(
        self, view: FeatureView, features: Sequence[str], times: TimeRange
    ) -> pa.RecordBatchReader:
        """All versions whose event time lies in the range, in any order."""
        (table,) = self._warehouse.tables([VersionColumns.of(view, features)])
        declared = table.declared

        def stream() -> Iterator[pa.RecordBatch]:
            for batch in self._warehouse.query(table.versions(times), table.raw):
                yield declared.within(declared.made_canonical(batch), times)

        return pa.RecordBatchReader.from_batches(declared.schema, stream())

    def latest(
        self, view: FeatureView, times: TimeRange, *, known_by: datetime
    ) -> pa.RecordBatchReader:
        """Per entity the latest version, which the warehouse finds."""
        (table,) = self._tables([view])

        def stream() -> Iterator[pa.RecordBatch]:
            for batch in self._warehouse.query(table.latest(times, known_by), table.timed):
                yield table.declared.made_canonical(batch)

        return pa.RecordBatchReader.from_batches(table.declared.schema, stream())

    @contextmanager
    def historical(
        self, spine: pa.RecordBatchReader, selection: Sequence[SelectedFeatures], *, timestamp: str
    ) -> Iterator[pa.RecordBatchReader]:
        """Join in the warehouse, to be read until the `with` block ends.

        Raises:
            SchemaError: and DataError, as the port has them.
            ExternalError: there is no space for the temporary file, or the warehouse refuses.
        """
        schema = joined_schema(spine.schema, selection, timestamp)
        tables = self._tables([one.view for one in selection])
        asked = AskedRows.of([one.view for one in selection], spine.schema)
        with stage(spine, timestamp, folder=self._scratch) as staged:
            if not staged.rows:
                yield pa.RecordBatchReader.from_batches(schema, [])
                return
            parts = [
                Joined(table, one.features, staged.window(one.view.ttl), one.view.ttl)
                for table, one in zip(tables, selection, strict=True)
            ]
            with (
                _numbered(staged, asked, timestamp) as rows,
                self._warehouse.holding(asked.schema, rows) as held,
            ):
                sql = join_sql(asked, asked.taken(held.table), parts, self._warehouse.dialect)
                answers = _answers(held.query, sql, parts)
                with closing(_beside(staged, answers, schema)) as joined:
                    yield pa.RecordBatchReader.from_batches(schema, all_of(joined, staged.rows))

    def bytes_read(self, selection: Sequence[SelectedFeatures], spine: pa.Schema) -> int | None:
        """What a join of such rows reads at most, whichever they are; None where nothing is counted."""
        views = [one.view for one in selection]
        asked = AskedRows.of(views, spine)
        parts = [
            Joined(table, one.features, ANY_TIME, one.view.ttl)
            for table, one in zip(self._tables(views), selection, strict=True)
        ]
        sql = join_sql(asked, asked.none(), parts, self._warehouse.dialect)
        return self._warehouse.bytes_read(sql)

    def _tables(self, views: Sequence[FeatureView]) -> list[WarehouseTable]:
        """With all features: they tell versions apart that are equal in both times."""
        return self._warehouse.tables(
            [VersionColumns.of(view, tuple(view.features)) for view in views]
        )


@contextmanager
def _numbered(staged: StagedSpine, asked: AskedRows, timestamp: str) -> Iterator[ParquetSpool]:
    """Times and keys of all rows, numbered from 0."""
    done = 0
    with ParquetSpool(asked.schema) as spool:
        with staged.read() as pieces:
            for part in gathered(_copied(pieces, [timestamp, *asked.keys]), UPLOAD_ROWS):
                rows = pa.concat_batches(part)
                numbers = pa.array(np.arange(done, done + rows.num_rows))
                spool.write(pa.record_batch([numbers, *rows.columns], schema=asked.schema))
                done += rows.num_rows
        yield spool


def _copied(pieces: pa.RecordBatchReader, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Some columns alone: a piece is one buffer, all of which any column of it would hold."""
    for piece in pieces:
        yield pa.concat_batches([piece.select(names)])  # copies, of one as of several


def _answers(query: RunsQuery, sql: str, parts: Sequence[Joined]) -> Iterator[pa.RecordBatch]:
    """The rows' numbers and features, these in their canonical types."""
    wanted = [
        VersionColumns(
            part.table.declared.view,
            pa.schema([part.table.declared.schema.field(name) for name in part.features]),
        )
        for part in parts
    ]
    raw = [
        part.table.raw.field(name).with_name(f"{place}_{name}")
        for place, part in enumerate(parts)
        for name in part.features
    ]
    for batch in query(sql, pa.schema([("row", pa.int64()), *raw])):
        numbers, *columns = batch.columns
        canonical: list[pa.Array] = []
        for one in wanted:
            own, columns = columns[: len(one.schema)], columns[len(one.schema) :]
            canonical += one.made_canonical(pa.record_batch(own, names=one.schema.names)).columns
        names = [str(place) for place in range(len(canonical) + 1)]
        yield pa.record_batch([numbers, *canonical], names=names)


def _beside(
    staged: StagedSpine, answers: Iterator[pa.RecordBatch], schema: pa.Schema
) -> Generator[pa.RecordBatch, None, None]:
    """The rows, each with its own answer.

    Raises:
        ExternalError: other numbers came than were asked for, or not all, or not in order.
    """
    done = 0
    with staged.read() as pieces:
        slices = (gathered(iter(each), SLICE_ROWS) for each in (pieces, answers))
        for part, found in zip_longest(*slices):
            if part is None or found is None:
                raise _other_rows(staged.rows)
            rows, answer = pa.concat_batches(part), pa.concat_batches(found)
            numbers = pa.array(np.arange(done, done + rows.num_rows))
            if not answer.column(0).equals(numbers):
                raise _other_rows(staged.rows)
            done += rows.num_rows
            yield pa.record_batch([*rows.columns, *answer.columns[1:]], schema=schema)


def _other_rows(count: int) -> ExternalError:
    return ExternalError(
        f"the warehouse did not give each of {count:,} rows its features",
        hint="nothing was kept of them; try again",
    )
