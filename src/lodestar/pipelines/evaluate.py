"""Judge a run's artifact on labelled data."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lodestar.artifact.wrapper import PyfuncWrapper, load_wrapper
from lodestar.core.evaluator import Evaluator
from lodestar.core.results import Evaluation, Predictions
from lodestar.errors import DataError
from lodestar.factory import EnvironmentFactory, Spine
from lodestar.interface.progress import Progress, Silent
from lodestar.pipelines.batch_inference import loader_of
from lodestar.schema import require_columns
from lodestar.settings.loading import Environment

__all__ = ["EvaluatedRun", "evaluate"]


@dataclass(frozen=True)
class EvaluatedRun:
    """How a run's model does on the rows given."""

    run_id: str
    digest: str
    data: str
    evaluation: Evaluation
    trained: dict[str, dict[str, float]]
    notes: tuple[str, ...]


def evaluate(
    environment: Environment,
    reference: str,
    params: Mapping[str, str],
    *,
    data: str | None = None,
    progress: Progress | None = None,
) -> EvaluatedRun:
    """Score labelled rows (a data URI, else those of the artifact's own loader) and compare.

    Raises:
        LodestarError: the rows have no labels, or other columns than the artifact takes.
    """
    tell = progress or Silent()
    factory = EnvironmentFactory(environment)
    tell.stage("Verifying the artifact")
    store = factory.store()
    with store.opened(reference) as opened:
        wrapper, warnings = load_wrapper(opened.folder, digest=opened.run.digest)
    spine = Spine(factory.reader(data)) if data else factory.spine(loader_of(wrapper), params)
    notes = [*spine.notes, *warnings]
    if data is None:
        notes.append("these rows include those it was trained on: the metrics flatter the model")
    for note in notes:
        tell.note(note)
    tell.stage("Evaluating")
    evaluation = _evaluation(wrapper, spine, environment.config.batch.chunk_rows, tell)
    store.log_metrics(
        opened.run.run_id,
        {f"evaluate.{name}": value for name, value in evaluation.values().items()},
    )
    return EvaluatedRun(
        run_id=opened.run.run_id,
        digest=opened.run.digest or "",
        data=data or "the artifact's own loader",
        evaluation=evaluation,
        trained=wrapper.contents.metrics,
        notes=tuple(notes),
    )


def _evaluation(
    wrapper: PyfuncWrapper, spine: Spine, chunk_rows: int, tell: Progress
) -> Evaluation:
    roles, target = wrapper.contents.roles, wrapper.contents.target
    schema = spine.reader.schema()
    judged = [(roles.target, "the target")]
    judged += [(roles.treatment, "the treatment")] if roles.treatment else []
    require_columns(schema, judged)
    wrapper.check(schema)
    labels, scored, rows = [], [], 0
    with spine.reader.read(chunk_rows=chunk_rows) as reader:
        for batch in reader:
            scored.append(wrapper.predictions(batch, first_row=rows))
            labels.append(batch.select([name for name, _ in judged]))
            rows += batch.num_rows
            tell.rows(rows, None)
    if not rows:
        raise DataError("there are no rows to evaluate", hint="check the data and its filter")
    truth = target.read(pa.Table.from_batches(labels), roles)
    return Evaluator(target.task, seed=0).evaluate(truth, _together(scored))


def _together(parts: list[Predictions]) -> Predictions:
    probabilities = [part.probabilities for part in parts if part.probabilities is not None]
    return Predictions(
        np.concatenate([part.values for part in parts]),
        np.concatenate(probabilities) if probabilities else None,
        parts[0].classes,
    )
