"""A schema of its own for each test in the suite's PostgreSQL, and how to fill and read it plainly."""

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pyarrow as pa
from adbc_driver_postgresql import dbapi
from pydantic import SecretStr

from lodestar.adapters.postgres.reader import PostgresConnection, PostgresReader
from lodestar.sql import parse_query

__all__ = ["Database", "fresh_database"]

TIMEOUT = 20


@dataclass(frozen=True)
class Database:
    """One schema, which unqualified names mean."""

    server: str = field(repr=False)
    schema: str = field(default_factory=lambda: f"test_{secrets.token_hex(6)}")

    @property
    def uri(self) -> str:
        """The server's URI, with this schema as the search path."""
        return f"{self.server}?options={quote(f'-csearch_path={self.schema}')}"

    @property
    def port(self) -> int:
        """Where the server listens."""
        return urlsplit(self.server).port or 5432

    @property
    def password(self) -> str:
        """The password in the URI."""
        return urlsplit(self.server).password or ""

    def connection(self, *, timeout: int = TIMEOUT, uri: str | None = None) -> PostgresConnection:
        """What an adapter connects with."""
        return PostgresConnection(
            SecretStr(self.uri if uri is None else uri), timeout, 5, "lodestar test"
        )

    def through(self, port: int, *, timeout: int = TIMEOUT) -> PostgresConnection:
        """The same by way of another port of this machine."""
        there = urlsplit(self.uri)
        return self.connection(
            timeout=timeout, uri=self.uri.replace(f":{there.port}/", f":{port}/")
        )

    def reader(
        self,
        sql: str,
        params: Mapping[str, str] | None = None,
        *,
        connection: PostgresConnection | None = None,
        dialect: str = "postgres",
    ) -> PostgresReader:
        """Read by a query."""
        query = parse_query(sql, dialect, where="x.sql")
        return PostgresReader(connection or self.connection(), query, params or {})

    def run(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement as the plain driver does."""
        with psycopg.connect(self.uri, autocommit=True) as connection:
            cursor = connection.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []

    def put(self, table: pa.Table, name: str) -> None:
        """Make a table of these rows."""
        with dbapi.connect(self.uri) as connection, connection.cursor() as cursor:
            cursor.adbc_ingest(name, table, mode="create", db_schema_name=self.schema)
            connection.commit()

    def fill(self, table: str, rows: list[tuple[Any, ...]]) -> None:
        """Put rows into a table, in this order."""
        name = psycopg.sql.Identifier(table)
        with psycopg.connect(self.uri, autocommit=True) as connection:
            statement = psycopg.sql.SQL("COPY {} FROM STDIN").format(name)
            with connection.cursor().copy(statement) as copy:
                for row in rows:
                    copy.write_row(row)

    def is_left(self, names: str) -> bool:
        """Whether sessions of such names end: the server takes a moment after their client has gone."""
        open_ = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s"
        ends = time.monotonic() + TIMEOUT
        while (sessions := self.run(open_, names)) != [(0,)] and time.monotonic() < ends:
            time.sleep(0.05)
        return sessions == [(0,)]

    def tables(self) -> list[str]:
        """The names of the schema's tables."""
        rows = self.run(
            "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r'",
            self.schema,
        )
        return sorted(name for (name,) in rows)


@contextmanager
def fresh_database(uri: str) -> Iterator[Database]:
    """An empty schema, dropped at the end with all that is in it."""
    database = Database(uri)
    with psycopg.connect(uri, autocommit=True) as connection:
        name = psycopg.sql.Identifier(database.schema)
        connection.execute(psycopg.sql.SQL("CREATE SCHEMA {}").format(name))
        yield database
        connection.execute("SET lock_timeout = '60s'")
        connection.execute(psycopg.sql.SQL("DROP SCHEMA {} CASCADE").format(name))
