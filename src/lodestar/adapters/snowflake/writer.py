"""Tables in Snowflake as destinations: rows are loaded aside, one transaction publishes them."""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from lodestar.adapters.snowflake.catalog import columns_of, databases, kind_of, schemas
from lodestar.adapters.snowflake.errors import AlreadyExistsError
from lodestar.adapters.snowflake.loading import loaded_aside
from lodestar.adapters.snowflake.names import COLUMN_TYPES, given_name, quoted, stored_name
from lodestar.adapters.snowflake.session import Session, opened
from lodestar.adapters.table_rows import kinds_of, refuse_other_columns
from lodestar.adapters.warehouse.sink import SpooledSink, WarehouseWriter
from lodestar.errors import DataError, LodestarError, SchemaError, UsageError, choices
from lodestar.settings.warehouses import Snowflake

__all__ = ["SnowflakeSink", "SnowflakeTable", "SnowflakeWriter", "table_of"]

_URI = re.compile(
    r"^snowflake://([A-Za-z_][\w$]*)\.([A-Za-z_][\w$]*)\.([A-Za-z_][\w$]*)$", re.ASCII
)
_LONGEST_NAME = 255


@dataclass(frozen=True)
class SnowflakeTable:
    """A table's names, as Snowflake keeps them."""

    database: str
    schema: str
    name: str

    @property
    def parts(self) -> tuple[str, str, str]:
        """Database, schema, table."""
        return self.database, self.schema, self.name

    @property
    def sql(self) -> str:
        """As SQL names it."""
        return quoted(*self.parts)

    @property
    def shown(self) -> str:
        """As people name it."""
        return ".".join(map(given_name, self.parts))


class SnowflakeWriter(WarehouseWriter):
    """Writes tables of an account.

    A destination is `snowflake://database.schema.table`. The table is made where there is none; one with
    other columns is refused. A table has no order.
    """

    def __init__(self, config: Snowflake, project: Path) -> None:
        self._config = config
        self._project = project

    def _require_room(self, names: Sequence[str]) -> None:
        stored = [stored_name(name) for name in names]
        for name, kept in zip(names, stored, strict=True):
            if not 0 < len(name) <= _LONGEST_NAME or stored.count(kept) > 1:
                raise SchemaError(
                    f"Snowflake has no room for a column named {name!r}",
                    hint=f"a name has 1 to {_LONGEST_NAME} signs, and others than {kept!r}",
                )

    def _sink(
        self, destination: str, schema: pa.Schema, replace: dict[str, str]
    ) -> "SnowflakeSink":
        return SnowflakeSink(self._config, self._project, table_of(destination), schema, replace)

    def _read(self, destination: str) -> Sequence[tuple[object, ...]]:
        with opened(self._config, self._project, works=True) as session:
            return session.rows(f"SELECT probe FROM {table_of(destination).sql}")  # noqa: S608 -- quoted

    def _remove(self, destination: str) -> None:
        with opened(self._config, self._project) as session:
            session.rows(f"DROP TABLE IF EXISTS {table_of(destination).sql}")


class SnowflakeSink(SpooledSink):
    """Loads the rows into a table that only its session sees; one transaction publishes them."""

    def __init__(
        self,
        config: Snowflake,
        project: Path,
        table: SnowflakeTable,
        schema: pa.Schema,
        replace: Mapping[str, str],
    ) -> None:
        # Files and the table aside have plain names: columns match by name, in capitals or not.
        plain = [f"C{at}" for at in range(len(schema))]
        super().__init__("Snowflake", schema, replace, names=plain)
        self._config = config
        self._project = project
        self._table = table
        kinds = kinds_of(schema)
        self._types = {stored_name(name): COLUMN_TYPES[kind] for name, kind in kinds.items()}

    def _look(self) -> None:
        with opened(self._config, self._project) as session:
            self._exists(session)

    def _publish(self) -> None:
        with opened(self._config, self._project, works=True) as session:
            self._move(session, self._loaded(session))

    def _loaded(self, session: Session) -> str:
        """The rows in a table that only this session sees, and that goes with it."""
        name = f"LODESTAR_STAGING_{secrets.token_hex(8).upper()}"
        aside = quoted(self._table.database, self._table.schema, name)
        kinds = [kinds[0] for kinds in self._types.values()]
        columns = dict(zip(self._waiting.names, kinds, strict=True))
        self._require_all(loaded_aside(session, aside, columns, self._spool))
        return aside

    def _move(self, session: Session, aside: str) -> None:
        """Move the rows in; until the commit everyone else sees the old ones.

        No statement that makes tables is part of the transaction: Snowflake would commit before it.
        """
        table, run = self._table.sql, session.rows
        columns = list(zip(self._waiting.names, map(quoted, self._types), strict=True))
        renamed = ", ".join(f"{name} AS {wanted}" for name, wanted in columns)
        if not self._exists(session):
            try:
                run(f"CREATE TABLE {table} AS SELECT {renamed} FROM {aside}")  # noqa: S608 -- quoted
            except AlreadyExistsError:  # another writer was quicker
                self._exists(session)
            else:
                return
        taken, names = (", ".join(half) for half in zip(*columns, strict=True))
        places = enumerate(map(stored_name, self._replace), start=1)
        which = " AND ".join(f"{quoted(name)} = :{number}" for number, name in places) or "TRUE"
        run("BEGIN TRANSACTION")
        try:
            run(f"DELETE FROM {table} WHERE {which}", list(self._replace.values()))  # noqa: S608 -- quoted
            run(f"INSERT INTO {table} ({names}) SELECT {taken} FROM {aside}")  # noqa: S608 -- quoted
        except LodestarError:
            run("ROLLBACK")
            raise
        run("COMMIT")

    def _exists(self, session: Session) -> bool:
        """Whether the table is there.

        Raises:
            DataError: there is no such database, or no such schema in it.
            SchemaError: with other columns, or it is no table.
        """
        database, schema, _ = self._table.parts
        _require("database", database, databases(session))
        _require("schema", schema, schemas(session, database))
        kind = kind_of(session, *self._table.parts)
        if kind is None:
            return False
        if kind != "BASE TABLE":
            raise SchemaError(f"{self._table.shown} is no table that rows can be added to")
        found = columns_of(session, *self._table.parts)
        refuse_other_columns(self._table.shown, found, self._types)
        return True


def _require(what: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise DataError(
            f"there is no {what} {given_name(name)!r} in Snowflake, or it is not for our role",
            hint=choices(given_name(name), [given_name(one) for one in known]),
        )


def table_of(uri: str) -> SnowflakeTable:
    """The table that a URI names.

    Raises:
        UsageError: it names none; it is not shown, as it may hold a password.
    """
    found = _URI.match(uri)
    if found is None:
        raise UsageError(
            "a table in Snowflake is snowflake://database.schema.table",
            hint="account, user and secrets belong to the config's section data.snowflake",
        )
    return SnowflakeTable(*(part.upper() for part in found.groups()))
