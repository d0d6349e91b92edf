"""Parquet files become PostgreSQL tables: all of them, with their indexes, or none."""

import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import SecretStr

from lodestar.errors import DataError, ExternalError
from lodestar.infra.programs import driver
from lodestar.interface.progress import Progress

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Connection, Cursor

__all__ = ["LoadedTable", "ShopSize", "load_tables", "loaded_shop", "peak_memory_mb"]

MARKER = "lodestar_shop"
MAKE_MARKER = """
CREATE TABLE lodestar_shop (
    sessions bigint, users bigint, products bigint, seed bigint,
    loaded_at timestamptz DEFAULT now()
)
"""
MARK = "INSERT INTO lodestar_shop (sessions, users, products, seed) VALUES ($1, $2, $3, $4)"
MARKED = "SELECT sessions, users, products, seed FROM lodestar_shop"
TYPES = {
    pa.string(): "text",
    pa.int64(): "bigint",
    pa.float64(): "double precision",
    pa.timestamp("us", tz="UTC"): "timestamptz",
}
INDEXES = {
    "sessions": ("event_timestamp",),
    "user_demographics": ("user_id", "event_timestamp"),
    "user_purchase_summary": ("user_id", "event_timestamp"),
    "product_details": ("product_id", "event_timestamp"),
    "session_summary": ("session_id", "event_timestamp"),
}
CONNECT_TIMEOUT = 10


@dataclass(frozen=True)
class ShopSize:
    """What a generated shop is made of; the same sizes and seed make the same rows."""

    sessions: int = 1_000_000
    users: int = 100_000
    products: int = 10_000
    seed: int = 7


@dataclass(frozen=True)
class LoadedTable:
    """A table, and how many rows it has got."""

    name: str
    rows: int


def loaded_shop(uri: SecretStr) -> ShopSize | None:
    """The sizes of the shop that the database has, as its marker table says; none without one.

    Raises:
        ExternalError: the database cannot be asked.
    """
    with _transaction(uri) as cursor:
        return _marked(cursor)


def load_tables(
    uri: SecretStr, files: Sequence[Path], size: ShopSize, progress: Progress
) -> tuple[LoadedTable, ...]:
    """Load each file as the table of its name, replacing a shop that was loaded before.

    One transaction: another session sees the old tables, or all of the new ones.

    Raises:
        DataError: there is a table of such a name that no earlier call has made.
        ExternalError: the database cannot be reached or refuses.
    """
    names = [file.stem for file in files]
    with _transaction(uri) as cursor:
        if _marked(cursor) is not None:
            cursor.execute(f"DROP TABLE IF EXISTS {', '.join((*names, MARKER))}")
        _refuse_foreign(cursor, names)
        loaded = tuple(_load(cursor, file, progress) for file in files)
        progress.stage("index and analyse")
        for name in names:
            if name in INDEXES:
                cursor.execute(f"CREATE INDEX ON {name} ({', '.join(INDEXES[name])})")
        cursor.execute(f"ANALYZE {', '.join(names)}")
        _mark(cursor, size)
    return loaded


def peak_memory_mb() -> float:
    """The most memory that this process has held, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _load(cursor: "Cursor", file: Path, progress: Progress) -> LoadedTable:
    name = file.stem
    progress.stage(f"load {name}")
    with pq.ParquetFile(file) as source:
        schema, total = source.schema_arrow, source.metadata.num_rows
        columns = ", ".join(f'"{field.name}" {TYPES[field.type]}' for field in schema)
        cursor.execute(f"CREATE TABLE {name} ({columns})")
        batches = _counted(source, total, progress)
        cursor.adbc_ingest(name, pa.RecordBatchReader.from_batches(schema, batches), mode="append")
    return LoadedTable(name, total)


def _counted(source: pq.ParquetFile, total: int, progress: Progress) -> Iterator[pa.RecordBatch]:
    """One row group at a time, so that memory stays flat."""
    done = 0
    for group in range(source.num_row_groups):
        table = source.read_row_group(group)
        yield from table.to_batches()
        done += len(table)
        progress.rows(done, total)


def _marked(cursor: "Cursor") -> ShopSize | None:
    cursor.execute(f"SELECT to_regclass('{MARKER}')::text")
    if cursor.fetchone() == (None,):
        return None
    cursor.execute(MARKED)
    row = cursor.fetchone()
    return None if row is None else ShopSize(*row)


def _mark(cursor: "Cursor", size: ShopSize) -> None:
    cursor.execute(MAKE_MARKER)
    cursor.execute(MARK, (size.sessions, size.users, size.products, size.seed))


def _refuse_foreign(cursor: "Cursor", names: Sequence[str]) -> None:
    for name in names:
        cursor.execute(f"SELECT to_regclass('{name}')::text")
        if cursor.fetchone() != (None,):
            raise DataError(
                f"the database has a table {name!r} that is not of a generated shop",
                hint="rename or drop it, or start without the shop: lodestar infra up --no-data",
            )


@contextmanager
def _transaction(uri: SecretStr) -> "Iterator[Cursor]":
    """Commit when the block is over, take all back when it fails; the driver's errors become ours."""
    dbapi = _dbapi()
    connection: Connection | None = None
    try:
        connection = dbapi.connect(f"{uri.get_secret_value()}?connect_timeout={CONNECT_TIMEOUT}")
        with connection, connection.cursor() as cursor:
            yield cursor
            connection.commit()
    except dbapi.Error as error:
        what = "does not answer" if connection is None else "refused to load the tables"
        raise ExternalError(f"PostgreSQL {what}: {_said(error)}") from None


def _said(error: Exception) -> str:
    """The driver's first line: it names neither password nor rows."""
    return str(error).strip().split("\n")[0]


def _dbapi() -> Any:  # noqa: ANN401 -- a module that loads late
    driver("adbc_driver_postgresql")
    return driver("adbc_driver_postgresql.dbapi")
