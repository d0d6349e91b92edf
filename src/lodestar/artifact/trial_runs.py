"""A run of MLflow's own for each trial of a search, nested below the run of its training."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lodestar.artifact import tags
from lodestar.artifact.contents import CONTENTS, read_contents
from lodestar.artifact.tracking import Connection
from lodestar.artifact.wrapper import PAYLOAD

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

__all__ = ["log_trials"]

TRIAL, STATE = "lodestar.trial", "lodestar.trial_state"
# Steps are percent of a trial's own rounds; the value is that of all of them.
WHOLE = 100
# MLflow has no word for a run that was ended before it was done but this one.
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
PAGE = 1000
MOST_PARAM = 6000


def log_trials(connection: Connection, parent: "Run", model: Path, *, began: int) -> None:
    """Log every trial of a model's search, in one batch each, as a run nested in `parent`.

    `model` is the verified artifact's folder; `began` is in ms since 1970. Trials that an earlier
    attempt has logged are left, and one that it was at is ended.
    """
    search = read_contents(model / PAYLOAD / CONTENTS).hyperparameter_optimization
    if search is None:
        return
    client = connection.client
    known = {run.data.tags[TRIAL]: run for run in _children(connection, parent.info.run_id)}
    for trial in search["optimization_history"]:
        number = str(trial["number"])
        run = known.get(number) or client.create_run(
            connection.experiment,
            start_time=began,
            run_name=f"trial {number}",
            tags={
                tags.PARENT: parent.info.run_id,
                tags.OWNER: parent.data.tags[tags.OWNER],
                TRIAL: number,
                STATE: trial["state"],
            },
        )
        if run.info.status != "RUNNING":
            continue
        _log_values(connection, run.info.run_id, trial, search["metric"], began)
        ended = began + int(1000 * trial["seconds"])
        client.set_terminated(run.info.run_id, status=STATUS[trial["state"]], end_time=ended)


def _children(connection: Connection, parent: str) -> Iterator["Run"]:
    token: str | None = None
    while True:
        wanted = f"tags.`{tags.PARENT}` = '{parent}' AND tags.`{TRIAL}` IS NOT NULL"
        page = connection.client.search_runs(
            [connection.experiment], wanted, max_results=PAGE, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _log_values(
    connection: Connection, run_id: str, trial: Mapping[str, Any], metric: str, began: int
) -> None:
    from mlflow.entities import Param

    connection.client.log_batch(
        run_id,
        metrics=list(_metrics(trial, metric, began)),
        params=[Param(name, str(value)[:MOST_PARAM]) for name, value in trial["params"].items()],
    )


def _metrics(trial: Mapping[str, Any], metric: str, began: int) -> Iterator["Metric"]:
    from mlflow.entities import Metric

    steps = dict(trial["curve"])
    if trial["state"] == "complete":
        steps[WHOLE] = trial["value"]
    for step, value in steps.items():
        if value is not None:
            yield Metric(metric, value, began, step)
    yield Metric("seconds", trial["seconds"], began, 0)
    if trial["rounds"] is not None:
        yield Metric("rounds", float(trial["rounds"]), began, 0)
