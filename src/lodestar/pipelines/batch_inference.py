"""Score a batch with a run's artifact: its own SQL, its own logic, streamed, published atomically."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from lodestar.adapters.files.folder import PartFolder
from lodestar.artifact.register import OpenedRun
from lodestar.artifact.wrapper import PyfuncWrapper, load_wrapper
from lodestar.core.alerts.readings import Measured, of_drift
from lodestar.core.drift.verdict import DriftReport
from lodestar.errors import DataError
from lodestar.factory.environment import EnvironmentFactory, Loader
from lodestar.interface.data import SpineReader
from lodestar.interface.parts import FailedPart, Watched
from lodestar.interface.progress import Progress, Silent
from lodestar.pipelines.batch_outputs import (
    destinations_of,
    folders_of,
    frames_written,
    is_folder,
    is_table,
    publish,
    refuse_anothers,
)
from lodestar.pipelines.batch_rows import rows_in_parts, with_codes
from lodestar.pipelines.drift import DriftWatch, tell_store, watch_of
from lodestar.pipelines.kept_batch import kept_batch
from lodestar.pipelines.scoring import ArtifactSource, FramePlan, packed
from lodestar.pipelines.stream import ahead, behind
from lodestar.pipelines.telling import TellingExecutor, slower_than_need_be
from lodestar.settings.config import Batch
from lodestar.settings.loading import Environment
from lodestar.sql import parse_query

__all__ = ["ScoredBatch", "batch_inference", "loader_of"]


@dataclass(frozen=True)
class ScoredBatch:
    """What was scored and where the results lie.

    `features_filled` counts, per feature, the rows in which the recipe's value stood in. `drift` is None
    where it was not watched.
    """

    run_id: str
    digest: str
    recipe: str
    rows: int
    outputs: dict[str, str]
    unknown_categories: dict[str, int]
    features_filled: dict[str, int]
    drift: DriftReport | None
    notes: tuple[str, ...]

    def measured(self) -> tuple[Measured, ...]:
        """How far the rows have drifted, for alert rules."""
        if self.drift is None:
            return ()
        return (Measured("batch-inference", self.recipe, self.run_id, of_drift(self.drift)),)


@dataclass(frozen=True)
class _Counts:
    """What one pass over the rows counted."""

    rows: int
    unknown: dict[str, int]
    filled: dict[str, int]


def batch_inference(
    environment: Environment,
    reference: str,
    params: Mapping[str, str],
    *,
    output: str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> ScoredBatch:
    """Run the artifact over the rows of its snapshot SQL (or URI) and write what comes out.

    Scored parts are kept until all is published where the work is done elsewhere, or with `resume`,
    which takes up those that an earlier go has left.

    Raises:
        LodestarError: nothing was published.
    """
    tell = progress or Silent()
    factory = EnvironmentFactory(environment)
    tell.stage("Verifying the artifact")
    store = factory.store()
    with store.opened(reference) as opened:
        wrapper, warnings = load_wrapper(opened.folder, digest=opened.digest)
        watch = watch_of(opened.folder, environment.config.drift, tell)
        archive = packed(opened) if factory.distributes else b""
    factory = EnvironmentFactory(environment, work=f"batch {opened.run_id[:8]}")
    spine = factory.spine(loader_of(wrapper), params)
    notes = (*opened.notes, *spine.notes, *warnings)
    for note in notes:
        tell.note(note)
    context = ",".join(f"{name}={value}" for name, value in sorted(params.items()))
    job = _Job(environment, factory, opened, wrapper, archive, context, watch, tell)
    destinations = job.destinations(output)
    if resume:
        refuse_anothers(environment, destinations["predictions"], opened.run_id)
    tell.stage(f"Scoring with {opened.run_name}")
    reader = with_codes(spine.reader, wrapper, destinations)
    if resume or factory.distributes or is_folder(destinations["predictions"]):
        counts = job.kept(reader, destinations, resume=resume)
    else:
        counts = job.streamed(reader, destinations)
    drift = None
    if watch is not None:
        drift, source = watch.report(), f"batch-inference {context}".rstrip()
        tell_store(store, opened.run_id, drift, source=source, now=datetime.now(UTC), tell=tell)
    slow = slower_than_need_be(wrapper.fitted, counts.rows, environment.config.batch)
    for note in slow:
        tell.note(note)
    return ScoredBatch(
        run_id=opened.run_id,
        digest=opened.digest,
        recipe=wrapper.contents.recipe_name,
        rows=counts.rows,
        outputs=destinations,
        unknown_categories=counts.unknown,
        features_filled=counts.filled,
        drift=drift,
        notes=(*notes, *slow),
    )


def loader_of(wrapper: PyfuncWrapper) -> Loader:
    """The loader as it was when the artifact was made."""
    contents = wrapper.contents
    query = None
    if contents.loader_sql_snapshot is not None:
        query = parse_query(
            contents.loader_sql_snapshot, contents.loader_dialect, where="loader_sql_snapshot"
        )
    return Loader(contents.recipe_name, query, contents.loader_uri_snapshot)


@dataclass(frozen=True)
class _Job:
    """One artifact over one environment's rows."""

    environment: Environment
    factory: EnvironmentFactory
    opened: OpenedRun
    wrapper: PyfuncWrapper
    archive: bytes
    context: str
    watch: DriftWatch | None
    tell: Progress

    def destinations(self, output: str | None) -> dict[str, str]:
        recipe = self.wrapper.contents.recipe_name
        return destinations_of(self.environment, recipe, self.opened.run_id, output)

    def streamed(self, reader: SpineReader, destinations: dict[str, str]) -> _Counts:
        """Chunk after chunk, straight to where it goes."""
        rows, unknown = 0, dict[str, int]()
        marks = self._marks(destinations)
        with (
            rows_in_parts(reader, self.factory, self.wrapper, self._size, kept=False) as batch,
            frames_written(self.factory, destinations, marks) as write,
            self.factory.part_executor(self._source(marks, settles=False)) as executor,
            ahead(batch.tasks) as tasks,
            behind(self._count) as count,
        ):
            for outcome in TellingExecutor(executor, self.tell).scored(tasks):
                if isinstance(outcome, FailedPart):
                    raise outcome.error
                for at in range(len(outcome.frames["predictions"])):
                    write({name: frames[at] for name, frames in outcome.frames.items()})
                for column, times in outcome.unknown.items():
                    unknown[column] = unknown.get(column, 0) + times
                if outcome.watched is not None:
                    count(outcome.watched)
                rows += outcome.rows
                self.tell.rows(rows, None)
            _require_rows(rows)
        return _Counts(rows, unknown, batch.filled)

    def kept(self, reader: SpineReader, destinations: dict[str, str], *, resume: bool) -> _Counts:
        """Part after part, each kept as soon as it is scored."""
        marks = self._marks(destinations)
        folders = folders_of(self.environment, destinations)
        project, recipe = self.environment.project, self.wrapper.contents.recipe_name
        with (
            kept_batch(
                project, recipe, self._about(destinations), self.tell, resume=resume
            ) as parts,
            rows_in_parts(reader, self.factory, self.wrapper, self._size, kept=True) as batch,
            frames_written(self.factory, destinations, marks) as write,
            self.factory.part_executor(
                self._source(marks, settles=batch.settles, folders=folders)
            ) as executor,
        ):
            if batch.note:
                self.tell.note(batch.note)
            parts.run(TellingExecutor(executor, self.tell), batch, write, folders=folders)
            _require_rows(parts.rows)
            publish(folders, parts.written, self._mark)
        for counted in parts.watched:
            if self.watch is not None:
                self.watch.take(counted)
        return _Counts(parts.rows, parts.unknown, parts.filled if batch.settles else batch.filled)

    def _count(self, watched: Watched) -> None:
        if self.watch is not None:
            self.watch.add(watched)

    @property
    def _size(self) -> Batch:
        return self.environment.config.batch

    def _about(self, destinations: Mapping[str, str]) -> dict[str, Any]:
        """What makes this batch another one than any that differs in it."""
        return {
            "run_id": self.opened.run_id,
            "artifact_digest": self.opened.digest,
            "context_params": self.context,
            "outputs": dict(destinations),
            "chunk_rows": self._size.chunk_rows,
            "part_rows": self._size.part_rows,
            "drift": self.watch is not None,
        }

    def _marks(self, destinations: Mapping[str, str]) -> dict[str, dict[str, str]]:
        mark = self._mark
        return {name: mark if is_table(place) else {} for name, place in destinations.items()}

    @property
    def _mark(self) -> dict[str, str]:
        return {"run_id": self.opened.run_id, "context_params": self.context}

    def _source(
        self,
        marks: Mapping[str, Mapping[str, str]],
        *,
        settles: bool,
        folders: Mapping[str, PartFolder] | None = None,
    ) -> ArtifactSource:
        watches = self.watch is not None
        plan = FramePlan(
            self.opened.run_id, self.opened.digest, marks, settles, watches, folders or {}
        )
        source = ArtifactSource(
            self.opened.folder, self.opened.digest, plan, self.archive, self._size.native
        )
        return source if self.archive else replace(source, loaded=self.wrapper)


def _require_rows(rows: int) -> None:
    if not rows:
        raise DataError("there are no rows to score", hint="check the context parameters")
