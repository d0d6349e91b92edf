"""Score a batch with a run's artifact: its own SQL, its own logic, streamed, published atomically."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from lodestar.adapters.files import path_of
from lodestar.adapters.registry import keeps_files, scheme_of
from lodestar.artifact.register import OpenedRun
from lodestar.artifact.wrapper import PyfuncWrapper, ScoredRows, load_wrapper
from lodestar.core.drift.verdict import DriftReport
from lodestar.errors import DataError, UsageError
from lodestar.factory.environment import EnvironmentFactory, Loader
from lodestar.interface.data import FrameSink
from lodestar.interface.progress import Progress, Silent
from lodestar.pipelines.drift import DriftWatch, tell_store, watch_of
from lodestar.pipelines.stream import ahead, behind
from lodestar.settings.loading import Environment
from lodestar.sql import parse_query

__all__ = ["ScoredBatch", "batch_inference", "loader_of"]

CONSTANT = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True)
class ScoredBatch:
    """What was scored and where the results lie.

    `features_filled` counts, per feature, the rows in which the recipe's value stood in. `drift` is None
    where it was not watched.
    """

    run_id: str
    digest: str
    rows: int
    outputs: dict[str, str]
    unknown_categories: dict[str, int]
    features_filled: dict[str, int]
    drift: DriftReport | None
    notes: tuple[str, ...]


def batch_inference(
    environment: Environment,
    reference: str,
    params: Mapping[str, str],
    *,
    output: str | None = None,
    progress: Progress | None = None,
) -> ScoredBatch:
    """Run the artifact over the rows of its snapshot SQL (or URI) and write what comes out.

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
    factory = EnvironmentFactory(environment, work=f"batch {opened.run_id[:8]}")
    spine = factory.spine(loader_of(wrapper), params)
    notes = (*opened.notes, *spine.notes, *warnings)
    for note in notes:
        tell.note(note)
    destinations = _destinations(environment, opened, wrapper, output)
    tell.stage(f"Scoring with {opened.run_name}")
    context = ",".join(f"{name}={value}" for name, value in sorted(params.items()))
    scoring = _Scoring(wrapper, opened, factory, destinations, context, watch, tell)
    chunk_rows = environment.config.batch.chunk_rows
    filled: dict[str, int] = {}
    with (
        spine.reader.read(chunk_rows=chunk_rows) as reader,
        factory.bound(wrapper).augment(reader, filled=filled) as rows,
    ):
        wrapper.check(rows.schema)
        scoring.run(rows)
    drift = None
    if watch is not None:
        drift, source = watch.report(), f"batch-inference {context}".rstrip()
        tell_store(store, opened.run_id, drift, source=source, now=datetime.now(UTC), tell=tell)
    return ScoredBatch(
        run_id=opened.run_id,
        digest=opened.digest,
        rows=scoring.rows,
        outputs=destinations,
        unknown_categories=scoring.unknown,
        features_filled=filled,
        drift=drift,
        notes=notes,
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


def _destinations(
    environment: Environment, opened: OpenedRun, wrapper: PyfuncWrapper, output: str | None
) -> dict[str, str]:
    """Frame → file, the predictions first. `--output` names these; the others lie beside them.

    Raises:
        UsageError: `--output` leads out of the project and of the config's output root.
    """
    section = environment.config.output
    names = sorted(section.save, key=lambda name: name != "predictions")
    if not keeps_files(output or section.root):
        table = output or f"{section.root.rstrip('/')}.{wrapper.contents.recipe_name}_predictions"
        stem = table.removesuffix("_predictions")
        return {name: table if name == "predictions" else f"{stem}_{name}" for name in names}
    if output is None:
        folder = f"{section.root.rstrip('/')}/{wrapper.contents.recipe_name}/{opened.run_id}"
        return {name: f"{folder}/{name}.parquet" for name in names}
    _refuse_outside(environment, output)
    stem, _, suffix = output.rpartition(".")
    found: dict[str, str] = {name: f"{stem}.{name}.{suffix}" for name in names}
    found["predictions"] = output
    return found


def _refuse_outside(environment: Environment, output: str) -> None:
    if scheme_of(output) not in {"", "file"}:
        return
    project = environment.project
    path = path_of(output, project).resolve()
    allowed = (project, (project / environment.config.output.root).resolve())
    if not any(path.is_relative_to(root) for root in allowed):
        raise UsageError(
            f"--output {output} lies outside the project",
            hint="write below the project, or below output.root of the config",
        )


@dataclass(frozen=True)
class _Made:
    """One batch's way through the artifact, and the frames of it that are written."""

    scored: ScoredRows
    frames: dict[str, pa.RecordBatch]


class _Scoring:
    """One pass over the rows; every frame that is asked for goes to its own sink."""

    def __init__(
        self,
        wrapper: PyfuncWrapper,
        opened: OpenedRun,
        factory: EnvironmentFactory,
        destinations: Mapping[str, str],
        context: str,
        watch: DriftWatch | None,
        tell: Progress,
    ) -> None:
        self._wrapper = wrapper
        self._context = context
        self._run = opened
        self._factory = factory
        self._destinations = destinations
        self._watch = watch
        self._tables = {name for name, place in destinations.items() if not keeps_files(place)}
        self._tell = tell
        self.rows = 0
        self.unknown: dict[str, int] = {}

    def run(self, reader: pa.RecordBatchReader) -> None:
        sinks: dict[str, FrameSink] = {}

        def store(made: _Made) -> None:
            for name, frame in made.frames.items():
                sinks[name].write(frame)
            if self._watch is not None:
                self._watch.add(made.scored.augmented, made.scored.predictions)

        # The sinks close last, when nothing is left to write; they publish in reverse order, so that
        # the predictions appear when everything else has.
        with ExitStack() as stack, ahead(iter(reader)) as batches, behind(store) as write:
            for batch in batches:
                made = self._made(batch)
                for name, frame in made.frames.items():
                    if name not in sinks:
                        sinks[name] = stack.enter_context(self._sink(name, frame.schema))
                write(made)
                self.rows += batch.num_rows
                self._tell.rows(self.rows, None)
            if not self.rows:
                raise DataError("there are no rows to score", hint="check the context parameters")

    def _made(self, batch: pa.RecordBatch) -> "_Made":
        scored = self._wrapper.score(batch, first_row=self.rows)
        for column, count in scored.features.unknown.items():
            self.unknown[column] = self.unknown.get(column, 0) + count
        makers = {
            "predictions": lambda: self._predictions(batch, scored),
            "augmented": lambda: scored.augmented,
            "preprocessed": lambda: _preprocessed(scored),
        }
        frames = {name: self._marked(name, makers[name]()) for name in self._destinations}
        return _Made(scored, frames)

    def _marked(self, name: str, frame: pa.RecordBatch) -> pa.RecordBatch:
        """In a table, rows say which run over which window they are from: its next go replaces them."""
        if name not in self._tables:
            return frame
        columns = dict(zip(frame.schema.names, frame.columns, strict=True))
        columns |= {key: _constant(value, frame.num_rows) for key, value in self._mark.items()}
        return pa.RecordBatch.from_pydict(columns)

    @property
    def _mark(self) -> dict[str, str]:
        return {"run_id": self._run.run_id, "context_params": self._context}

    def _predictions(self, batch: pa.RecordBatch, scored: ScoredRows) -> pa.RecordBatch:
        """Keys, what the model says, and which run of which artifact said it."""
        carried = [
            name for name in self._wrapper.contents.roles.carried if name in batch.schema.names
        ]
        columns = {name: batch.column(name) for name in carried}
        if not columns:
            columns["row"] = pa.array(np.arange(self.rows, self.rows + batch.num_rows))
        columns |= scored.predictions
        columns["run_id"] = _constant(self._run.run_id, batch.num_rows)
        columns["artifact_digest"] = _constant(self._run.digest, batch.num_rows)
        return pa.RecordBatch.from_pydict(columns)

    def _sink(self, name: str, schema: pa.Schema) -> FrameSink:
        destination = self._destinations[name]
        replace = self._mark if name in self._tables else None
        return self._factory.writer(destination).sink(destination, schema, replace=replace)


def _preprocessed(scored: ScoredRows) -> pa.RecordBatch:
    return pa.RecordBatch.from_pandas(scored.features.frame(), preserve_index=False)


def _constant(text: str, rows: int) -> pa.DictionaryArray:
    codes = pa.array([0], pa.int32()).take(pa.nulls(rows, pa.int32()).fill_null(0))
    return pa.DictionaryArray.from_arrays(codes, pa.array([text]))
