"""Tables in BigQuery as destinations: rows are loaded aside, one statement publishes them."""

import random
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from lodestar.adapters.bigquery.errors import AlreadyThereError, ConflictError, UnknownTableError
from lodestar.adapters.bigquery.names import COLUMN_TYPES, found_types, quoted
from lodestar.adapters.bigquery.reader import near_tables
from lodestar.adapters.bigquery.session import Session
from lodestar.adapters.table_rows import kinds_of, refuse_other_columns
from lodestar.adapters.warehouse.sink import SpooledSink, WarehouseWriter
from lodestar.errors import DataError, ExternalError, SchemaError, UsageError
from lodestar.settings.warehouses import BigQuery

__all__ = ["BigQuerySink", "BigQueryTable", "BigQueryWriter", "table_of"]

# A project may be one of a domain's, `example.com:project`.
_URI = re.compile(r"^bq://((?:[a-z0-9.-]+:)?[a-z][a-z0-9-]*)\.(\w+)\.([\w-]+)$", re.ASCII)
_COLUMN = re.compile(r"[^\W\d][\w-]{0,299}")
_PAUSES = (1.0, 4.0, 10.0)  # seconds, before jitter, while others change the table
_LASTS = timedelta(days=1)


@dataclass(frozen=True)
class BigQueryTable:
    """A table's names."""

    project: str
    dataset: str
    name: str

    @property
    def parts(self) -> tuple[str, str, str]:
        """Project, dataset, table."""
        return self.project, self.dataset, self.name

    @property
    def shown(self) -> str:
        """As people and the client name it."""
        return ".".join(self.parts)

    @property
    def sql(self) -> str:
        """As SQL names it."""
        return quoted(*self.parts)


class BigQueryWriter(WarehouseWriter):
    """Writes tables of datasets that are there.

    A destination is `bq://project.dataset.table`. The table is made where there is none; one with other
    columns is refused. A table has no order.
    """

    def __init__(self, config: BigQuery, project: Path) -> None:
        self._config = config
        self._project = project

    def _require_room(self, names: Sequence[str]) -> None:
        small = [name.lower() for name in names]
        for name in names:
            if not _COLUMN.fullmatch(name) or small.count(name.lower()) > 1:
                raise SchemaError(
                    f"BigQuery has no room for a column named {name!r}",
                    hint="a name has at most 300 letters, digits and _, and none of others' in "
                    "other case",
                )

    def _sink(self, destination: str, schema: pa.Schema, replace: dict[str, str]) -> "BigQuerySink":
        return BigQuerySink(self._config, self._project, table_of(destination), schema, replace)

    def _read(self, destination: str) -> list[tuple[object, ...]]:
        sql = f"SELECT probe FROM {table_of(destination).sql}"  # noqa: S608 -- quoted
        with Session(self._config, self._project) as session:
            return [tuple(row.values()) for row in session.query(sql)]

    def _remove(self, destination: str) -> None:
        with Session(self._config, self._project) as session:
            session.remove(table_of(destination).shown)


class BigQuerySink(SpooledSink):
    """Loads the rows into a table aside, which one statement publishes."""

    def __init__(
        self,
        config: BigQuery,
        project: Path,
        table: BigQueryTable,
        schema: pa.Schema,
        replace: Mapping[str, str],
    ) -> None:
        super().__init__("BigQuery", schema, replace)
        self._config = config
        self._project = project
        self._table = table
        self._types = {name: COLUMN_TYPES[kind] for name, kind in kinds_of(schema).items()}

    def _look(self) -> None:
        with Session(self._config, self._project) as session:
            self._exists(session)

    def _publish(self) -> None:
        name = f"lodestar_staging_{secrets.token_hex(8)}"
        aside = BigQueryTable(self._table.project, self._table.dataset, name)
        types = {column: kinds[0] for column, kinds in self._types.items()}
        with Session(self._config, self._project) as session:
            made = session.make(aside.shown, types, expires=datetime.now(UTC) + _LASTS)
            try:
                self._require_all(sum(session.load(part, made) for part in self._spool.parts()))
                self._move(session, aside)
            finally:
                with suppress(ExternalError):  # then it goes by itself, in a day
                    session.remove(aside.shown)

    def _move(self, session: Session, aside: BigQueryTable) -> None:
        """Move the rows in by one statement; others see the old rows or the new ones."""
        if not self._exists(session):
            try:
                session.query(f"CREATE TABLE {self._table.sql} AS SELECT * FROM {aside.sql}")  # noqa: S608 -- quoted
            except AlreadyThereError:  # another writer was quicker
                self._exists(session)
            else:
                return
        names = ", ".join(map(quoted, self._types))
        which = "".join(
            f" AND t.{quoted(name)} = @value_{number}" for number, name in enumerate(self._replace)
        )
        values = [
            session.text(f"value_{number}", value)
            for number, value in enumerate(self._replace.values())
        ]
        merge = (  # names are checked and quoted, values are bound
            f"MERGE {self._table.sql} AS t USING {aside.sql} AS s ON FALSE "  # noqa: S608 -- as above
            f"WHEN NOT MATCHED BY SOURCE{which} THEN DELETE "
            f"WHEN NOT MATCHED BY TARGET THEN INSERT ({names}) VALUES ({names})"
        )
        for pause in (*_PAUSES, None):
            try:
                session.query(merge, values)
            except ConflictError:
                if pause is None:
                    raise
                time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 -- no secret
            else:
                return

    def _exists(self, session: Session) -> bool:
        """Whether the table is there.

        Raises:
            DataError: there is no such dataset.
            SchemaError: with other columns, or it is no table.
        """
        try:
            found = session.table(self._table.shown)
        except UnknownTableError as error:
            if not error.is_dataset:
                return False
            hint = near_tables(session, error, [self._table.parts])
            raise DataError(error.what, hint=hint) from None
        if found.table_type != "TABLE":
            raise SchemaError(f"{self._table.shown} is no table that rows can be added to")
        refuse_other_columns(self._table.shown, found_types(found.schema), self._types)
        return True


def table_of(uri: str) -> BigQueryTable:
    """The table that a URI names.

    Raises:
        UsageError: it names none; it is not shown, as it may hold a password.
    """
    found = _URI.match(uri)
    if found is None:
        raise UsageError(
            "a table in BigQuery is bq://project.dataset.table",
            hint="credentials and location belong to the config's section data.bigquery",
        )
    return BigQueryTable(*found.groups())
