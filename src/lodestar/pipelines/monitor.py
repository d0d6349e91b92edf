"""Compare later rows with what a run was trained on: a file, or the prediction log of `serve-api`.

Where labels have come for their predictions, these are judged too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from lodestar.adapters.files.logs import PredictionLogFiles
from lodestar.adapters.files.rows import path_of
from lodestar.artifact.contents import CONTENTS, ArtifactContents, read_contents
from lodestar.artifact.manifest import verify
from lodestar.artifact.register import OpenedRun
from lodestar.artifact.sketches import read_sketches
from lodestar.artifact.wrapper import PAYLOAD
from lodestar.core.alerts.readings import Measured, of_drift, of_labels
from lodestar.core.drift.judge import judge
from lodestar.core.drift.limits import limits_of
from lodestar.core.drift.sketches import Reference, Window
from lodestar.core.drift.verdict import DriftReport, Limits, Verdict
from lodestar.core.labels.results import LabelReport
from lodestar.errors import DataError, SchemaError, UsageError
from lodestar.factory.environment import EnvironmentFactory
from lodestar.interface.progress import Progress, Silent
from lodestar.pipelines.drift import tell_store
from lodestar.pipelines.label_rows import PredictionRows
from lodestar.pipelines.labels import LabelQuestion, MonitoredArtifact, judged_labels, tell_labels
from lodestar.settings.loading import Environment

__all__ = ["Asked", "MonitoredRun", "Slice", "monitor"]

CHUNK_ROWS = 65_536
DIGEST = "artifact_digest"
# What batch-inference writes beside keys and predictions.
MARKS = ("run_id", DIGEST, "context_params", "row")
# Parts of the time: by hour for so many of them, else by day.
MOST_HOURS = 72
# One part alone may be chance: there are many of them.
LATELY = 2
# The place of rows that do not say when they were.
_NO_TIME = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Asked:
    """Which rows: a data URI, or a log's folder with a time from `since` to before `until` (UTC).

    `labels`: also judge their predictions.
    """

    data: str | None = None
    log: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    labels: LabelQuestion | None = None


@dataclass(frozen=True)
class Slice:
    """One part of the time: its own comparison."""

    begins: datetime
    report: DriftReport


@dataclass(frozen=True)
class MonitoredRun:
    """What came of it; `slices` are the parts of a log's time, in order.

    `labels` is None where none were asked for.
    """

    run_id: str
    run_name: str
    digest: str
    recipe: str
    trained_at: str
    source: str
    checked_at: datetime
    report: DriftReport
    slices: tuple[Slice, ...]
    notes: tuple[str, ...]
    labels: LabelReport | None = None

    def measured(self) -> tuple[Measured, ...]:
        """How far the rows have drifted and what labels say, for alert rules."""
        values = of_drift(self.report)
        if self.labels is not None:
            values |= of_labels(self.labels)
        return (Measured("monitor", self.recipe, self.run_id, values),)

    @property
    def verdict(self) -> Verdict:
        """Of all rows together; drift too where it has only begun."""
        return "drift" if self.lately else self.report.verdict

    @property
    def lately(self) -> tuple[str, ...]:
        """Columns that have drifted in the last parts, two or more, and not yet in all rows together."""
        told = {column.name for column in self.report.drifted}
        judged = [
            {column.name for column in part.report.drifted}
            for part in self.slices
            if part.report.verdict != "too few rows"
        ]
        both = set.intersection(*judged[-LATELY:]) if len(judged) >= LATELY else set()
        return tuple(sorted(both - told))

    def since(self, column: str) -> datetime | None:
        """From when on a column has drifted without a break; None where the time does not tell."""
        began = None
        for part in self.slices:
            found = next(one for one in part.report.columns if one.name == column)
            if found.verdict == "drift":
                began = began or part.begins
            elif found.verdict == "steady":
                began = None
        return began


def monitor(
    environment: Environment, reference: str, asked: Asked, *, progress: Progress | None = None
) -> MonitoredRun:
    """Compare rows with the sketches of a run's artifact, and tag the run with the verdict.

    Nothing is scored: predictions are compared where the rows come with them, as a log's do.

    Raises:
        UsageError: neither data nor log, both, or a time that ends before it begins.
        DataError: no rows, or not the columns of the artifact.
        ArtifactError: it has no sketches, or newer ones.
    """
    tell = progress or Silent()
    _check(asked)
    factory = EnvironmentFactory(environment)
    tell.stage("Verifying the artifact")
    store = factory.store()
    with store.opened(reference) as opened:
        verify(opened.folder, expected=opened.digest)
        contents = read_contents(opened.folder / PAYLOAD / CONTENTS)
        trained = read_sketches(opened.folder)
    rows = _Rows(environment, factory, opened, contents, trained, asked, [*opened.notes], tell)
    tell.stage("Comparing rows")
    windows = rows.windows()
    for note in rows.notes:
        tell.note(note)
    whole = Window(trained)
    for window in windows.values():
        whole.merge(window)
    limits = limits_of(environment.config.drift)
    report, now = judge(whole, limits), datetime.now(UTC)
    source = asked.data or f"{asked.log} {_span(asked)}".rstrip()
    tell_store(store, opened.run_id, report, source=f"monitor {source}", now=now, tell=tell)
    labels = None
    if asked.labels is not None:
        artifact = MonitoredArtifact(environment, contents, trained, opened.digest, now)
        labels = judged_labels(artifact, rows.predictions(), asked.labels, tell=tell)
        told = f"monitor {source} with {asked.labels.labels}"
        tell_labels(store, opened.run_id, labels, source=told, now=now, tell=tell)
    return MonitoredRun(
        run_id=opened.run_id,
        run_name=opened.run_name,
        digest=opened.digest,
        recipe=contents.recipe_name,
        trained_at=contents.training_timestamp,
        source=source,
        checked_at=now,
        report=report,
        slices=_slices(windows, limits),
        notes=tuple(rows.notes),
        labels=labels,
    )


def _check(asked: Asked) -> None:
    if (asked.data is None) == (asked.log is None):
        raise UsageError(
            "monitor compares either a data URI or a prediction log",
            hint="give --data URI or --log DIR",
        )
    if asked.data is not None and (asked.since or asked.until):
        raise UsageError(
            "--since and --until select rows of a log by when they were logged",
            hint="give --log DIR, or leave them out",
        )
    if asked.since and asked.until and asked.since >= asked.until:
        raise UsageError(
            f"--since {asked.since:%Y-%m-%dT%H:%M} is not before --until {asked.until:%Y-%m-%dT%H:%M}",
            hint="the end is not included: --since 2026-01-01 --until 2026-01-02 is one day",
        )


def _slices(windows: Mapping[datetime, Window], limits: Limits) -> tuple[Slice, ...]:
    return tuple(
        Slice(begins, judge(window, limits))
        for begins, window in windows.items()
        if begins != _NO_TIME
    )


@dataclass(frozen=True)
class _Rows:
    """What was asked for, and the artifact that it is held against; `notes` grow while it is read."""

    environment: Environment
    factory: EnvironmentFactory
    opened: OpenedRun
    contents: ArtifactContents
    trained: Reference
    asked: Asked
    notes: list[str]
    tell: Progress

    def windows(self) -> dict[datetime, Window]:
        """All rows together, or those of a log by hour, or by day where there are many hours."""
        if self.asked.data is not None:
            return {_NO_TIME: self._of_data(self.asked.data)}
        return self._of_log()

    def predictions(self) -> PredictionRows:
        """The same rows once more, for what was predicted of them."""
        asked = self.asked
        if asked.data is not None:
            reader, stamp = self.factory.reader(asked.data), self.contents.roles.timestamp
            schema = reader.schema()

            def read(names: Sequence[str]) -> Iterator[pa.RecordBatch]:
                with reader.read(chunk_rows=CHUNK_ROWS) as stream:
                    for batch in stream:
                        yield batch.select(list(names))

            return PredictionRows(schema, stamp if stamp in schema.names else None, read)
        log = self._log()
        hours = log.hours(asked.since, asked.until)

        def logged(names: Sequence[str]) -> Iterator[pa.RecordBatch]:
            for hour in hours:
                yield from log.rows(hour, names, asked.since, asked.until)

        return PredictionRows(log.columns(hours[-1]), "logged_at", logged)

    def _of_data(self, uri: str) -> Window:
        """All rows of a data URI; of a table of predictions those of this artifact."""
        contents, trained, digest = self.contents, self.trained, self.opened.digest
        window, foreign = Window(trained), 0
        with self.factory.reader(uri).read(chunk_rows=CHUNK_ROWS) as reader:
            names = _watched(contents, trained, reader.schema)
            known = {*trained.names, *contents.spine_schema.names, *MARKS}
            if new := [name for name in reader.schema.names if name not in known]:
                listed = ", ".join(new[:12])
                self.notes.append(f"columns that training had not are left alone: {listed}")
            marked = DIGEST in reader.schema.names
            for batch in reader:
                own = batch.filter(pc.equal(batch.column(DIGEST), digest)) if marked else batch
                foreign += batch.num_rows - own.num_rows
                window.add({name: own.column(name) for name in names}, own.num_rows)
                self.tell.rows(window.rows, None)
        if foreign:
            self.notes.append(f"rows of other artifacts are left out: {foreign:,}")
        if not window.rows:
            of = f" of artifact {digest[:12]}" if foreign else ""
            raise DataError(f"{uri} has no rows{of}", hint="there is nothing to compare")
        return window

    def _of_log(self) -> dict[datetime, Window]:
        since, until = self.asked.since, self.asked.until
        log = self._log()
        hours = log.hours(since, until)
        if others := log.others():
            self.notes.append(f"files of other artifacts are left out: {others:,}")
        names = _watched(self.contents, self.trained, log.columns(hours[0]))
        by_day = len(hours) > MOST_HOURS
        windows: dict[datetime, Window] = {}
        rows = 0
        for hour in hours:
            begins = hour.begins.replace(hour=0) if by_day else hour.begins
            for batch in log.rows(hour, names, since, until):
                if batch.num_rows:
                    window = windows.setdefault(begins, Window(self.trained))
                    window.add(_columns(batch, names), batch.num_rows)
                    rows += batch.num_rows
                    self.tell.rows(rows, None)
        if not rows:
            raise log.empty(since, until)
        return windows

    def _log(self) -> PredictionLogFiles:
        folder = path_of(self.asked.log or "", self.environment.project)
        return PredictionLogFiles(folder, self.contents.recipe_name, self.opened.digest)


def _watched(contents: ArtifactContents, trained: Reference, schema: pa.Schema) -> tuple[str, ...]:
    """The columns to compare: all features, or the predictions alone where there is no feature.

    Raises:
        SchemaError: some features are not there, or have another type, with every difference.
    """
    inputs = set(contents.roles.inputs)
    there = set(schema.names)
    if there & inputs:
        known = [field for field in schema if field.name in inputs]
        contents.feature_schema.check(pa.schema(known))
    names = tuple(name for name in trained.names if name in there)
    if not names:
        raise SchemaError(
            "there is no column that training had, neither features nor predictions",
            hint=f"the features: {', '.join(contents.roles.inputs[:12])}",
        )
    return names


def _columns(batch: pa.RecordBatch, names: Sequence[str]) -> dict[str, pa.Array]:
    there = set(batch.schema.names)
    return {name: batch.column(name) for name in names if name in there}


def _span(asked: Asked) -> str:
    if not (asked.since or asked.until):
        return ""
    ends = [
        "…" if each is None else f"{each:%Y-%m-%dT%H:%M}" for each in (asked.since, asked.until)
    ]
    return f"from {ends[0]} to {ends[1]}"
