"""SQL in BigQuery: the recipe's query runs there, its rows stream out as Arrow."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from lodestar.adapters.bigquery.errors import UnknownColumnError, UnknownTableError
from lodestar.adapters.bigquery.exports import NO_EXPORTS, Exports
from lodestar.adapters.bigquery.names import canonical_types, quoted
from lodestar.adapters.bigquery.session import Session
from lodestar.adapters.bigquery.sql import in_bigquery
from lodestar.errors import DataError, SchemaError, choices
from lodestar.interface.parts import Divided, Division
from lodestar.schema import canonical
from lodestar.settings.warehouses import BigQuery
from lodestar.sql import Query

__all__ = ["BigQueryReader", "BigQueryTableReader", "near_tables"]

_BILLED = "the table is exported for the workers by a query of all of it, which BigQuery bills"
_UNFILTERED = (
    "the table is read by one session: it requires a partition filter, without which BigQuery "
    "exports nothing"
)
PAGE_ROWS = 10_000  # of the REST API: a request costs more than fewer, their JSON more memory


class BigQueryReader:
    """One query, run anew by each read; its parameters have the types that BigQuery infers for them."""

    def __init__(
        self,
        config: BigQuery,
        project: Path,
        query: Query,
        params: Mapping[str, str],
        exports: Exports | None = None,
    ) -> None:
        self._config = config
        self._project = project
        self._query = query
        self._params = dict(params)
        self._exports = exports
        self._sql = in_bigquery(query)

    def schema(self) -> pa.Schema:
        """The query's columns, by a dry run."""
        with Session(self._config, self._project) as session, self._near_names(session):
            return canonical_types(session.dry_run(self._sql).schema or ())

    def bytes_read(self) -> int:
        """What a dry run says that the query would read, before its parameters leave partitions out."""
        with Session(self._config, self._project) as session, self._near_names(session):
            return int(session.dry_run(self._sql).total_bytes_processed or 0)

    def read(self, *, chunk_rows: int) -> pa.RecordBatchReader:
        """Stream the rows in the query's order."""
        target, parameters = self._described()

        def stream() -> Iterator[pa.RecordBatch]:
            with Session(self._config, self._project) as session:
                rows = session.stream(self._sql, parameters, page_rows=PAGE_ROWS)
                yield from _chunks(rows, target, chunk_rows)

        return pa.RecordBatchReader.from_batches(target, stream())

    @contextmanager
    def parts(self, division: Division) -> Iterator[Divided]:
        """What BigQuery exports of the query, which runs once.

        Raises:
            LodestarError: the query fails, or the bucket is not to be written, read or cleared.
        """
        if self._exports is None:
            yield NO_EXPORTS
            return
        target, parameters = self._described()
        with self._exports.divided(self._sql, parameters, target, division) as divided:
            yield divided

    def _described(self) -> tuple[pa.Schema, list[Any]]:
        """The columns, and the parameters in the types that BigQuery infers; by a dry run."""
        with Session(self._config, self._project) as session, self._near_names(session):
            job = session.dry_run(self._sql)
            return canonical_types(job.schema or ()), session.parameters(job, self._params)

    @contextmanager
    def _near_names(self, session: Session) -> Iterator[None]:
        """Say which names there are, where the query has one that there is not."""
        try:
            yield
        except UnknownTableError as error:
            hint = near_tables(session, error, [self._place(table) for table in self._query.tables])
            raise DataError(error.what, hint=hint) from None
        except UnknownColumnError as error:
            known = {
                field.name
                for table in self._query.tables
                for field in session.table(".".join(self._place(table))).schema
            }
            raise SchemaError(error.what, hint=choices(error.name, sorted(known))) from None

    def _place(self, table: str) -> tuple[str, str, str]:
        """Project, dataset and name of a table that the query names."""
        parts = table.split(".")
        here = [self._config.project, self._config.dataset or ""]
        project, dataset, name = [*here[: 3 - len(parts)], *parts[-3:]]
        return project, dataset, name


class BigQueryTableReader:
    """A whole table, whose rows are fetched without a query, which costs nothing; a view by one.

    In parts a table, too, is exported by a query.
    """

    def __init__(
        self,
        config: BigQuery,
        project: Path,
        place: tuple[str, str, str],
        exports: Exports | None = None,
    ) -> None:
        self._config = config
        self._project = project
        self._place = place
        self._exports = exports
        self._sql = f"SELECT * FROM {quoted(*place)}"  # noqa: S608 -- checked and quoted

    def schema(self) -> pa.Schema:
        """The table's columns."""
        with Session(self._config, self._project) as session:
            return canonical_types(self._table(session).schema)

    def read(self, *, chunk_rows: int) -> pa.RecordBatchReader:
        """Stream the rows."""
        target = self.schema()

        def stream() -> Iterator[pa.RecordBatch]:
            with Session(self._config, self._project) as session:
                table = self._table(session)
                if table.table_type == "TABLE":
                    rows = session.stream_table(table, page_rows=PAGE_ROWS)
                else:
                    rows = session.stream(self._sql, (), page_rows=PAGE_ROWS)
                yield from _chunks(rows, target, chunk_rows)

        return pa.RecordBatchReader.from_batches(target, stream())

    @contextmanager
    def parts(self, division: Division) -> Iterator[Divided]:
        """What BigQuery exports of the table, by a query.

        Raises:
            LodestarError: the table cannot be queried, or the bucket not be written, read or cleared.
        """
        if self._exports is None:
            yield NO_EXPORTS
            return
        with Session(self._config, self._project) as session:
            table = self._table(session)
        if table.require_partition_filter:
            yield Divided(None, _UNFILTERED)
            return
        target = canonical_types(table.schema)
        with self._exports.divided(self._sql, (), target, division, note=_BILLED) as divided:
            yield divided

    def _table(self, session: Session) -> Any:  # noqa: ANN401 -- the client's
        try:
            return session.table(".".join(self._place))
        except UnknownTableError as error:
            raise DataError(error.what, hint=near_tables(session, error, [self._place])) from None


def near_tables(
    session: Session, error: UnknownTableError, places: list[tuple[str, str, str]]
) -> str:
    """The tables of the datasets that were meant, or the datasets, if those are none."""
    projects = sorted({project for project, _, _ in places})
    if error.is_dataset:
        known = [name for project in projects for name in session.datasets(project)]
        return "datasets: " + choices(error.name, known)
    datasets = sorted({f"{project}.{dataset}" for project, dataset, _ in places})
    return choices(error.name, [name for one in datasets for name in session.tables(one)])


def _chunks(
    rows: Iterator[pa.RecordBatch], target: pa.Schema, chunk_rows: int
) -> Iterator[pa.RecordBatch]:
    for batch in rows:
        if batch.schema.names != target.names:
            raise SchemaError(
                "the columns changed while they were being read",
                hint="nothing was used; try again",
            )
        fitting = canonical(batch, target)
        for start in range(0, fitting.num_rows, chunk_rows):
            yield fitting.slice(start, chunk_rows)
