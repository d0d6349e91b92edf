"""The runs of a store as they are listed, without importing MLflow where that will do."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lodestar.artifact import tags
from lodestar.artifact.aliases import AliasLookup
from lodestar.artifact.plain_client import NotPlainError
from lodestar.artifact.tracking import Tracking

if TYPE_CHECKING:
    from mlflow.entities import Run

    from lodestar.artifact.plain_client import PlainRun

__all__ = ["StoredRun", "plain_runs", "stored_run"]


@dataclass(frozen=True)
class StoredRun:
    """One row of `runs list`."""

    run_id: str
    run_name: str
    status: str
    started: datetime
    recipe: str
    task: str
    class_path: str
    digest: str | None
    metrics: dict[str, float]
    params: dict[str, str]
    aliases: tuple[str, ...] = ()


def plain_runs(tracking: Tracking, *, most: int) -> list[StoredRun]:
    """The newest runs of the experiment, newest first.

    Raises:
        NotPlainError: MLflow has to be asked: a run may have to be ended, or nobody else knows the way.
        UnreachableError: the server does not answer.
    """
    if (file := tracking.file) is not None:
        from lodestar.artifact.plain_database import newest_runs

        found, aliases = newest_runs(file, tracking.experiment_name, most=most)
        return [stored_run(run, aliases) for run in found]
    plain = tracking.plain()
    if plain is None or plain.client.search_runs([plain.experiment], tags.RUNNING, max_results=1):
        raise NotPlainError
    runs = plain.client.search_runs([plain.experiment], tags.NO_TRIAL, max_results=most)
    aliases = AliasLookup(plain.client, tracking.experiment_name).by_run()
    return [stored_run(run, aliases) for run in runs]


def stored_run(run: "Run | PlainRun", aliases: Mapping[str, tuple[str, ...]]) -> StoredRun:
    """A run of MLflow's, or of one that stands for it, with the aliases that it has."""
    own = run.data.tags
    return StoredRun(
        run_id=run.info.run_id,
        run_name=run.info.run_name,
        status=run.info.status,
        started=datetime.fromtimestamp(run.info.start_time / 1000, tz=UTC),
        recipe=own.get(tags.RECIPE, ""),
        task=own.get(tags.TASK, ""),
        class_path=own.get(tags.CLASS_PATH, ""),
        digest=own.get(tags.DIGEST),
        metrics=dict(run.data.metrics),
        params=dict(run.data.params),
        aliases=aliases.get(run.info.run_id, ()),
    )
