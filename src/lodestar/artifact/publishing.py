"""Gives a staged training to MLflow: one run and one model, however often it has to begin anew."""

import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from lodestar.artifact import tags
from lodestar.artifact.packaging import ModelIdentity
from lodestar.artifact.staging import StagedRun
from lodestar.artifact.tracking import Connection
from lodestar.artifact.trial_runs import log_trials

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run

__all__ = ["PublishedRun", "end_orphans", "model_of", "publish"]

MODEL_NAME = "model"
REPORT_NAME = "report.html"
MOST_PARAM = 6000


@dataclass(frozen=True)
class PublishedRun:
    """A finished run; its artifact and its report by their URIs.

    `folder` is what was logged as the artifact, unless an earlier attempt had logged it.
    """

    run_id: str
    digest: str
    artifact: str
    report: str
    folder: Path


def publish(connection: Connection, staged: StagedRun, scratch: Path) -> PublishedRun:
    """Create the run, log artifact, values and report; finish the run last.

    A run that an earlier attempt has left is gone on with. A failure leaves the run as FAILED where the
    store still answers. `scratch` is an empty folder on the file system of the staged one.
    """
    folder = scratch / MODEL_NAME
    run = _run_of(connection, staged)
    if run.info.status != "FINISHED":  # else only the end of it was not seen before
        try:
            _log(connection, run, staged, folder)
        except BaseException:
            _end_as_failed(connection, run.info.run_id)
            raise
        run = _the_one(connection, _runs_of(connection, staged))
    model = connection.client.get_logged_model(run.data.tags[tags.MODEL_ID])
    report = f"{run.info.artifact_uri}/{REPORT_NAME}"
    digest = run.data.tags[tags.DIGEST]
    return PublishedRun(run.info.run_id, digest, model.artifact_location, report, folder)


def model_of(connection: Connection, run: "Run") -> "LoggedModel | None":
    """The model that was logged for a run."""
    client, model_id = connection.client, run.data.tags.get(tags.MODEL_ID)
    if model_id is not None:
        return client.get_logged_model(model_id)
    found = client.search_logged_models(
        [connection.experiment], f"source_run_id = '{run.info.run_id}'"
    )
    return next((model for model in found if model.name == MODEL_NAME), None)


def end_orphans(connection: Connection) -> None:
    """End the runs whose process was killed on this machine; none stays RUNNING for ever."""
    client = connection.client
    for run in client.search_runs([connection.experiment], tags.RUNNING):
        if _is_dead(run.data.tags.get(tags.OWNER, "")):
            client.set_terminated(run.info.run_id, status="KILLED")


def _run_of(connection: Connection, staged: StagedRun) -> "Run":
    """The staged training's run, marked as ours and RUNNING unless it is finished."""
    client, record = connection.client, staged.record
    found = _runs_of(connection, staged)
    if not found:
        client.create_run(
            connection.experiment,
            start_time=staged.started,
            run_name=record.name,
            tags={
                tags.RECIPE: record.recipe,
                tags.TASK: record.task,
                tags.CLASS_PATH: record.class_path,
                tags.OWNER: _owner(),
                tags.PENDING_ID: staged.pending_id,
                **record.tags,
            },
        )
        # Asked for: the request may have been sent twice, and its first answer lost.
        found = _runs_of(connection, staged)
    run = _the_one(connection, found)
    run_id = run.info.run_id
    if run.info.status != "FINISHED":
        # At once, so that a run whose process is killed can be named too.
        client.set_tag(run_id, tags.RUN_ID, run_id)
        client.set_tag(run_id, tags.OWNER, _owner())
        client.update_run(run_id, status="RUNNING")
    return client.get_run(run_id)


def _runs_of(connection: Connection, staged: StagedRun) -> list["Run"]:
    wanted = f"tags.`{tags.PENDING_ID}` = '{staged.pending_id}'"
    return list(connection.client.search_runs([connection.experiment], wanted))


def _the_one(connection: Connection, runs: list["Run"]) -> "Run":
    """The run that is furthest; another one is deleted: one training is one run."""
    first, *others = sorted(runs, key=lambda run: (run.info.status != "FINISHED", run.info.run_id))
    for other in others:
        connection.client.delete_run(other.info.run_id)
    return first


def _log(connection: Connection, run: "Run", staged: StagedRun, folder: Path) -> None:
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    client, run_id = connection.client, run.info.run_id
    model = model_of(connection, run) or client.create_logged_model(
        connection.experiment,
        name=MODEL_NAME,
        source_run_id=run_id,
        model_type=staged.record.task,
    )
    client.set_tag(run_id, tags.MODEL_ID, model.model_id)
    outputs = run.outputs.model_outputs if run.outputs else []
    if model.model_id not in {output.model_id for output in outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    digest = staged.stamped(folder, ModelIdentity(run_id, model.model_id))
    client.log_model_artifacts(model.model_id, str(folder))
    _log_values(connection, run_id, model.model_id, staged, digest)
    if staged.record.log_trials:
        log_trials(connection, run, folder, began=staged.started)
    client.log_text(run_id, staged.report(run_id, digest), REPORT_NAME)
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.set_terminated(run_id, status="FINISHED")


def _log_values(
    connection: Connection, run_id: str, model_id: str, staged: StagedRun, digest: str
) -> None:
    from mlflow.entities import Metric, Param, RunTag

    record = staged.record
    connection.client.log_batch(
        run_id,
        # The same time whenever it is tried, so that no value is recorded twice.
        metrics=[
            Metric(name, value, staged.started, 0, model_id=model_id)
            for name, value in record.metrics.items()
        ],
        params=[Param(name, value[:MOST_PARAM]) for name, value in record.params.items()],
        tags=[RunTag(tags.DIGEST, digest)],
    )


def _end_as_failed(connection: Connection, run_id: str) -> None:
    """Where the store does not answer, the run is ended later: its owner will be gone."""
    from mlflow.exceptions import MlflowException

    if connection.answers():
        with suppress(MlflowException, OSError):
            connection.client.set_terminated(run_id, status="FAILED")


def _owner() -> str:
    process = psutil.Process()
    return f"{socket.gethostname()}/{process.pid}/{process.create_time():.0f}"


def _is_dead(owner: str) -> bool:
    host, _, rest = owner.partition("/")
    pid, _, started = rest.partition("/")
    if host != socket.gethostname() or not pid.isdigit() or not started.isdigit():
        return False
    try:
        return abs(psutil.Process(int(pid)).create_time() - int(started)) > 1
    except psutil.NoSuchProcess:
        return True
