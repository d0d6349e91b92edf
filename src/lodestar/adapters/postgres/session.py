"""One session with PostgreSQL: made with a deadline, driven by its own thread, its errors ours."""

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import SecretStr

from lodestar.adapters.drivers import driver
from lodestar.adapters.postgres.errors import (
    connecting_failed,
    is_passing,
    server_failed,
    unreadable_uri,
)
from lodestar.adapters.threads.driver import DriverThread
from lodestar.errors import UsageError
from lodestar.settings.config import Data

__all__ = ["PostgresConnection", "Session", "opened"]

T = TypeVar("T")
# A server that stops in the middle sends no error: its own timeout passed this long ago.
GRACE = 5.0
PAUSES = (0.5, 2.0)
LONGEST_CONNECTING = 15
SHORTEST_CONNECTING = 2  # libpq takes less for none
BATCH_BYTES = 4 << 20
# One @, and before the first / or ?: a password with such signs would be taken for a host, and shown.
_URI = re.compile(r"^postgres(ql)?://([^@/?]*@)?[^@/?]*([/?][^@]*)?$")


@dataclass(frozen=True)
class PostgresConnection:
    """Which server, and how long to wait for it.

    `uri` is `postgresql://user:password@host:port/database`. One statement, with the reading of its
    rows, may take `statement_timeout` seconds; connecting takes at most `connect_timeout` seconds
    (15 count as the most). The server lists its sessions under the name `application`.
    """

    uri: SecretStr
    statement_timeout: int
    connect_timeout: int = 10
    application: str = "lodestar"

    @classmethod
    def from_config(cls, data: Data, *, application: str | None = None) -> "PostgresConnection":
        """As the config says, under its own name for our sessions or under another.

        Raises:
            UsageError: it says nothing of a server.
        """
        section = data.postgres
        if section is None:
            raise UsageError(
                "the config says postgres but not which server",
                hint="set data.postgres.uri, as config/dev.yaml does",
            )
        name = application or section.application_name
        return cls(section.uri, section.statement_timeout, section.connect_timeout, name)


class Session:
    """One transaction, undone by any error. A call waits a little longer than the server may take.

    The driver blocks in C and offers no way out of a socket on which nothing comes, so a thread of
    its own does; it is left behind, and closes the connection, should an answer ever come.
    """

    def __init__(self, connection: PostgresConnection) -> None:
        self._timeout = connection.statement_timeout
        self._thread = DriverThread("PostgreSQL", GRACE)
        self._driver: Any = None

    def connect(
        self, connection: PostgresConnection, *, writes: bool, repeats: bool = False
    ) -> None:
        """Connect, and again if that fails in a way that may pass.

        Raises:
            ExternalError: not within the time.
        """
        dbapi = _driver("adbc_driver_postgresql.dbapi")
        longest = min(connection.connect_timeout, LONGEST_CONNECTING)
        deadline = time.monotonic() + longest
        for pause in (*PAUSES, None):
            left = max(deadline - time.monotonic(), SHORTEST_CONNECTING)
            target = _conninfo(connection, int(left), writes=writes, repeats=repeats)
            try:
                self._driver = self._thread.call(partial(dbapi.connect, target), left + 1)
            except dbapi.Error as error:
                over = pause is None or time.monotonic() + pause >= deadline
                if over or not is_passing(str(error)):
                    raise connecting_failed(str(error)) from None
                time.sleep(pause or 0)
            else:
                return

    def rows(self, sql: str, values: Sequence[str] = ()) -> list[tuple[Any, ...]]:
        """Run a statement with `$1`, `$2`, … bound to texts; the few rows that it gives, if any."""

        def work() -> list[tuple[Any, ...]]:
            with self._driver.cursor() as cursor:
                cursor.execute(sql, tuple(values) or None)
                return list(cursor.fetchall()) if cursor.description else []

        return self._call(work)

    def plan(self, sql: str) -> dict[str, Any]:
        """How the server would run a query, in the terms of its `EXPLAIN`; it is not run."""

        def work() -> list[tuple[Any, ...]]:
            with self._driver.cursor() as cursor:
                cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
                cursor.execute(f"EXPLAIN (VERBOSE, FORMAT JSON) {sql}")
                return list(cursor.fetchall())

        ((said,),) = self._call(work)
        plan: dict[str, Any] = json.loads(said)[0]["Plan"]
        return plan

    def schema(self, sql: str) -> pa.Schema:
        """The columns that a query would give; it is not run."""

        def work() -> pa.Schema:
            with self._driver.cursor() as cursor:
                return cursor.adbc_execute_schema(sql)

        return self._call(work)

    def stream(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Run a query; a few megabytes of its rows at a time."""
        began = time.monotonic()
        cursor = self._call(self._driver.cursor)
        try:

            def start() -> pa.RecordBatchReader:
                hint = {"adbc.postgresql.batch_size_hint_bytes": str(BATCH_BYTES)}
                cursor.adbc_statement.set_options(**hint)
                cursor.execute(sql)
                return cursor.fetch_record_batch()

            reader = self._call(start, began)
            while (batch := self._call(lambda: next(reader, None), began)) is not None:
                yield batch
        finally:
            self._thread.call_later(cursor.close)

    def add(self, batch: pa.RecordBatch, schema: str, table: str) -> None:
        """Copy rows into a table that has just these columns."""

        def work() -> None:
            with self._driver.cursor() as cursor:
                cursor.adbc_ingest(table, batch, mode="append", db_schema_name=schema)

        self._call(work)

    def commit(self) -> None:
        """End the transaction well."""
        self._call(self._driver.commit)

    def close(self) -> None:
        """Close the connection, which undoes what was not committed; wait no longer than a little."""
        if self._driver is not None:
            self._thread.call_later(self._driver.close)
        self._thread.end()

    def _call(self, work: Callable[[], T], began: float | None = None) -> T:
        began = time.monotonic() if began is None else began
        dbapi = _driver("adbc_driver_postgresql.dbapi")
        try:
            return self._thread.call(work, self._timeout + GRACE)
        except (dbapi.Error, pa.ArrowException, OSError) as error:
            took = time.monotonic() - began
            raise server_failed(
                error,
                lost=not self._undo(),
                timeout=self._timeout if took > self._timeout else None,
            ) from None

    def _undo(self) -> bool:
        """Undo the transaction; false where no connection is left to do it with.

        The driver forgets the error codes of streams, and messages may be in any language.
        """
        dbapi = _driver("adbc_driver_postgresql.dbapi")
        try:
            self._thread.call(self._driver.rollback, GRACE)
        except dbapi.Error:
            return False
        return True


@contextmanager
def opened(
    connection: PostgresConnection, *, writes: bool = False, repeats: bool = False
) -> Iterator[Session]:
    """A session, read only unless it `writes`, with times in UTC.

    One that `repeats` sees the rows of one moment, whatever is committed meanwhile.

    Raises:
        ExternalError: no connection within its time.
        UsageError: the URI cannot be read.
    """
    session = Session(connection)
    try:
        session.connect(connection, writes=writes, repeats=repeats)
        yield session
    finally:
        session.close()


def _conninfo(connection: PostgresConnection, seconds: int, *, writes: bool, repeats: bool) -> str:
    """What libpq connects with: the URI's own settings, then ours."""
    psycopg = _driver("psycopg")
    uri = re.sub(r"^(postgres(?:ql)?)\+\w+://", r"\1://", connection.uri.get_secret_value())
    if not _URI.match(uri):
        raise unreadable_uri()
    settings = {
        "TimeZone": "UTC",
        "statement_timeout": f"{connection.statement_timeout * 1000}",
        "default_transaction_read_only": "off" if writes else "on",
        # Whoever waited for a lock must see what its holder did.
        "default_transaction_isolation": r"repeatable\ read" if repeats else r"read\ committed",
        # Between two batches of a write the transaction waits for whoever makes the rows.
        "idle_in_transaction_session_timeout": "0",
    }
    ours = " ".join(f"-c {name}={value}" for name, value in settings.items())
    try:
        theirs = psycopg.conninfo.conninfo_to_dict(uri).get("options") or ""
        made: str = psycopg.conninfo.make_conninfo(
            uri,
            options=f"{theirs} {ours}".strip(),
            connect_timeout=seconds,
            application_name=connection.application,
            client_encoding="UTF8",
        )
    except psycopg.ProgrammingError:
        raise unreadable_uri() from None
    return made


def _driver(name: str) -> Any:  # noqa: ANN401 -- a module
    return driver(name, store="PostgreSQL", extra="postgres")
