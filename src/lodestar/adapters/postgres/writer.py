"""Tables in PostgreSQL as destinations: rows wait in a table aside, one transaction publishes them."""

import re
import secrets
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import pyarrow as pa

from lodestar.adapters.postgres.catalog import columns_of, quoted
from lodestar.adapters.postgres.session import PostgresConnection, Session, opened
from lodestar.adapters.postgres.values import refuse_unwritable
from lodestar.adapters.table_rows import (
    TableSink,
    kinds_of,
    refuse_other_columns,
    require_text_columns,
)
from lodestar.errors import ExternalError, SchemaError, UsageError
from lodestar.schema import canonical_schema

__all__ = ["PostgresSink", "PostgresWriter", "TableName", "table_of"]

_DESTINATION = re.compile(r"^postgres(?:ql)?://(?:([A-Za-z_]\w*)\.)?([A-Za-z_]\w*)$")
_LONGEST_NAME = 63  # bytes; the server cuts longer ones, and two names could become one
_TYPES = {
    "bool": ("boolean",),
    "int": ("bigint",),
    "float": ("double precision",),
    "string": ("text", "character varying"),
    "date": ("date",),
    "timestamp": ("timestamp with time zone",),
}
# What an unqualified name means now, or would mean if it were created.
_SCHEMA = """
SELECT coalesce(
    (SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.oid = to_regclass($1)), current_schema())::text
"""
_KIND = "SELECT relkind::text FROM pg_class WHERE oid = to_regclass($1)"
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('lodestar:' || $1, 0))::text"
_PATIENCE = "SELECT set_config('lock_timeout', $1, true)"


class PostgresWriter:
    """Writes tables of one database.

    A destination is `postgres://table` or `postgres://schema.table`: the connection knows the host.
    The table is made where there is none; one with other columns is refused. A table has no order.
    """

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    def sink(
        self, destination: str, schema: pa.Schema, *, replace: Mapping[str, str] | None = None
    ) -> "PostgresSink":
        """Prepare to write to a table, whose rows are all replaced.

        With `replace` only its rows that have these values are, and every row written must have
        them: so the same work done again leaves the same rows, beside those of others.

        Raises:
            UsageError: the destination is no table's name.
            SchemaError: a column that no table can have, or none for a value of `replace`.
        """
        target = canonical_schema(schema)
        for name in target.names:
            if not 0 < len(name.encode()) <= _LONGEST_NAME or "\0" in name:
                raise SchemaError(
                    f"PostgreSQL has no room for a column named {name!r}",
                    hint=f"a name has 1 to {_LONGEST_NAME} bytes",
                )
        require_text_columns(target, replace or ())
        return PostgresSink(self._connection, table_of(destination), target, dict(replace or {}))

    def probe(self, place: str) -> str:
        """Make a table in `postgres://schema`, write and read it, and undo the transaction."""
        table = table_of(f"{place.rstrip('/')}.lodestar_check_{secrets.token_hex(8)}")
        with opened(self._connection, writes=True) as session:
            session.rows(f"CREATE TABLE {table.sql} (probe text)")
            session.rows(f"INSERT INTO {table.sql} VALUES ($1)", [place])  # noqa: S608 -- quoted
            found = session.rows(f"SELECT probe FROM {table.sql}")  # noqa: S608 -- quoted
        if found != [(place,)]:
            raise ExternalError("PostgreSQL does not give back what was written to it")
        return "a table was made, written, read and undone"


@dataclass(frozen=True)
class TableName:
    """A table's name, and its schema's where it was said."""

    schema: str | None
    name: str

    @property
    def sql(self) -> str:
        """The name as SQL says it."""
        return quoted(*(part for part in (self.schema, self.name) if part is not None))


class PostgresSink(TableSink):
    """One transaction; the destination is locked only while the rows move there, at the end."""

    def __init__(
        self,
        connection: PostgresConnection,
        table: TableName,
        schema: pa.Schema,
        replace: Mapping[str, str],
    ) -> None:
        super().__init__(schema, replace)
        self._connection = connection
        self._table = table
        self._aside = f"lodestar_staging_{secrets.token_hex(8)}"
        self._rows = 0
        self._session: Session

    def _begin(self, stack: ExitStack) -> None:
        self._session = stack.enter_context(opened(self._connection, writes=True))
        if self._table.schema is None:
            ((schema,),) = self._session.rows(_SCHEMA, [self._table.sql])
            self._table = TableName(schema, self._table.name)
        self._exists()
        types = {name: _TYPES[kind][0] for name, kind in kinds_of(self._schema).items()}
        columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in types.items())
        self._session.rows(f"CREATE TABLE {self._staging} ({columns})")

    def _add(self, rows: pa.RecordBatch) -> None:
        refuse_unwritable(rows, first_row=self._rows)
        self._session.add(rows, str(self._table.schema), self._aside)
        self._rows += rows.num_rows

    def _publish(self) -> None:
        self._move()
        self._session.commit()

    @property
    def _staging(self) -> str:
        return TableName(self._table.schema, self._aside).sql

    def _move(self) -> None:
        """Move the rows in, one writer at a time; until the commit everyone else sees the old ones."""
        run = self._session.rows
        table, aside = self._table.sql, self._staging
        run(_PATIENCE, [f"{max(self._connection.statement_timeout - 1, 1)}s"])
        run(_LOCK, [table])
        if not self._exists():
            run(f"ALTER TABLE {aside} RENAME TO {quoted(self._table.name)}")
            return
        names = ", ".join(map(quoted, self._schema.names))
        places = enumerate(self._replace, start=1)
        which = " AND ".join(f"{quoted(name)} = ${number}" for number, name in places) or "true"
        run(f"DELETE FROM {table} WHERE {which}", list(self._replace.values()))  # noqa: S608 -- quoted
        run(f"INSERT INTO {table} ({names}) SELECT {names} FROM {aside}")  # noqa: S608 -- quoted
        run(f"DROP TABLE {aside}")

    def _exists(self) -> bool:
        """Whether the table is there.

        Raises:
            SchemaError: with other columns, or it is no table.
        """
        kind = self._session.rows(_KIND, [self._table.sql])
        if not kind:
            return False
        if kind[0][0] not in {"r", "p"}:
            raise SchemaError(f"{self._table.sql} is no table that rows can be added to")
        found = columns_of(self._session, self._table.sql)
        ours = {name: _TYPES[kind] for name, kind in kinds_of(self._schema).items()}
        refuse_other_columns(self._table.sql, found, ours)
        return True


def table_of(destination: str) -> TableName:
    """The table that a URI names.

    Raises:
        UsageError: it names none.
    """
    found = _DESTINATION.match(destination)
    names = [name for name in found.groups() if name is not None] if found else []
    # A destination that is none may hold a password: it is not shown.
    if found is None or any(len(name.encode()) > _LONGEST_NAME for name in names):
        raise UsageError(
            "a destination in PostgreSQL is postgres://table or postgres://schema.table",
            hint="host, user and password belong to the config's connection",
        )
    return TableName(found.group(1), found.group(2))
