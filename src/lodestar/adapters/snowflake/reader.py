"""SQL in Snowflake: the recipe's query runs in the warehouse, its rows stream out as Arrow."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from sqlglot import exp

from lodestar.adapters.snowflake.catalog import columns_of, databases, tables
from lodestar.adapters.snowflake.errors import UnknownColumnError, UnknownObjectError
from lodestar.adapters.snowflake.names import (
    canonical_chunks,
    canonical_types,
    folded,
    given_name,
    stored_name,
)
from lodestar.adapters.snowflake.parts import snowflake_parts
from lodestar.adapters.snowflake.session import Session, opened
from lodestar.errors import DataError, SchemaError, choices
from lodestar.interface.parts import Divided, Division
from lodestar.settings.warehouses import Snowflake
from lodestar.sql import Query

__all__ = ["SnowflakeReader"]


class SnowflakeReader:
    """One query, run anew by each read; its parameters are bound as texts, which Snowflake converts.

    Columns have the query's names, where it gives them; behind a `*`, plain names are in lower case.
    """

    def __init__(
        self, config: Snowflake, project: Path, query: Query, params: Mapping[str, str]
    ) -> None:
        self._config = config
        self._project = project
        self._query = query
        names = query.parameters
        self._sql = _numbered(query, names)
        self._values = [params[name] for name in names]

    def schema(self) -> pa.Schema:
        """The query's columns; it is not run, and no warehouse is woken."""
        with opened(self._config, self._project) as session, self._near_names(session):
            # An empty value is one that is not known yet.
            described = session.describe(self._sql, [value or None for value in self._values])
            return canonical_types(described, self._query.columns())

    def read(self, *, chunk_rows: int) -> pa.RecordBatchReader:
        """Stream the rows in the query's order."""
        target = self.schema()

        def stream() -> Iterator[pa.RecordBatch]:
            with opened(self._config, self._project, works=True) as session:
                batches = session.stream(self._sql, self._values)
                yield from canonical_chunks(batches, target, chunk_rows)

        return pa.RecordBatchReader.from_batches(target, stream())

    @contextmanager
    def parts(self, division: Division) -> Iterator[Divided]:
        """Run the query once; its result stays in Snowflake, in batches that several can fetch."""
        target = self.schema()
        with opened(self._config, self._project, works=True) as session:
            result = session.kept(self._sql, self._values)
        yield Divided(
            snowflake_parts(self._config, self._project, result, target, division), moving=True
        )

    @contextmanager
    def _near_names(self, session: Session) -> Iterator[None]:
        """Say which names there are, where the query has one that there is not."""
        try:
            yield
        except UnknownObjectError as error:
            raise DataError(error.what, hint=self._near_objects(session, error.name)) from error
        except UnknownColumnError as error:
            known = {
                given_name(name)
                for table in self._query.tables
                for name in columns_of(session, *self._place(table))
            }
            wanted = given_name(error.name).rpartition(".")[2].strip('"').lower()
            raise SchemaError(error.what, hint=choices(wanted, sorted(known))) from error

    def _near_objects(self, session: Session, wanted: str) -> str:
        """The tables of the database that the query means, or the databases, if that is none."""
        known = databases(session)
        for table in self._query.tables:
            database = self._place(table)[0]
            if database not in known:
                return "databases: " + choices(
                    given_name(database), [given_name(one) for one in known]
                )
        table = given_name(wanted.rpartition(".")[2])
        found = sorted(
            name
            for database in {self._place(one)[0] for one in self._query.tables}
            for name in tables(session, database, self._config.schema_name)
        )
        return choices(table, found)

    def _place(self, table: str) -> tuple[str, str, str]:
        """Database, schema and name of a table that a query names."""
        parts = [stored_name(part.lower()) for part in table.split(".")]
        here = [stored_name(self._config.database), stored_name(self._config.schema_name)]
        database, schema, name = [*here[: 3 - len(parts)], *parts]
        return database, schema, name


def _numbered(query: Query, names: tuple[str, ...]) -> str:
    """The query as Snowflake says it, its parameters numbered in the order of `names`."""
    tree = folded(query.tree.copy(), query.dialect)
    for node in list(tree.find_all(exp.Placeholder)):
        node.set("this", str(names.index(str(node.this)) + 1))
    return replace(query, tree=tree).to("snowflake")
