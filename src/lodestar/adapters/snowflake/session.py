"""One session with Snowflake: logged in within a time, tagged with its work, its errors ours."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

import pyarrow as pa

from lodestar.adapters.drivers import driver
from lodestar.adapters.snowflake.errors import driver_failed, login_failed
from lodestar.adapters.snowflake.names import quoted, stored_name
from lodestar.adapters.threads.driver import DriverThread
from lodestar.errors import ExternalError, UsageError
from lodestar.settings.warehouses import Snowflake

__all__ = ["KeptResult", "Session", "opened"]

T = TypeVar("T")
# The client waits this much longer than the server lets a statement run.
GRACE = 5
GOODBYE = 5  # seconds that a logout may take


@dataclass(frozen=True)
class KeptResult:
    """A result that Snowflake keeps for a day: the query's id, and how many rows each batch has."""

    query_id: str
    counts: tuple[int, ...]


class Session:
    """One login. Statements commit by themselves, unless a transaction was begun.

    The driver waits for ever for a chunk of a result on a network that hangs, and blocks in C; so it
    has a thread of its own.
    """

    def __init__(self, config: Snowflake, project: Path) -> None:
        self._config = config
        self._driver = driver(
            "snowflake.connector",
            store="Snowflake",
            extra="snowflake",
            package="snowflake-connector-python",
        )
        options = _options(config, project)
        self._thread = DriverThread("Snowflake", GOODBYE)
        # A request with all its attempts, and a statement with its waiting for a warehouse.
        self._patience = config.statement_timeout + config.network_timeout + GRACE
        self._connection: Any = None
        try:
            self._connection = self._thread.call(
                partial(self._driver.connect, **options), config.login_timeout + GRACE
            )
        except self._driver.Error as error:
            raise login_failed(error) from None
        finally:
            if self._connection is None:
                self._thread.end()

    def wake(self) -> None:
        """See to the warehouse, as the config says.

        Raises:
            LodestarError: there is none of that name, or it is not ours to change.
        """
        warehouse = self._config.warehouse
        if warehouse is None:
            return
        name = quoted(stored_name(warehouse.name))
        if warehouse.size is not None:
            self.rows(f"ALTER WAREHOUSE {name} SET WAREHOUSE_SIZE = {warehouse.size.upper()}")
        if warehouse.resume:
            self.rows(f"ALTER WAREHOUSE {name} RESUME IF SUSPENDED")

    def rows(self, sql: str, values: Sequence[str | None] = ()) -> list[tuple[Any, ...]]:
        """Run a statement with `:1`, `:2`, … bound; the few rows that it gives."""

        def work() -> list[tuple[Any, ...]]:
            with self._connection.cursor() as cursor:
                return list(cursor.execute(sql, tuple(values) or None).fetchall())

        return self._call(work)

    def describe(self, sql: str, values: Sequence[str | None] = ()) -> list[Any]:
        """The columns that a query would give, as the driver describes them; it is not run."""

        def work() -> list[Any]:
            with self._connection.cursor() as cursor:
                return list(cursor.describe(sql, tuple(values) or None) or ())

        return self._call(work)

    def stream(self, sql: str, values: Sequence[str | None] = ()) -> Iterator[pa.RecordBatch]:
        """Run a query; its rows as the server's chunks come, a few of which are held.

        Raises:
            ExternalError: fewer rows came than there are.
        """
        cursor = self._call(self._connection.cursor)
        try:
            self._call(partial(cursor.execute, sql, tuple(values) or None))
            wanted, came = cursor.rowcount, 0
            tables = self._call(
                partial(cursor.fetch_arrow_batches, force_microsecond_precision=True)
            )
            while (table := self._call(partial(next, tables, None))) is not None:
                came += table.num_rows
                yield from table.to_batches()
            if came != wanted:
                raise ExternalError(
                    f"Snowflake sent {came:,} of {wanted:,} rows",
                    hint="nothing was kept of them; try again",
                )
        finally:
            self._thread.call_later(cursor.close)

    def kept(self, sql: str, values: Sequence[str | None] = ()) -> KeptResult:
        """Run a query whose rows are left where they are, for sessions of the same user to fetch."""

        def work() -> KeptResult:
            with self._connection.cursor() as cursor:
                cursor.execute(sql, tuple(values) or None)
                batches = cursor.get_result_batches() or ()
                return KeptResult(str(cursor.sfqid), tuple(batch.rowcount for batch in batches))

        return self._call(work)

    def fetch(self, result: KeptResult, numbers: Iterable[int]) -> Iterator[pa.RecordBatch]:
        """The rows of some of a result's batches, a batch at a time.

        Raises:
            ExternalError: the result is gone, or another user's, or its batches are others.
        """
        cursor = self._call(self._connection.cursor)
        try:
            self._call(partial(cursor.query_result, result.query_id))
            batches = self._call(cursor.get_result_batches) or []
            if tuple(batch.rowcount for batch in batches) != result.counts:
                raise ExternalError(
                    "Snowflake gives the result in other batches than before",
                    hint="nothing was kept of it; run the command again",
                )
            for number in numbers:
                read = partial(batches[number].to_arrow, force_microsecond_precision=True)
                yield from self._call(read).to_batches()
        finally:
            self._thread.call_later(cursor.close)

    def put(self, file: IO[bytes], name: str, stage: str) -> None:
        """Upload a file to a stage.

        Raises:
            ExternalError: it did not get there.
        """
        where = f"'file:///{name}' @{stage} AUTO_COMPRESS = FALSE OVERWRITE = TRUE"

        def work() -> list[str]:
            with self._connection.cursor() as cursor:
                cursor.execute(f"PUT {where}", file_stream=file)
                return [str(row[6]) for row in cursor.fetchall()]

        told = self._call(work)
        if told != ["UPLOADED"]:
            raise ExternalError(
                f"the stage of Snowflake did not take the rows: {', '.join(told) or 'nothing said'}",
                hint="nothing was published; try again",
            )

    def close(self) -> None:
        """Log out, which undoes what was not committed; wait no longer than a little."""
        self._thread.call_later(self._connection.close)
        self._thread.end()

    def _call(self, work: Callable[[], T]) -> T:
        try:
            return self._thread.call(work, self._patience)
        except self._driver.Error as error:
            raise driver_failed(error, timeout=self._config.statement_timeout) from None


@contextmanager
def opened(config: Snowflake, project: Path, *, works: bool = False) -> Iterator[Session]:
    """A session, times in UTC; where it `works`, its warehouse is seen to first.

    Raises:
        ExternalError: no login within its time, or it is refused.
    """
    session = Session(config, project)
    try:
        if works:
            session.wake()
        yield session
    finally:
        session.close()


def _options(config: Snowflake, project: Path) -> dict[str, Any]:
    """What the driver connects with."""
    patience = config.statement_timeout + GRACE
    options: dict[str, Any] = {
        "account": config.account,
        "user": config.user,
        "role": config.role,
        "database": stored_name(config.database),
        "schema": stored_name(config.schema_name),
        "warehouse": config.warehouse and stored_name(config.warehouse.name),
        "server_url": config.endpoint_url,
        "application": "lodestar",
        "login_timeout": config.login_timeout,
        "query_timeout": patience,
        "request_timeout": config.network_timeout * config.attempts,
        "retry_timeout": max(config.network_timeout, 1),
        "connect_timeout": min(config.network_timeout, config.login_timeout),
        "retry_max_attempts": config.attempts,
        "put_get_max_attempts": config.attempts,
        "logout_max_attempts": 1,
        "logout_total_timeout_seconds": GOODBYE,
        # Nothing runs on after a logout, and no token is kept on this machine.
        "server_session_keep_alive": False,
        "enable_server_session_keep_alive_auto_detection": False,
        "client_store_temporary_credential": False,
        "paramstyle": "numeric",
        "session_parameters": {
            "QUERY_TAG": config.application_name,
            "TIMEZONE": "UTC",
            "STATEMENT_TIMEOUT_IN_SECONDS": config.statement_timeout,
            "LOCK_TIMEOUT": config.statement_timeout,
            "ABORT_DETACHED_QUERY": True,
            "QUOTED_IDENTIFIERS_IGNORE_CASE": False,
            "TIMESTAMP_TYPE_MAPPING": "TIMESTAMP_NTZ",
            "CLIENT_TELEMETRY_ENABLED": False,
        },
        **_credentials(config, project),
    }
    return {name: value for name, value in options.items() if value is not None}


def _credentials(config: Snowflake, project: Path) -> dict[str, Any]:
    if config.password is not None:
        return {"password": config.password.get_secret_value()}
    if config.oauth_token is not None:
        return {"authenticator": "oauth", "token": config.oauth_token.get_secret_value()}
    secret = config.private_key_passphrase
    text = config.private_key.get_secret_value() if config.private_key else None
    if config.private_key_file is not None:
        text = _text_of(project / config.private_key_file)
    return {
        "authenticator": "SNOWFLAKE_JWT",
        "private_key": text,
        "private_key_password": secret and secret.get_secret_value(),
    }


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no PEM text"
        raise UsageError(
            f"data.snowflake.private_key_file {path}: {reason}", hint="give the path of a PEM file"
        ) from error
