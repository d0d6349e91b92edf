"""Feature tables in BigQuery: how they are found, and where rows wait that ask for features."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from lodestar.adapters.bigquery.errors import UnknownTableError
from lodestar.adapters.bigquery.reader import near_tables
from lodestar.adapters.bigquery.session import Session
from lodestar.adapters.warehouse.features import HeldRows
from lodestar.adapters.warehouse.spool import ParquetSpool
from lodestar.adapters.warehouse.sql import FoundColumn, WarehouseTable, table_at
from lodestar.core.version_columns import VersionColumns
from lodestar.errors import ExternalError, SchemaError, UsageError
from lodestar.schema import TIMESTAMP, canonical
from lodestar.settings.features import FeatureView
from lodestar.settings.warehouses import BigQuery

__all__ = ["BigQueryWarehouse"]

PAGE_ROWS = 10_000  # of the REST API, as for the loader's rows
LASTS = timedelta(days=1)
_TYPES = {
    **dict.fromkeys(("BOOLEAN", "BOOL"), pa.bool_()),
    **dict.fromkeys(("INTEGER", "INT64"), pa.int64()),
    **dict.fromkeys(("FLOAT", "FLOAT64"), pa.float64()),
    **dict.fromkeys(("NUMERIC", "BIGNUMERIC"), pa.decimal128(38, 9)),
    "STRING": pa.string(),
    "DATE": pa.date32(),
    "DATETIME": pa.timestamp("us"),
    "TIMESTAMP": TIMESTAMP,
}
_STORED = {pa.int64(): "INTEGER", pa.string(): "STRING", TIMESTAMP: "TIMESTAMP"}


class BigQueryWarehouse:
    """One project's datasets, as `WarehouseFeatures` asks of them."""

    dialect: Literal["bigquery"] = "bigquery"

    def __init__(self, config: BigQuery, project: Path) -> None:
        self._config = config
        self._project = project

    def tables(self, declared: Sequence[VersionColumns]) -> list[WarehouseTable]:
        """Find views' tables, and hold each to its declaration."""
        with self._session() as session:
            return [self._found(session, one) for one in declared]

    def query(self, sql: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Run a query; its rows as they come."""
        with self._session() as session:
            yield from _rows(session, sql, schema)

    @contextmanager
    def holding(self, schema: pa.Schema, rows: ParquetSpool) -> Iterator[HeldRows]:
        """Upload rows to a table of their own; if it cannot be removed, it goes by itself in a day."""
        name = f"lodestar_spine_{secrets.token_hex(8)}"
        place = (self._config.project, self._staging_dataset(), name)
        columns = {field.name: _STORED[field.type] for field in schema}
        with self._session() as session:
            made = session.make(".".join(place), columns, expires=datetime.now(UTC) + LASTS)
            try:
                came = sum(session.load(part, made) for part in rows.parts())
                if came != rows.rows:
                    raise ExternalError(
                        f"BigQuery loaded {came:,} of {rows.rows:,} rows",
                        hint="nothing was joined; try again",
                    )
                yield HeldRows(table_at(*place), lambda sql, kinds: _rows(session, sql, kinds))
            finally:
                with suppress(ExternalError):
                    session.remove(".".join(place))

    def bytes_read(self, sql: str) -> int:
        """What a dry run says."""
        with self._session() as session:
            return int(session.dry_run(sql).total_bytes_processed or 0)

    def _session(self) -> Session:
        return Session(self._config, self._project)

    def _staging_dataset(self) -> str:
        found = self._config.staging_dataset or self._config.dataset
        if found is None:
            raise UsageError(
                "there is no dataset in BigQuery where rows could wait for their features",
                hint="set data.bigquery.staging_dataset, or dataset",
            )
        return found

    def _found(self, session: Session, declared: VersionColumns) -> WarehouseTable:
        view = declared.view
        place = self._place(view)
        try:
            fields = session.table(".".join(place)).schema
        except UnknownTableError as error:
            raise SchemaError(
                f"the table {view.source.table!r} of the feature namespace {view.namespace!r} is not "
                f"in BigQuery: {error.what}",
                hint=near_tables(session, error, [place]),
            ) from None
        kinds = {field.name: _type_of(field) for field in fields}
        named = _as_declared(declared.schema.names, list(kinds))
        declared.check(pa.schema([(name, kinds[stored]) for name, stored in named.items()]))
        columns = {
            name: FoundColumn(named[name], kinds[named[name]]) for name in declared.schema.names
        }
        return WarehouseTable("bigquery", declared, table_at(*place), columns)

    def _place(self, view: FeatureView) -> tuple[str, str, str]:
        """Project, dataset and name of a view's table."""
        dataset, _, name = view.source.table.rpartition(".")
        found = dataset or self._config.dataset
        if found is None:
            raise UsageError(
                f"the table {view.source.table!r} of the feature namespace {view.namespace!r} names no "
                "dataset",
                hint=f"set data.bigquery.dataset, or write source: {{table: dataset.{name}}}",
            )
        return self._config.project, found, name


def _rows(session: Session, sql: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in session.stream(sql, (), page_rows=PAGE_ROWS):
        yield canonical(batch.rename_columns(schema.names), schema)


def _type_of(field: Any) -> pa.DataType:  # noqa: ANN401 -- the client's description of a column
    found = None if field.mode == "REPEATED" else _TYPES.get(field.field_type)
    if found is not None:
        return found
    name = f"REPEATED {field.field_type}" if field.mode == "REPEATED" else field.field_type
    return pa.opaque(pa.binary(), name, "BigQuery")


def _as_declared(names: Sequence[str], stored: Sequence[str]) -> dict[str, str]:
    """Column → its name there, which it keeps and compares without regard to case."""
    known = {name.lower(): name for name in stored}
    wanted = {known[name.lower()]: name for name in names if name.lower() in known}
    return {wanted.get(name, name): name for name in stored}
