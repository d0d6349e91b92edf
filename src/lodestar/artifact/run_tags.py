"""Adds tags to a finished run; where that is simple, without importing MLflow (1.8 s and 90 MB).

A server is asked in plain HTTP. A SQLite file gets the rows that MLflow's own client would write into
its table `tags`; whatever is unusual (no such file, table or run) is left to MLflow's client.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from lodestar.artifact.plain_client import NotPlainError, plain_client
from lodestar.artifact.tracking import Tracking, translated

if TYPE_CHECKING:
    from lodestar.artifact.tracking import Connection

__all__ = ["MOST_CHARACTERS", "add_tags"]

# The narrowest of what MLflow's stores take.
MOST_CHARACTERS = 5000
_SQLITE = "sqlite:///"
SECONDS = 10.0


def add_tags(tracking: Tracking, run_id: str, tags: Mapping[str, str]) -> None:
    """Set the tags, in place of former values.

    Raises:
        UnreachableError: the server does not answer.
        ExternalError: the store refuses.
    """
    short = {key: value[:MOST_CHARACTERS] for key, value in tags.items()}
    if _in_sqlite(tracking.uri, run_id, short) or _over_http(tracking.uri, run_id, short):
        return
    connection = tracking.open()
    with translated():
        _through_mlflow(connection, run_id, short)


def _in_sqlite(uri: str, run_id: str, tags: Mapping[str, str]) -> bool:
    path = Path(uri.removeprefix(_SQLITE))
    if not uri.startswith(_SQLITE) or "?" in uri or not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(path, timeout=SECONDS)) as database, database:
            found = database.execute("SELECT 1 FROM runs WHERE run_uuid = ?", (run_id,)).fetchone()
            if found is None:
                return False
            database.executemany(
                "INSERT OR REPLACE INTO tags (key, value, run_uuid) VALUES (?, ?, ?)",
                [(key, value, run_id) for key, value in tags.items()],
            )
    except sqlite3.Error:  # MLflow's client says what is wrong
        return False
    return True


def _over_http(uri: str, run_id: str, tags: Mapping[str, str]) -> bool:
    client = plain_client(uri)
    if client is None:
        return False
    try:
        client.log_tags(run_id, tags)
    except NotPlainError:
        return False
    return True


def _through_mlflow(connection: "Connection", run_id: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    connection.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
