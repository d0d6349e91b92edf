"""Train one recipe: read, augment, learn, look at what was learned, save it as one artifact."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from lodestar.artifact.store import SavedRun
from lodestar.core.alerts.readings import Measured, of_performance
from lodestar.core.fingerprint import fingerprint
from lodestar.core.ordering import in_content_order
from lodestar.core.performance import Comparison
from lodestar.core.policies import without_nulls
from lodestar.core.results import LeakageFinding
from lodestar.core.roles import Roles, TargetReader
from lodestar.core.trainer import TrainingResult
from lodestar.errors import DataError
from lodestar.factory.recipe import Factory
from lodestar.interface.progress import Progress, Silent
from lodestar.pipelines.insight import Insight, gain_insight
from lodestar.pipelines.performance import PerformanceJudge, check_baseline
from lodestar.pipelines.reading import read_rows
from lodestar.pipelines.recording import Recording
from lodestar.pipelines.tuning import search_of
from lodestar.schema import refuse_infinite, require_columns
from lodestar.settings.loading import Settings
from lodestar.settings.recipe import Recipe, Transformer

__all__ = ["TrainedRun", "roles_of", "train"]


@dataclass(frozen=True)
class TrainedRun:
    """A finished training and where everything of it lies."""

    saved: SavedRun
    recipe: str
    class_path: str
    result: TrainingResult
    insight: Insight
    performance: tuple[Comparison, ...]
    notes: tuple[str, ...]

    def measured(self) -> tuple[Measured, ...]:
        """The metrics, and how they compare, for alert rules."""
        values = of_performance(self.result.evaluation, self.performance)
        return (Measured("train", self.recipe, self.saved.run_id, values),)


def train(
    settings: Settings,
    params: Mapping[str, str],
    *,
    strict: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> TrainedRun:
    """Train the recipe.

    `strict` makes every leakage finding an error; `resume` continues a search that was killed.

    Raises:
        ExternalError: the result was not saved; one for a server is kept, and the error says where.
        LodestarError: nothing was saved.
    """
    tell = progress or Silent()
    factory = Factory(settings.environment, settings.loaded)
    tell.stage("Checking the recipe")
    factory.preflight()
    monitoring = settings.environment.config.performance_monitoring
    check_baseline(monitoring)
    for note in factory.store().preflight():
        tell.note(note)
    spine = factory.spine(factory.loader, params)
    notes = (*spine.notes, *(() if factory.tunes else factory.hyperparameters.notes))
    for note in notes:
        tell.note(note)
    tell.stage("Reading the data")
    table = read_rows(spine.reader, factory.augmenter(), tell)
    roles = roles_of(settings.recipe, table.schema)
    refuse_infinite(table, roles.inputs)
    table = in_content_order(table)
    target = _target(settings.recipe, table, roles)
    digest = fingerprint(table)
    estimator = f"{factory.family.cls.__name__} on {table.num_rows:,} rows"
    tell.stage(f"{'Preparing a search of' if factory.tunes else 'Training'} {estimator}")
    search = search_of(settings, factory, digest, tell, resume=resume)
    result = factory.trainer(search).train(table, roles, target)
    for name in without_nulls(factory.augmenter().selection, result.schema.select(roles.inputs)):
        tell.note(f"on_missing of {name} is null, and training saw no null: it will be refused")
    tell.stage("Looking for leakage and importance")
    insight = gain_insight(table, result, seed=settings.recipe.split.seed)
    _warn(insight.findings, tell, strict=strict)
    judge = PerformanceJudge(monitoring, factory.store(), settings.loaded.name, target)
    performance = judge.judge(result.evaluation)
    tell.stage("Saving the artifact")
    recording = Recording(settings, factory, params, notes, digest, now=datetime.now(UTC))
    with TemporaryDirectory() as scratch:
        saved = recording.save(table, result, insight, performance, Path(scratch))
    return TrainedRun(
        saved=saved,
        recipe=settings.loaded.name,
        class_path=settings.recipe.model.class_path,
        result=result,
        insight=insight,
        performance=performance,
        notes=notes,
    )


def roles_of(recipe: Recipe, schema: pa.Schema) -> Roles:
    """Which column plays which part, as the recipe says."""
    data, section = recipe.data_interface, recipe.preprocessor
    scaler = None if isinstance(section, Transformer) else section.params
    split = recipe.split
    needed = [(split.group_col, "split.group_col")] if split.group_col else []
    if split.method == "time":
        needed.append((data.event_timestamp_col, "data_interface.event_timestamp_col"))
    require_columns(schema, needed)
    return Roles.of(
        schema,
        target=data.target_col,
        treatment=data.treatment_col,
        entity_keys=data.entity_keys,
        timestamp=data.event_timestamp_col,
        excluded=scaler.exclude_cols if scaler else (),
        criterion=scaler.criterion_col if scaler else None,
    )


def _target(recipe: Recipe, table: pa.Table, roles: Roles) -> TargetReader:
    data = recipe.data_interface
    return TargetReader.learn(
        table,
        roles,
        data.task_type,
        positive=data.positive_class,
        treatment_value=data.treatment_value,
    )


def _warn(findings: tuple[LeakageFinding, ...], tell: Progress, *, strict: bool) -> None:
    if strict and findings:
        raise DataError(
            "--strict: " + "; ".join(f"{finding.name}: {finding.what}" for finding in findings),
            hint=findings[0].hint,
        )
    for finding in findings:
        tell.note(f"possible leakage, {finding.name}: {finding.what}")
