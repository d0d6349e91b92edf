"""Reads the newest runs from MLflow's SQLite file itself, which spares importing MLflow.

Tables and columns are those of one revision of MLflow's schema. A file of another, or one that cannot be
read just now, is left to MLflow, which says what is to be done about it.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

from lodestar.artifact import tags
from lodestar.artifact.plain_client import NotPlainError, PlainRun

__all__ = ["newest_runs"]

# What alembic calls the newest in MLflow 3.17: store/db_migrations/versions.
REVISION = "dc11669786a5"
NAME = "mlflow.runName"

Aliases: TypeAlias = dict[str, tuple[str, ...]]

# As MLflow's own search: newest first, no trials, none that was deleted.
_RUNS = """
SELECT run_uuid, name, status, start_time FROM runs AS r
WHERE experiment_id = ? AND lifecycle_stage = 'active' AND NOT EXISTS
    (SELECT 1 FROM tags AS t WHERE t.run_uuid = r.run_uuid AND t.key = ?)
ORDER BY start_time DESC, run_uuid LIMIT ?
"""
_RUNNING = """
SELECT 1 FROM runs WHERE experiment_id = ? AND lifecycle_stage = 'active' AND status = 'RUNNING'
"""
_TAGS = "SELECT key, value FROM tags WHERE run_uuid = ?"
_PARAMS = "SELECT key, value FROM params WHERE run_uuid = ?"
_METRICS = (
    "SELECT key, CASE WHEN is_nan THEN NULL ELSE value END FROM latest_metrics WHERE run_uuid = ?"
)
_ALIASES = """
SELECT v.run_id, a.alias FROM registered_model_aliases AS a
JOIN registered_model_tags AS t ON t.name = a.name AND t.key = ? AND t.value = ?
JOIN model_versions AS v ON v.name = a.name AND v.version = a.version
ORDER BY a.name, a.alias
"""


def newest_runs(path: Path, experiment_name: str, *, most: int) -> tuple[list[PlainRun], Aliases]:
    """The newest runs of an experiment, and run id → its aliases.

    Raises:
        NotPlainError: MLflow has to be asked.
    """
    if not path.exists():
        raise NotPlainError
    with _opened(path) as database:
        if database.execute("SELECT version_num FROM alembic_version").fetchall() != [(REVISION,)]:
            raise NotPlainError
        wanted = (
            "SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage = 'active'"
        )
        found = database.execute(wanted, (experiment_name,)).fetchall()
        if len(found) != 1:
            raise NotPlainError
        if database.execute(_RUNNING, found[0]).fetchone() is not None:
            raise NotPlainError  # it may be one whose process was killed, and that is to be ended
        runs = [
            _run(database, *row)
            for row in database.execute(_RUNS, (*found[0], tags.PARENT, most)).fetchall()
        ]
        return runs, _aliases(database.execute(_ALIASES, (tags.EXPERIMENT, experiment_name)))


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, which is not written to, as it was at one moment."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
            database.execute("BEGIN")
            yield database
    except sqlite3.Error as error:
        raise NotPlainError from error


def _run(
    database: sqlite3.Connection, run_id: str, name: str | None, status: str, started: int
) -> PlainRun:
    def values(sql: str) -> dict[str, Any]:
        return dict(database.execute(sql, (run_id,)).fetchall())

    own: Mapping[str, str] = values(_TAGS)
    metrics = {
        key: float("nan") if value is None else value for key, value in values(_METRICS).items()
    }
    return PlainRun.of(
        run_id,
        name or own.get(NAME, ""),
        status,
        own,
        started=started,
        metrics=metrics,
        params=values(_PARAMS),
    )


def _aliases(rows: sqlite3.Cursor) -> Aliases:
    found: Aliases = {}
    for run_id, alias in rows:
        found[run_id] = (*found.get(run_id, ()), alias)
    return found
