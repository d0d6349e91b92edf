"""Judge a run's artifact on labelled data."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lodestar.artifact.wrapper import PyfuncWrapper, load_wrapper
from lodestar.core.alerts.readings import Measured, of_performance
from lodestar.core.evaluator import Evaluator
from lodestar.core.fingerprint import fingerprint
from lodestar.core.ordering import in_content_order
from lodestar.core.performance import Comparison
from lodestar.core.results import Evaluation, Predictions
from lodestar.core.splitter import Splitter
from lodestar.core.trainer import strata
from lodestar.factory.environment import EnvironmentFactory, Spine
from lodestar.interface.progress import Progress, Silent
from lodestar.pipelines.batch_inference import loader_of
from lodestar.pipelines.performance import PerformanceJudge, check_baseline, performance_tags
from lodestar.pipelines.reading import read_rows
from lodestar.pipelines.scoring import compiled
from lodestar.schema import require_columns
from lodestar.settings.loading import Environment
from lodestar.settings.recipe import Split

__all__ = ["EvaluatedRun", "evaluate"]


@dataclass(frozen=True)
class EvaluatedRun:
    """How a run's model does on the rows given."""

    run_id: str
    digest: str
    recipe: str
    data: str
    evaluation: Evaluation
    trained: dict[str, dict[str, float]]
    performance: tuple[Comparison, ...]
    notes: tuple[str, ...]

    def measured(self) -> tuple[Measured, ...]:
        """The metrics, and how they compare, for alert rules."""
        values = of_performance(self.evaluation, self.performance)
        return (Measured("evaluate", self.recipe, self.run_id, values),)


def evaluate(
    environment: Environment,
    reference: str,
    params: Mapping[str, str],
    *,
    data: str | None = None,
    progress: Progress | None = None,
) -> EvaluatedRun:
    """Judge the model on a data URI, else on what the artifact's own loader gives.

    Rows that are those of training are split as they were then, and only the held-out ones count.

    Raises:
        LodestarError: the rows have no labels, or other columns than the artifact takes.
    """
    tell = progress or Silent()
    factory = EnvironmentFactory(environment)
    monitoring = environment.config.performance_monitoring
    check_baseline(monitoring)
    tell.stage("Verifying the artifact")
    store = factory.store()
    with store.opened(reference) as opened:
        wrapper, warnings = load_wrapper(opened.folder, digest=opened.digest)
    factory = EnvironmentFactory(environment, work=f"evaluate {opened.run_id[:8]}")
    spine = Spine(factory.reader(data)) if data else factory.spine(loader_of(wrapper), params)
    notes = (*opened.notes, *spine.notes, *warnings)
    for note in notes:
        tell.note(note)
    tell.stage("Evaluating")
    augmenter = factory.bound(wrapper)
    table = read_rows(spine.reader, augmenter, tell, check=lambda schema: _check(wrapper, schema))
    rows, ordered = "rows", in_content_order(table)
    if _are_those_of_training(wrapper, ordered):
        table, rows = _held_out(wrapper, ordered), "held-out rows"
    size = environment.config.batch
    scoring = compiled(wrapper) if size.native else wrapper
    evaluation = _evaluation(scoring, table, size.chunk_rows)
    if scoring.fitted.doubt:
        tell.note(scoring.fitted.doubt)
    store.log_metrics(
        opened.run_id,
        {f"evaluate.{name}": value for name, value in evaluation.values().items()},
    )
    contents = wrapper.contents
    judge = PerformanceJudge(monitoring, store, contents.recipe_name, contents.target)
    performance = judge.judge(evaluation)
    if performance:
        store.add_tags(opened.run_id, performance_tags(performance, stage="evaluate"))
    return EvaluatedRun(
        run_id=opened.run_id,
        digest=opened.digest,
        recipe=contents.recipe_name,
        data=f"{rows} of {data or 'its own loader'}",
        evaluation=evaluation,
        trained=contents.metrics,
        performance=performance,
        notes=notes,
    )


def _check(wrapper: PyfuncWrapper, schema: pa.Schema) -> None:
    roles = wrapper.contents.roles
    judged = [(roles.target, "the target")]
    judged += [(roles.treatment, "the treatment")] if roles.treatment else []
    require_columns(schema, judged)
    wrapper.check(schema)


def _are_those_of_training(wrapper: PyfuncWrapper, ordered: pa.Table) -> bool:
    known = wrapper.contents.data_fingerprint
    same_size: bool = ordered.num_rows == known["rows"]
    return same_size and fingerprint(ordered) == known["sha256"]


def _held_out(wrapper: PyfuncWrapper, table: pa.Table) -> pa.Table:
    """The rows that training set aside, found again by its own split."""
    method = wrapper.contents.training_methodology
    target = wrapper.contents.target
    splitter = Splitter(
        Split(**method["split"]), task=target.task, timestamp_col=method["event_timestamp_col"]
    )
    truth = target.read(table, wrapper.contents.roles)
    return table.take(splitter.holdout(table.to_pandas(), strata(truth)).test)


def _evaluation(wrapper: PyfuncWrapper, table: pa.Table, chunk_rows: int) -> Evaluation:
    target = wrapper.contents.target
    truth = target.read(table, wrapper.contents.roles)
    predictions = _together(list(_predicted(wrapper, table, chunk_rows)))
    # The seed of training, so that the same rows give the same intervals.
    seed = wrapper.contents.training_methodology["random_state"]
    return Evaluator(target.task, seed=seed).evaluate(truth, predictions)


def _predicted(wrapper: PyfuncWrapper, table: pa.Table, chunk_rows: int) -> Iterator[Predictions]:
    first = 0
    for batch in table.to_batches(max_chunksize=chunk_rows):
        yield wrapper.predictions(batch, first_row=first)
        first += batch.num_rows


def _together(parts: list[Predictions]) -> Predictions:
    probabilities = [part.probabilities for part in parts if part.probabilities is not None]
    return Predictions(
        np.concatenate([part.values for part in parts]),
        np.concatenate(probabilities) if probabilities else None,
        parts[0].classes,
    )
