"""Labels that came later joined with a run's predictions, and judged."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import pyarrow as pa

from lodestar.adapters.files.rows import path_of
from lodestar.adapters.joins.labels import JoinPlan, label_join
from lodestar.artifact import tags
from lodestar.artifact.contents import ArtifactContents
from lodestar.artifact.store import RunStore
from lodestar.core.drift.sketches import Reference
from lodestar.core.labels.codes import Codes
from lodestar.core.labels.judge import Found, LabelLimits, Reading, judge_labels
from lodestar.core.labels.results import JoinCounts, LabelReport
from lodestar.core.labels.segments import Segmenter, segmenter_of
from lodestar.core.performance import Rival
from lodestar.core.results import MetricEstimate
from lodestar.errors import DataError, ExternalError, SchemaError, UsageError, choices, first_line
from lodestar.factory.environment import EnvironmentFactory
from lodestar.interface.data import SpineReader
from lodestar.interface.progress import Progress
from lodestar.pipelines.label_rows import LabelColumns, PredictionRows, TakenRows
from lodestar.schema import require_columns
from lodestar.settings.config import Config
from lodestar.settings.loading import Environment
from lodestar.sql import parse_query

__all__ = ["LabelQuestion", "MonitoredArtifact", "judged_labels", "limits_of_labels", "tell_labels"]

REQUEST, REQUEST_ROW = "request_id", "request_row"
ROW, LABELLED_AT = "row", "labelled_at"


@dataclass(frozen=True)
class LabelQuestion:
    """Where labels come from, and how they are to be looked at.

    `labels`: a data URI, or a file with SQL below the project and its `params`. `keys`: what joins them,
    by default a request's id or what names a row. `time`: the column that says when a label was known,
    by default `labelled_at` where there is one. `within`: labels come at most so long after their
    prediction; by default the time that 95 % of them took.
    """

    labels: str
    time: str | None = None
    keys: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    unit: Literal["day", "hour"] = "day"
    within: timedelta | None = None
    params: Mapping[str, str] = field(default_factory=dict)


def limits_of_labels(config: Config) -> LabelLimits:
    """What the config says of labels and of changes that count."""
    section, alerts = config.labels, config.performance_monitoring.alert_thresholds
    return LabelLimits(
        rows=section.rows,
        coverage=section.coverage,
        improvement=alerts.improvement_threshold,
        degradation=alerts.degradation_threshold,
    )


@dataclass(frozen=True)
class MonitoredArtifact:
    """The artifact whose predictions are judged, where it is, and when."""

    environment: Environment
    contents: ArtifactContents
    trained: Reference
    digest: str
    now: datetime


def judged_labels(
    artifact: MonitoredArtifact, rows: PredictionRows, question: LabelQuestion, *, tell: Progress
) -> LabelReport:
    """Join labels with predictions and judge what is due.

    Raises:
        SchemaError: a column is missing, or cannot be a label of this task.
        DataError: no labels, or none that belongs to a prediction.
        UsageError: a segment's column is not there, or is sensitive.
    """
    contents = artifact.contents
    reader = _reader(artifact.environment, contents, question)
    labels = reader.schema()
    asking = _Asking(contents, rows, question, labels)
    asking.check()
    segmenters = asking.segmenters(artifact.trained)
    plan = asking.plan()
    with label_join(plan) as join:
        tell.stage("Joining labels")
        digest, now = artifact.digest, artifact.now
        taken = TakenRows(
            join, asking.columns, asking.codes, segmenters, digest=digest, now=now, tell=tell
        )
        taken.predictions(rows)
        taken.labels(reader)
        _require_labels(question, taken.counts)
        joined = join.join(taken.counts)
        counts, coverage = joined.counts, joined.coverage
        if not coverage.labelled:
            raise _no_match(question, plan, counts)
        notes = tuple(_notes(counts, plan))
        for note in notes:
            tell.note(note)
        tell.stage("Judging labelled predictions")
        return judge_labels(
            Found(joined, coverage, counts, plan.keys, notes),
            asking.reading(segmenters),
            _trained(contents),
            limits_of_labels(artifact.environment.config),
            unit=question.unit,
            within=question.within,
            now=now,
        )


def tell_labels(
    store: RunStore, run_id: str, report: LabelReport, *, source: str, now: datetime, tell: Progress
) -> None:
    """Tag the run with the verdict; a store that cannot be told is told of, and nothing fails by it."""
    values = {
        tags.LABELS: report.verdict,
        f"{tags.LABELS}.source": source,
        f"{tags.LABELS}.predictions": str(report.coverage.predictions),
        f"{tags.LABELS}.labelled": str(report.coverage.labelled),
        f"{tags.LABELS}.checked_at": now.isoformat(timespec="seconds"),
    }
    comparison = report.whole.comparison if report.whole is not None else None
    if comparison is not None:
        values |= {f"{tags.LABELS}.{one.metric}": one.verdict for one in comparison.metrics}
    try:
        store.add_tags(run_id, values)
    except ExternalError as error:
        tell.note(f"MLflow was not told of the labels: {first_line(error)}")


def _reader(
    environment: Environment, contents: ArtifactContents, question: LabelQuestion
) -> SpineReader:
    factory = EnvironmentFactory(environment, work=f"labels of {contents.recipe_name}")
    if not question.labels.endswith(".sql"):
        if question.params:
            raise UsageError(
                "a data URI takes no --context-params",
                hint="leave them out, or give --labels a file with SQL",
            )
        return factory.reader(question.labels)
    project = environment.project
    path = path_of(question.labels, project).resolve()
    if not path.is_relative_to(project):
        raise UsageError(f"--labels {question.labels} lies outside the project")
    if not path.is_file():
        known = [file.relative_to(project).as_posix() for file in project.glob("recipes/**/*.sql")]
        raise UsageError(
            f"there is no SQL file {question.labels}", hint=choices(question.labels, known)
        )
    text = path.read_text(encoding="utf-8")
    query = parse_query(text, contents.loader_dialect, where=question.labels)
    return factory.sql_reader(query, question.params)


def _trained(contents: ArtifactContents) -> Rival:
    metrics = {name: MetricEstimate(**each) for name, each in contents.metrics.items()}
    return Rival("training", metrics, contents.training_methodology["test_rows"])


@dataclass(frozen=True)
class _Asking:
    """What is asked of which columns."""

    contents: ArtifactContents
    rows: PredictionRows
    question: LabelQuestion
    labels: pa.Schema

    @property
    def codes(self) -> Codes:
        return Codes(self.contents.target)

    @property
    def treatment(self) -> str | None:
        """The treatment's column, where the task has one."""
        return self.contents.roles.treatment if self.contents.target.task == "causal" else None

    @property
    def time(self) -> str | None:
        """The labels' time, where they have one."""
        if self.question.time is not None:
            return self.question.time
        return LABELLED_AT if LABELLED_AT in self.labels.names else None

    def check(self) -> None:
        """See that labels and predictions have what they need."""
        if "prediction" not in self.rows.schema.names:
            raise SchemaError(
                "the rows have no predictions to be judged by labels",
                hint="give --data what batch-inference wrote, or --log serve-api's prediction log",
            )
        roles = self.contents.roles
        needed = [(roles.target, "the target, in the labels")]
        needed += [(self.treatment, "the treatment, in the labels")] if self.treatment else []
        needed += [(self.time, "--label-time")] if self.time else []
        require_columns(self.labels, needed)
        self.codes.check(self.labels.field(roles.target), "the label")
        self.codes.check(self.rows.schema.field("prediction"), "the prediction")
        if self.time is not None:
            kind = self.labels.field(self.time).type
            if not pa.types.is_temporal(kind):
                raise SchemaError(
                    f"--label-time {self.time!r} is a {kind}, and no date or time",
                    hint="cast it where the labels come from",
                )

    def plan(self) -> JoinPlan:
        """How labels find their predictions."""
        keys, by_request = self._keys()
        return JoinPlan(
            keys=keys,
            by_request=by_request,
            single=by_request and REQUEST_ROW not in keys,
            timed=self.rows.time is not None,
            dated=self.time is not None,
            unit=self.question.unit,
            within=self.question.within,
        )

    @property
    def columns(self) -> LabelColumns:
        """Which columns play which part."""
        keys, _ = self._keys()
        return LabelColumns(keys, self.contents.roles.target, self.treatment, self.time)

    def segmenters(self, trained: Reference) -> dict[str, Segmenter]:
        """What cuts the segments' columns."""
        sketches = {column.name: column.sketch for column in trained.columns}
        found = {}
        for name in dict.fromkeys(self.question.segments):
            if name not in self.rows.schema.names:
                raise UsageError(
                    f"--segment {name}: the predictions have no such column",
                    hint=choices(name, self.rows.schema.names),
                )
            kind = self.rows.schema.field(name).type
            found[name] = segmenter_of(name, sketches.get(name), kind)
        return found

    def reading(self, segmenters: Mapping[str, Segmenter]) -> Reading:
        """How the rows are to be read, once all of them have been cut into their segments."""
        return Reading(
            self.codes,
            {name: each.labels() for name, each in segmenters.items()},
            self.contents.training_methodology["random_state"],
        )

    def _keys(self) -> tuple[tuple[str, ...], bool]:
        """Those asked for; else the request's id where both have it, else what names a row."""
        both = set(self.labels.names) & set(self.rows.schema.names)
        roles = self.contents.roles
        if self.question.keys:
            given = dict.fromkeys(self.question.keys)
            require_columns(self.labels, [(name, "--key, in the labels") for name in given])
            require_columns(
                self.rows.schema, [(name, "--key, in the predictions") for name in given]
            )
            return self._same_types(tuple(given)), REQUEST in given
        if REQUEST in both:
            keys: tuple[str, ...] = (REQUEST, *([REQUEST_ROW] if REQUEST_ROW in both else []))
            return self._same_types(keys), True
        stamp = roles.timestamp
        # Where a recipe names no keys, the columns that are no features do.
        carried = tuple(
            name for name in roles.carried if name != stamp and name in self.rows.schema.names
        )
        named = roles.entity_keys or carried
        if named and set(named) <= both:
            exact = [stamp] if stamp is not None and stamp in both and stamp != self.time else []
            return self._same_types((*named, *exact)), False
        if ROW in both and not named:
            return self._same_types((ROW,)), False
        raise SchemaError(
            "the labels have no key that the predictions have: neither "
            f"{REQUEST} nor what names a row ({', '.join(named) or ROW})",
            hint=f"name columns of both with --key; the predictions have "
            f"{', '.join(self.rows.schema.names[:12])}; the labels {', '.join(self.labels.names[:12])}",
        )

    def _same_types(self, keys: tuple[str, ...]) -> tuple[str, ...]:
        for name in keys:
            ours, theirs = self.rows.schema.field(name).type, self.labels.field(name).type
            if ours != theirs:
                raise SchemaError(
                    f"the key {name!r} is a {theirs} in the labels and a {ours} in the predictions",
                    hint="cast it where the labels come from",
                )
        return keys


def _require_labels(question: LabelQuestion, counts: JoinCounts) -> None:
    if not counts.labels:
        raise DataError(
            f"{question.labels} has no labels",
            hint="check where they come from, and --context-params",
        )


def _no_match(question: LabelQuestion, plan: JoinPlan, counts: JoinCounts) -> DataError:
    reasons = "; ".join(_notes(counts, plan)) or "no key is in both"
    return DataError(
        f"no label of {question.labels} belongs to a prediction (joined by {', '.join(plan.keys)})",
        hint=f"{counts.labels:,} labels were read; {reasons}",
    )


def _notes(counts: JoinCounts, plan: JoinPlan) -> Iterator[str]:
    """What was left out, in words."""
    keys = ", ".join(plan.keys)
    said = (
        (counts.foreign, "predictions of other artifacts are left out"),
        (counts.keyless, f"rows without {keys} or a time are left out"),
        (counts.empty, "labels without a value or a time are left out"),
        (counts.unknown, "labels of classes that training had not are left out"),
        (counts.future, "labels dated after now are left out: a clock is wrong"),
        (counts.ahead, "predictions are dated after now: a clock was wrong"),
        (counts.conflicting, f"labels of one {keys} disagree and are left out"),
        (counts.ambiguous, f"predictions share their {REQUEST}; labels need {REQUEST_ROW} too"),
        (counts.without_prediction, "labels belong to no prediction here"),
        (counts.before, "labels are older than every prediction of theirs"),
        (counts.late, "predictions got their label after --within, too late to count"),
    )
    for count, words in said:
        if count:
            yield f"{words}: {count:,}"
