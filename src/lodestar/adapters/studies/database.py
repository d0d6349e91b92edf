"""Studies in a database: a PostgreSQL that several machines share, or a SQLite file."""

import fcntl
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from lodestar.adapters.studies.errors import busy, translated, unusable
from lodestar.errors import ExternalError, UsageError

__all__ = ["opened_database"]

# Seconds: to connect, and to wait for an answer of a server that has stopped without a word.
CONNECT_WITHIN, ANSWER_WITHIN = 10, 30.0
# Held while Optuna makes its tables, which two commands cannot do at once.
TABLES = "optuna's tables"
NAMES = ("postgres", "postgresql")
GO_ON = "see that the database runs, then go on with train --resume"


@contextmanager
def opened_database(text: str, project: Path, *, locks: Path, name: str) -> Iterator[RDBStorage]:
    """Optuna's storage at a URL, for one writer of the study `name`.

    The path of a SQLite file is below the project unless it is absolute. In PostgreSQL the study is
    locked for every machine, by a session that ends with this process; of other databases only the
    commands of one project, which share the folder `locks`, know each other.

    Raises:
        UsageError: the URL cannot be read.
        ExternalError: the database cannot be used, or another command is running the study.
    """
    url = _url(text, project)
    secrets = (text, url.password or "")
    in_postgres = url.get_backend_name() == "postgresql"
    with ExitStack() as stack:
        with translated(name, secrets):
            opened = _in_postgres(url, name) if in_postgres else _elsewhere(url, locks)
            storage = stack.enter_context(opened)
        try:
            yield storage
        except (StorageInternalError, SQLAlchemyError) as error:
            raise unusable(name, error, secrets, hint=GO_ON) from error


def _url(text: str, project: Path) -> sqlalchemy.URL:
    try:
        url = sqlalchemy.make_url(text)
    except (ArgumentError, ValueError):
        raise _unreadable() from None
    if "@" in (url.host or ""):  # of a password, which would be shown as a host that is not there
        raise _unreadable()
    if url.drivername in NAMES:
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() != "sqlite":
        return url
    if url.database in {None, "", ":memory:"}:
        raise UsageError(
            "a SQLite URL of studies needs a file",
            hint="hyperparameter_tuning.storage: sqlite:///studies.db, below the project",
        )
    return url.set(database=str(project / str(url.database)))


def _unreadable() -> UsageError:
    """None of the URL is shown: its password may stand in any part."""
    return UsageError(
        "the URL of the studies' database cannot be read",
        hint="hyperparameter_tuning.storage: postgresql://user:password@host:port/database, and in "
        "the password %40 for @, %2F for /, %3A for :, %3F for ?, %25 for %",
    )


@contextmanager
def _in_postgres(url: sqlalchemy.URL, name: str) -> Iterator[RDBStorage]:
    defaults = {"connect_timeout": CONNECT_WITHIN, "application_name": "lodestar search"}
    arguments = {key: value for key, value in defaults.items() if key not in url.query}
    options: dict[str, Any] = {"connect_args": arguments, "hide_parameters": True}
    engine = sqlalchemy.create_engine(
        url, **options, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as session:
        session.execute(sqlalchemy.text(f"SET lock_timeout = '{CONNECT_WITHIN}s'"))
        _advisory(session, "pg_advisory_lock", TABLES)
        with _storage(url, options) as storage:
            _advisory(session, "pg_advisory_unlock", TABLES)
            if not _advisory(session, "pg_try_advisory_lock", name):
                raise busy(name)
            _watch(storage.engine)
            yield storage


def _advisory(session: sqlalchemy.Connection, function: str, what: str) -> bool:
    """Lock a name in this database for as long as the session lasts, or unlock it."""
    digest = hashlib.sha256(f"lodestar {what}".encode()).digest()
    key = int.from_bytes(digest[:8], "big", signed=True)
    statement = sqlalchemy.select(getattr(sqlalchemy.func, function)(key))
    return bool(session.execute(statement).scalar())


@contextmanager
def _elsewhere(url: sqlalchemy.URL, locks: Path) -> Iterator[RDBStorage]:
    with ExitStack() as stack:
        with (locks / ".tables.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            storage = stack.enter_context(_storage(url, {"hide_parameters": True}))
        yield storage


@contextmanager
def _storage(url: sqlalchemy.URL, options: dict[str, Any]) -> Iterator[RDBStorage]:
    storage = RDBStorage(url.render_as_string(hide_password=False), options)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _watch(engine: sqlalchemy.Engine) -> None:
    """Cut the connection when one of Optuna's calls takes too long: the driver would wait for ever.

    Optuna would try again then, and connect for that.
    """
    silent = threading.Event()

    def cut(line: socket.socket) -> None:
        silent.set()
        line.shutdown(socket.SHUT_RDWR)

    def taken(connection: Any, record: Any, proxy: object) -> None:  # noqa: ANN401 -- the driver's
        del proxy
        # One of ours: the driver's number may be another's by the time that it is cut.
        line = socket.socket(fileno=os.dup(connection.fileno()))
        timer = threading.Timer(ANSWER_WITHIN, cut, [line])
        timer.daemon = True
        timer.start()
        record.info[_watch] = timer, line

    def returned(connection: object, record: Any) -> None:  # noqa: ANN401 -- sqlalchemy's
        del connection
        if _watch in record.info:  # else there was no connection to return
            timer, line = record.info.pop(_watch)
            timer.cancel()
            timer.join()
            line.close()

    def connecting(*given: object) -> None:
        del given
        if silent.is_set():
            raise ExternalError(
                f"the studies' database fell silent for {ANSWER_WITHIN:g} s", hint=GO_ON
            )

    sqlalchemy.event.listen(engine, "checkout", taken)
    sqlalchemy.event.listen(engine, "checkin", returned)
    sqlalchemy.event.listen(engine, "do_connect", connecting)
