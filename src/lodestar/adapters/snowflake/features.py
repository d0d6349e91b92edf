"""Feature tables in Snowflake: how they are found, and where rows wait that ask for features."""

import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pyarrow as pa

from lodestar.adapters.snowflake.catalog import columns_of, databases, tables
from lodestar.adapters.snowflake.loading import loaded_aside
from lodestar.adapters.snowflake.names import (
    COLUMN_TYPES,
    canonical_rows,
    given_name,
    quoted,
    stored_name,
)
from lodestar.adapters.snowflake.session import Session, opened
from lodestar.adapters.warehouse.features import HeldRows
from lodestar.adapters.warehouse.spool import ParquetSpool
from lodestar.adapters.warehouse.sql import FoundColumn, WarehouseTable, table_at
from lodestar.core.version_columns import VersionColumns
from lodestar.errors import ExternalError, SchemaError, choices
from lodestar.schema import TIMESTAMP
from lodestar.settings.features import FeatureView
from lodestar.settings.warehouses import Snowflake

__all__ = ["SnowflakeWarehouse"]

_NUMBER = re.compile(r"NUMBER\(\d+,(\d+)\)")
_TYPES = {
    "BOOLEAN": pa.bool_(),
    "FLOAT": pa.float64(),
    "TEXT": pa.string(),
    "DATE": pa.date32(),
    "TIMESTAMP_LTZ": TIMESTAMP,
    "TIMESTAMP_TZ": TIMESTAMP,
    "TIMESTAMP_NTZ": pa.timestamp("us"),
}
_STORED = {pa.int64(): "int", pa.string(): "string", TIMESTAMP: "timestamp"}


class SnowflakeWarehouse:
    """One account's schemas, as `WarehouseFeatures` asks of them."""

    dialect: Literal["snowflake"] = "snowflake"

    def __init__(self, config: Snowflake, project: Path) -> None:
        self._config = config
        self._project = project

    def tables(self, declared: Sequence[VersionColumns]) -> list[WarehouseTable]:
        """Find views' tables, and hold each to its declaration; no warehouse is woken."""
        with opened(self._config, self._project) as session:
            return [self._found(session, one) for one in declared]

    def query(self, sql: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Run a query; its rows as the server's chunks come."""
        with opened(self._config, self._project, works=True) as session:
            yield from _rows(session, sql, schema)

    @contextmanager
    def holding(self, schema: pa.Schema, rows: ParquetSpool) -> Iterator[HeldRows]:
        """Upload rows to a table that only this session sees, and that goes with it."""
        name = f"LODESTAR_SPINE_{secrets.token_hex(8).upper()}"
        place = (*self._staging_schema(), name)
        aside = quoted(*place)
        columns = {quoted(field.name): COLUMN_TYPES[_STORED[field.type]][0] for field in schema}
        with opened(self._config, self._project, works=True) as session:
            came = loaded_aside(session, aside, columns, rows)
            if came != rows.rows:
                raise ExternalError(
                    f"Snowflake loaded {came:,} of {rows.rows:,} rows",
                    hint="nothing was joined; try again",
                )
            yield HeldRows(table_at(*place), lambda sql, kinds: _rows(session, sql, kinds))

    def bytes_read(self, sql: str) -> None:
        """Nothing: Snowflake charges for the time that a warehouse is awake."""
        del sql

    def _staging_schema(self) -> tuple[str, str]:
        config = self._config
        return stored_name(config.database), stored_name(
            config.staging_schema or config.schema_name
        )

    def _found(self, session: Session, declared: VersionColumns) -> WarehouseTable:
        view = declared.view
        place = self._place(view)
        stored = columns_of(session, *place)
        if not stored:
            raise SchemaError(
                f"the table {view.source.table!r} of the feature namespace {view.namespace!r} is not "
                "in Snowflake, or not for our role",
                hint=self._near(session, view, place),
            )
        named = _as_declared(declared.schema.names, list(stored))
        kinds = {name: _type_of(stored[kept]) for name, kept in named.items()}
        declared.check(pa.schema(list(kinds.items())))
        columns = {name: FoundColumn(named[name], kinds[name]) for name in declared.schema.names}
        return WarehouseTable("snowflake", declared, table_at(*place), columns)

    def _near(self, session: Session, view: FeatureView, place: tuple[str, str, str]) -> str:
        known = databases(session)
        if place[0] not in known:
            named = [given_name(one) for one in known]
            return "databases: " + choices(given_name(place[0]), named)
        return choices(view.source.table, tables(session, place[0], self._config.schema_name))

    def _place(self, view: FeatureView) -> tuple[str, str, str]:
        """Database, schema and name of a view's table, as they are kept."""
        schema, _, name = view.source.table.rpartition(".")
        parts = (self._config.database, schema or self._config.schema_name, name)
        database, schema, name = map(stored_name, parts)
        return database, schema, name


def _rows(session: Session, sql: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in session.stream(sql):
        yield canonical_rows(batch, schema)


def _type_of(kind: str) -> pa.DataType:
    number = _NUMBER.fullmatch(kind)
    if number is not None:
        return pa.int64() if number[1] == "0" else pa.decimal128(38, int(number[1]))
    return _TYPES[kind] if kind in _TYPES else pa.opaque(pa.binary(), kind, "Snowflake")


def _as_declared(names: Sequence[str], stored: Sequence[str]) -> dict[str, str]:
    """Column → its name there; one in capitals before one in quotes, as in SQL."""
    given = {given_name(name): name for name in stored if given_name(name) == name}
    given |= {given_name(name): name for name in stored if given_name(name) != name}
    # A declaration may have capitals itself, which SQL without quotes does not tell apart.
    folded = {name.upper(): name for name in names}
    return {
        folded.get(kept, name) if kept.isupper() else name: kept for name, kept in given.items()
    }
