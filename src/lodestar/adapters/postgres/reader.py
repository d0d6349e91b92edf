"""SQL in PostgreSQL: the recipe's query runs in the server, its rows stream out as Arrow."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa

from lodestar.adapters.postgres.catalog import columns_of, quoted, tables
from lodestar.adapters.postgres.errors import UnknownColumnError, UnknownTableError
from lodestar.adapters.postgres.parts import postgres_parts
from lodestar.adapters.postgres.query import bound, refuse_unwritable_parameter, rows_of
from lodestar.adapters.postgres.session import PostgresConnection, Session, opened
from lodestar.adapters.postgres.values import canonical_types
from lodestar.errors import DataError, SchemaError, choices
from lodestar.interface.parts import Divided, Division
from lodestar.sql import Query

__all__ = ["PostgresConnection", "PostgresReader"]


class PostgresReader:
    """One query, run anew by each read, in a session that can only read.

    Its parameters have the types that the server infers from where they stand.
    """

    def __init__(
        self, connection: PostgresConnection, query: Query, params: Mapping[str, str]
    ) -> None:
        self._connection = connection
        self._query = query
        self._params = dict(params)
        for name, value in params.items():
            refuse_unwritable_parameter(name, value)

    def schema(self) -> pa.Schema:
        """The query's columns; it is not run."""
        with opened(self._connection) as session, self._near_names(session):
            return canonical_types(session.schema(bound(session, self._query, self._params)))

    def read(self, *, chunk_rows: int) -> pa.RecordBatchReader:
        """Stream the rows in the query's order; its time runs until the last one is taken."""
        target = self.schema()

        def stream() -> Iterator[pa.RecordBatch]:
            with opened(self._connection) as session:
                sql = bound(session, self._query, self._params)
                yield from rows_of(session, sql, target, chunk_rows)

        return pa.RecordBatchReader.from_batches(target, stream())

    @contextmanager
    def parts(self, division: Division) -> Iterator[Divided]:
        """The rows of this moment, in ranges that several sessions read while this block lasts.

        The server divides them: by blocks of the table that the query is about, or by the values of a
        column. A query that would not give the same rows each time is read by one session.
        """
        columns = self.schema().names
        where = (self._connection, self._query, self._params, columns)
        with postgres_parts(*where, division) as divided:
            yield divided

    @contextmanager
    def _near_names(self, session: Session) -> Iterator[None]:
        """Say which names there are, where the query has one that there is not."""
        try:
            yield
        except UnknownTableError as error:
            hint = choices(_name_in(error.what), tables(session))
            raise DataError(f"the SQL fails: {error.what}", hint=hint) from error
        except UnknownColumnError as error:
            known = {
                name
                for table in self._query.tables
                for name in columns_of(session, quoted(*table.split(".")))
            }
            hint = choices(_name_in(error.what).rpartition(".")[2], sorted(known))
            raise SchemaError(f"the SQL fails: {error.what}", hint=hint) from error


def _name_in(said: str) -> str:
    """The name that the server's message is about: in quotes, or with its table's name before it."""
    found = re.search(r'"([^"]+)"|(\w+\.\w+)', said)
    return (found.group(1) or found.group(2)) if found else ""
