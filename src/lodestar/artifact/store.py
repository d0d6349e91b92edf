"""Runs and their artifacts: what the pipelines ask of MLflow, and of the copies on this machine."""

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from lodestar.artifact import tags
from lodestar.artifact.aliases import Aliases, Holder, Moved
from lodestar.artifact.local_runs import LocalRuns
from lodestar.artifact.lookup import RunLookup
from lodestar.artifact.plain_client import NotPlainError
from lodestar.artifact.references import check_alias, parse_reference
from lodestar.artifact.register import OpenedRun
from lodestar.artifact.run_tags import add_tags
from lodestar.artifact.stored_runs import StoredRun, plain_runs, stored_run
from lodestar.artifact.tracking import Connection, Tracking, translated
from lodestar.errors import ArtifactError, ExternalError, UnreachableError
from lodestar.settings.config import MlflowTracking

if TYPE_CHECKING:
    from mlflow.entities import Run

    from lodestar.artifact.packaging import ModelIdentity
    from lodestar.artifact.pending import PendingRuns, Waiting
    from lodestar.artifact.plain_client import PlainRun
    from lodestar.artifact.staging import RunRecord, StagedRun

__all__ = ["RunStore", "SavedRun", "StoredRun"]


@dataclass(frozen=True)
class SavedRun:
    """A run whose artifact is complete."""

    run_id: str
    run_name: str
    digest: str
    artifact_uri: str
    report: str


class RunStore:
    """One MLflow tracking store and the experiment of this project in it."""

    def __init__(self, tracking: MlflowTracking, project: Path, environment: str) -> None:
        self._tracking = Tracking(tracking, project)
        self._environment = environment
        self._lookup = RunLookup(self._tracking)
        self._local = LocalRuns(tracking, project)
        self._lodestar = project / ".lodestar"

    def preflight(self) -> tuple[str, ...]:
        """What a training should know before it begins.

        Raises:
            ExternalError: the folders of a local store cannot be written to.
        """
        if self._tracking.local:
            self._tracking.require_writable()
            return ()
        notes = []
        if (why := self._tracking.problem()) is not None:
            notes.append(
                f"the MLflow server does not answer ({why}); the result will be kept locally"
            )
        if waiting := len(self.waiting().runs):
            notes.append(f"{waiting} finished before and not uploaded: {self._upload_command}")
        return tuple(notes)

    def probe(self, what: Literal["experiment", "artifacts"]) -> str:
        """Try out the experiment, or where its artifacts are; nothing is left behind.

        Raises:
            ExternalError: it does not answer, or refuses.
        """
        from lodestar.artifact.store_probe import probe_artifacts, probe_experiment

        tried = {"experiment": probe_experiment, "artifacts": probe_artifacts}[what]
        return tried(self._tracking)

    def save(
        self,
        record: "RunRecord",
        *,
        package: "Callable[[Path, ModelIdentity], str]",
        report: Callable[[str, str], str],
    ) -> SavedRun:
        """Stage a training, then publish it as a run; the run is finished last.

        `package(folder, identity)` writes the model directory and returns its digest;
        `report(run_id, digest)` returns the page. In a local store a failure ends the run as FAILED.

        Raises:
            ExternalError: it could not be published; for a server, it is kept and can be uploaded.
        """
        from lodestar.artifact.staging import stage

        if self._tracking.local:
            with translated(), TemporaryDirectory() as scratch:
                folder = Path(scratch) / "staged"
                folder.mkdir()
                staged = stage(folder, self._environment, record, package=package, report=report)
                return self._published(staged, Path(scratch))
        with (
            translated(),
            self._pending.added(record, package=package, report=report) as staged,
            self._kept(staged),
            translated(),
        ):
            return self._uploaded(staged)

    def waiting(self) -> "Waiting":
        """The finished trainings of this environment that are not in the store yet."""
        return self._pending.waiting()

    def upload(self, staged: "StagedRun") -> SavedRun | None:
        """Publish a training that waits; None where another process is at it, or has done it.

        Raises:
            ExternalError: it could not be published, and still waits.
            ArtifactError: what was kept is damaged.
        """
        with translated(), self._pending.taken(staged) as mine:
            return self._uploaded(staged) if mine else None

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Add metrics to a finished run (an evaluation on other data)."""
        from mlflow.entities import Metric

        client = self._tracking.open().client
        now = int(time.time() * 1000)
        with translated():
            client.log_batch(run_id, metrics=[Metric(k, v, now, 0) for k, v in metrics.items()])

    def add_tags(self, run_id: str, values: Mapping[str, str]) -> None:
        """Set tags of a finished run (what a comparison of later rows came to).

        Raises:
            ExternalError: the store does not answer, or refuses.
        """
        add_tags(self._tracking, run_id, values)

    def find(self, reference: str) -> StoredRun:
        """A run by its id or digest, a unique prefix of these, or an alias.

        Raises:
            UsageError: no such run, or more than one.
        """
        parse_reference(reference)
        connection = self._tracking.open()
        with translated():
            run = connection.client.get_run(self._lookup.run(reference).info.run_id)
            return stored_run(run, self._aliases(connection).by_run())

    def runs(self, *, most: int) -> list[StoredRun]:
        """The newest runs of this project's experiment, newest first."""
        with suppress(NotPlainError):
            return plain_runs(self._tracking, most=most)
        from lodestar.artifact.publishing import end_orphans

        connection = self._tracking.open()
        with translated():
            end_orphans(connection)
            found = connection.client.search_runs(
                [connection.experiment], tags.NO_TRIAL, max_results=most
            )
            aliases = self._aliases(connection).by_run()
            return [stored_run(run, aliases) for run in found]

    @contextmanager
    def opened(self, reference: str) -> Iterator[OpenedRun]:
        """A run's artifact as a local folder, fetched if it is elsewhere; verify it first.

        Where the server does not answer, a copy that is here already does, and the run's notes say so.

        Raises:
            UsageError: no such run, or more than one.
            ArtifactError: the run has no complete artifact, or another than it recorded.
            UnreachableError: the server does not answer, and there is no copy here.
        """
        run = self.located(reference)
        with self._local.in_use(run):
            yield run

    def located(self, reference: str) -> OpenedRun:
        """As `opened`, without holding the copy: one that was used within a day is never removed."""
        if (known := self._local.find(reference)) is not None:
            return known
        try:
            return self._fetched(reference)
        except UnreachableError:
            known = self._local.last_known(reference)
            if known is None:
                raise
            return known

    def meant(self, reference: str) -> str:
        """The id of the run that a reference means, whether its artifact is here or not.

        Raises:
            UsageError: no such run, or more than one.
            UnreachableError: the server does not answer.
        """
        asked = parse_reference(reference)
        return reference if asked.is_run_id else self._lookup.run(reference).info.run_id

    def last_known(self, reference: str) -> OpenedRun | None:
        """What a reference meant when the server last answered, if that artifact is here."""
        return self._local.find(reference) or self._local.last_known(reference)

    def holder(self, recipe: str, alias: str) -> Holder | None:
        """Which run has a recipe's alias now."""
        connection = self._tracking.open()
        with translated():
            return self._aliases(connection).holder(recipe, alias)

    def promote(self, run_id: str, alias: str) -> Moved:
        """Give a run an alias of its recipe; a second time changes nothing.

        Raises:
            UsageError: no name for an alias.
        """
        check_alias(alias)
        connection = self._tracking.open()
        with translated(), self._one_at_a_time():
            run = connection.client.get_run(run_id)
            recipe = run.data.tags.get(tags.RECIPE, "")
            return self._aliases(connection).move(recipe, alias, run)

    def rollback(self, alias: str, recipe: str | None) -> Moved:
        """Give an alias back to the run that had it before.

        Raises:
            UsageError: nobody has it, or nobody had it before.
        """
        connection = self._tracking.open()
        with translated(), self._one_at_a_time():
            return self._aliases(connection).back(alias, recipe)

    def _published(self, staged: "StagedRun", scratch: Path) -> SavedRun:
        from lodestar.artifact.publishing import end_orphans, publish

        connection = self._tracking.open()
        with translated():
            end_orphans(connection)
            published = publish(connection, staged, scratch)
        name = staged.record.name
        if (folder := _local_folder(published.artifact)) is not None:
            self._local.add(OpenedRun(published.run_id, name, published.digest, folder))
        elif published.folder.is_dir():
            # Nobody here need fetch what was made here. Where it cannot be kept, fetching says why.
            with suppress(OSError):
                self._local.keep(
                    published.run_id, name, published.digest, lambda _: published.folder
                )
        return SavedRun(
            published.run_id,
            name,
            published.digest,
            _readable(published.artifact),
            _readable(published.report),
        )

    def _uploaded(self, staged: "StagedRun") -> SavedRun:
        """Publish and forget a training that this process holds."""
        from lodestar.artifact.folders import new_folder

        with new_folder(staged.folder.parent) as scratch:
            saved = self._published(staged, scratch)
        self._pending.remove(staged)
        return saved

    @contextmanager
    def _kept(self, staged: "StagedRun") -> Iterator[None]:
        """Say where a training is when it could not be published."""
        place = _readable(staged.folder.as_uri())
        try:
            yield
        except ExternalError as error:
            raise type(error)(
                f"{error.what}\n  nothing is lost: the finished training is kept in {place}",
                hint=f"{self._upload_command} puts it there; its report is {place}/report.html",
            ) from error
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(
                f"the finished training is kept in {place}: {self._upload_command}"
            ) from error

    @property
    def _upload_command(self) -> str:
        return f"lodestar runs upload --env {self._environment}"

    @property
    def _pending(self) -> "PendingRuns":
        from lodestar.artifact.pending import PendingRuns

        return PendingRuns(self._lodestar / "pending", self._environment)

    def _aliases(self, connection: Connection) -> Aliases:
        return Aliases(connection, self._tracking.experiment_name)

    def _fetched(self, reference: str) -> OpenedRun:
        """Ask the server which run it is, and for its artifact where that is not here."""
        run = self._lookup.run(reference)
        run_id, name = run.info.run_id, run.info.run_name
        digest = run.data.tags.get(tags.DIGEST)
        if digest is None:
            raise _incomplete(run)
        opened = self._local.kept(run_id, name, digest)
        if opened is None:
            connection = self._tracking.open()
            with translated():
                opened = self._brought(connection, run_id, name, digest)
        self._local.remember(reference, run_id)
        return opened

    def _brought(self, connection: Connection, run_id: str, name: str, digest: str) -> OpenedRun:
        from lodestar.artifact.publishing import model_of

        run = connection.client.get_run(run_id)
        model = model_of(connection, run)
        if model is None:
            raise _incomplete(run)
        location = model.artifact_location
        if (folder := _local_folder(location)) is not None:
            return OpenedRun(run_id, name, digest, folder)
        return self._local.keep(run_id, name, digest, lambda place: self._download(location, place))

    def _download(self, location: str, folder: Path) -> Path:
        from mlflow.artifacts import download_artifacts

        return Path(
            download_artifacts(location, dst_path=str(folder), tracking_uri=self._tracking.uri)
        )

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Let two promotions on this machine take turns, so that each sees what the other did."""
        self._lodestar.mkdir(exist_ok=True)
        with (self._lodestar / "aliases.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _local_folder(location: str) -> Path | None:
    """The folder of a `file:` location; None where it is elsewhere."""
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def _incomplete(run: "Run | PlainRun") -> ArtifactError:
    return ArtifactError(
        f"run {run.info.run_id} ({run.info.status}) has no complete artifact",
        hint="it failed or was killed before its artifact was logged; train again",
    )


def _readable(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.scheme != "file":
        return uri
    path = Path(unquote(parts.path))
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
