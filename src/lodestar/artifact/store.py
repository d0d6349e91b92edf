"""Runs and their artifacts in MLflow; the only file that talks to its tracking API."""

import fcntl
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import psutil

from lodestar.artifact.packaging import ModelIdentity
from lodestar.artifact.register import OpenedRun, Register
from lodestar.errors import ArtifactError, ExternalError, UsageError

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

__all__ = ["RunRecord", "RunStore", "SavedRun", "StoredRun", "translated"]

MODEL_NAME = "model"
REPORT_NAME = "report.html"
_REFERENCE = re.compile(r"^[0-9a-f]{4,64}$")
_TAGS = "lodestar."
MOST_PARAM = 6000
# Read by MLflow when it is used: a server that does not answer is an error soon, and what there is to
# say is said by us.
_MLFLOW = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_SQLITE = "sqlite:///"


@dataclass(frozen=True)
class RunRecord:
    """What a run is called and what it recorded."""

    name: str
    recipe: str
    task: str
    class_path: str
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SavedRun:
    """A run whose artifact is complete."""

    run_id: str
    run_name: str
    digest: str
    artifact_uri: str
    report: str


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


class RunStore:
    """One MLflow tracking store and the experiment of this project in it."""

    def __init__(
        self, *, tracking_uri: str, artifact_root: str, experiment: str, project: Path
    ) -> None:
        self._uri = _absolute(tracking_uri, project)
        self._artifact_root = project / artifact_root
        self._experiment_name = experiment
        self._lock_file = project / "mlruns" / ".lock"
        self._register = Register(self._artifact_root / "register")

    def save(
        self,
        record: RunRecord,
        *,
        package: Callable[[Path, ModelIdentity], str],
        report: Callable[[str, str], str],
    ) -> SavedRun:
        """Create the run, package and log the artifact, then the report; finish the run last.

        `package(folder, identity)` writes the model directory and returns its digest;
        `report(run_id, digest)` returns the page. A failure ends the run as FAILED.
        """
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus

        client, experiment = self._open()
        self._end_orphans(client, experiment)
        with translated():
            run_id = client.create_run(
                experiment, run_name=record.name, tags=self._tags(record)
            ).info.run_id
            # At once, so that a run whose process is killed can be named too.
            client.set_tag(run_id, f"{_TAGS}run_id", run_id)
        status = "FAILED"
        try:
            with translated(), TemporaryDirectory() as scratch:
                model = client.create_logged_model(
                    experiment, name=MODEL_NAME, source_run_id=run_id, model_type=record.task
                )
                client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
                digest = package(Path(scratch) / MODEL_NAME, ModelIdentity(run_id, model.model_id))
                client.log_model_artifacts(model.model_id, str(Path(scratch) / MODEL_NAME))
                self._log_values(client, run_id, model.model_id, record, digest)
                client.log_text(run_id, report(run_id, digest), REPORT_NAME)
                client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
                artifacts = client.get_run(run_id).info.artifact_uri
            status = "FINISHED"
        finally:
            client.set_terminated(run_id, status=status)
        if (folder := _local(model.artifact_location)) is not None:
            self._register.add(OpenedRun(run_id, record.name, digest, folder))
        report_place = f"{artifacts}/{REPORT_NAME}"
        return SavedRun(
            run_id, record.name, digest, _readable(model.artifact_location), _readable(report_place)
        )

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Add metrics to a finished run (an evaluation on other data)."""
        from mlflow.entities import Metric

        client, _ = self._open()
        now = _milliseconds()
        with translated():
            client.log_batch(run_id, metrics=[Metric(k, v, now, 0) for k, v in metrics.items()])

    def find(self, reference: str) -> StoredRun:
        """A run by its id, or by a unique prefix of its id or of its artifact's digest.

        Raises:
            UsageError: no such run, or more than one.
        """
        _check_reference(reference)
        client, experiment = self._open()
        with translated():
            found = {
                run.info.run_id: run
                for tag in ("run_id", "artifact_digest")
                for run in client.search_runs(
                    [experiment], f"tags.`{_TAGS}{tag}` LIKE '{reference}%'", max_results=5
                )
            }
        if len(found) != 1:
            several = f"means several runs: {', '.join(sorted(found))}"
            raise UsageError(
                f"{reference!r} {several if found else 'is no run of this project'}",
                hint="lodestar runs list shows them",
            )
        return _stored(next(iter(found.values())))

    def runs(self, *, most: int) -> list[StoredRun]:
        """The newest runs of this project's experiment, newest first."""
        client, experiment = self._open()
        self._end_orphans(client, experiment)
        with translated():
            found = client.search_runs([experiment], max_results=most)
        return [_stored(run) for run in found]

    @contextmanager
    def opened(self, reference: str) -> Iterator[OpenedRun]:
        """A run's artifact as a local folder, downloaded if it is elsewhere; verify it first."""
        _check_reference(reference)
        if self._uri.startswith("sqlite:") and (known := self._register.find(reference)):
            yield known
            return
        run = self.find(reference)
        client, experiment = self._open()
        with translated():
            models = [
                model
                for model in client.search_logged_models(
                    [experiment], f"source_run_id = '{run.run_id}'"
                )
                if model.name == MODEL_NAME
            ]
        if not models or run.digest is None:
            raise ArtifactError(
                f"run {run.run_id} ({run.status}) has no complete artifact",
                hint="it failed or was killed before its artifact was logged; train again",
            )
        location = models[0].artifact_location
        if (folder := _local(location)) is not None:
            yield OpenedRun(run.run_id, run.run_name, run.digest, folder)
            return
        from mlflow.artifacts import download_artifacts

        with TemporaryDirectory() as scratch:
            with translated():
                copy = download_artifacts(location, dst_path=scratch, tracking_uri=self._uri)
            yield OpenedRun(run.run_id, run.run_name, run.digest, Path(copy))

    def _open(self) -> tuple["MlflowClient", str]:
        """The client and the experiment's id; both are made on first use, by one process at a time."""
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        for name, value in _MLFLOW.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        local = self._uri.startswith("sqlite:")
        with translated(), self._only_one(local=local):
            if local:
                _make_database(self._uri)
            client = MlflowClient(tracking_uri=self._uri)
            experiment = client.get_experiment_by_name(self._experiment_name)
            if experiment is None:
                root = self._artifact_root.as_uri() if local else None
                return client, client.create_experiment(
                    self._experiment_name, artifact_location=root
                )
            return client, experiment.experiment_id

    @contextmanager
    def _only_one(self, *, local: bool) -> Iterator[None]:
        """SQLite's tables must not be created by two commands at once."""
        if not local:
            yield
            return
        self._lock_file.parent.mkdir(parents=True, exist_ok=True)
        with self._lock_file.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _log_values(
        self, client: "MlflowClient", run_id: str, model_id: str, record: RunRecord, digest: str
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now = _milliseconds()
        client.log_batch(
            run_id,
            metrics=[
                Metric(name, value, now, 0, model_id=model_id)
                for name, value in record.metrics.items()
            ],
            params=[Param(name, value[:MOST_PARAM]) for name, value in record.params.items()],
            tags=[RunTag(f"{_TAGS}artifact_digest", digest)],
        )

    def _tags(self, record: RunRecord) -> dict[str, str]:
        own = {
            "recipe": record.recipe,
            "task": record.task,
            "class_path": record.class_path,
            "owner": _owner(),
        }
        return {f"{_TAGS}{name}": value for name, value in {**own, **record.tags}.items()}

    def _end_orphans(self, client: "MlflowClient", experiment: str) -> None:
        """End the runs whose process was killed on this machine; none stays RUNNING for ever."""
        with translated():
            for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
                owner = run.data.tags.get(f"{_TAGS}owner", "")
                if _is_dead(owner):
                    client.set_terminated(run.info.run_id, status="KILLED")


def _check_reference(reference: str) -> None:
    if not _REFERENCE.match(reference):
        raise UsageError(
            f"{reference!r} is no run id: run ids and digests are 4 to 64 of 0-9 and a-f",
            hint="lodestar runs list shows them",
        )


def _local(location: str) -> Path | None:
    """The folder of a `file:` location; None where it is elsewhere."""
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


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


def _stored(run: "Run") -> StoredRun:
    tags = run.data.tags
    return StoredRun(
        run_id=run.info.run_id,
        run_name=run.info.run_name,
        status=run.info.status,
        started=datetime.fromtimestamp(run.info.start_time / 1000, tz=UTC),
        recipe=tags.get(f"{_TAGS}recipe", ""),
        task=tags.get(f"{_TAGS}task", ""),
        class_path=tags.get(f"{_TAGS}class_path", ""),
        digest=tags.get(f"{_TAGS}artifact_digest"),
        metrics=dict(run.data.metrics),
        params=dict(run.data.params),
    )


def _make_database(uri: str) -> None:
    """Let MLflow make its tables aside: it takes many steps, and half of them can never be finished."""
    from mlflow.tracking import MlflowClient

    path = Path(uri.removeprefix(_SQLITE))
    if path.exists() or "?" in path.name:
        return
    aside = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in (aside, aside.with_name(f"{aside.name}-journal")):
        left.unlink(missing_ok=True)
    MlflowClient(tracking_uri=f"{_SQLITE}{aside}").search_experiments(max_results=1)
    aside.replace(path)


def _absolute(uri: str, project: Path) -> str:
    """A SQLite file is below the project unless its path says otherwise."""
    if not uri.startswith(_SQLITE):
        return uri
    return f"{_SQLITE}{project / uri.removeprefix(_SQLITE)}"


def _readable(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.scheme != "file":
        return uri
    path = Path(unquote(parts.path))
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _milliseconds() -> int:
    return int(time.time() * 1000)


@contextmanager
def translated() -> Iterator[None]:
    """Word what MLflow or the file system says while a run is stored as our errors."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except MlflowException as error:
        reason = str(error).splitlines()[0]
        raise ExternalError(
            f"MLflow refuses: {_without_password(reason)}",
            hint="see mlflow.tracking_uri in the config",
        ) from error
    except DBAPIError as error:  # raised where MLflow makes or migrates its tables
        raise ExternalError(
            f"the tracking database refuses: {_without_password(str(error.orig).splitlines()[0])}",
            hint="see mlflow.tracking_uri in the config, and the space left where it lies",
        ) from error
    except ModuleNotFoundError as error:
        raise ExternalError(
            f"the tracking database needs the package {error.name}, which is not installed",
            hint="see mlflow.tracking_uri in the config",
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise ExternalError(
            f"the artifact cannot be stored: {reason}"
            + (f" ({error.filename})" if error.filename else ""),
            hint=f"see mlflow in the config; the temporary directory is {gettempdir()}",
        ) from error


def _without_password(text: str) -> str:
    text = re.sub(r"//[^/@\s]+@", "//***@", text)
    return re.sub(r"(://[^\s'\"?]*\?)[^\s'\"]+", r"\1***", text)
