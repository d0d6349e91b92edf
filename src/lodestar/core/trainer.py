"""Learns: sets the test rows aside, fits on the rest, judges once. The only caller of `fit`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from lodestar.core.evaluator import Evaluator
from lodestar.core.fitted import FittedModel
from lodestar.core.learner import Learner
from lodestar.core.metrics import Metric
from lodestar.core.results import Evaluation, Predictions, Truth
from lodestar.core.roles import Roles, TargetReader
from lodestar.core.splitter import Split, Splitter
from lodestar.core.tuning.problem import TrialProblem
from lodestar.core.tuning.result import TuningResult
from lodestar.schema import FrameSchema

__all__ = ["Search", "Trainer", "TrainingResult", "strata"]

Search: TypeAlias = Callable[[TrialProblem], TuningResult | None]

# Above this many distinct outcomes, rows cannot be stratified by them.
MOST_STRATA = 10


@dataclass(frozen=True)
class TrainingResult:
    """Everything that was learned, and how well it does on rows that it never saw."""

    model: FittedModel
    hyperparameters: Mapping[str, Any]
    tuning: TuningResult | None
    roles: Roles
    target: TargetReader
    schema: FrameSchema
    split: Split
    truth: Truth
    held_out: Predictions
    evaluation: Evaluation


class Trainer:
    """One recipe's training, on frames alone."""

    def __init__(
        self,
        *,
        learner: Learner,
        splitter: Splitter,
        evaluator: Evaluator,
        metric: Metric,
        hyperparameters: Mapping[str, Any],
        split_columns: tuple[str, ...],
        search: Search | None = None,
    ) -> None:
        self._learner = learner
        self._splitter = splitter
        self._evaluator = evaluator
        self._metric = metric
        self._hyperparameters = dict(hyperparameters)
        self._split_names = split_columns
        self._search = search

    def train(self, table: pa.Table, roles: Roles, target: TargetReader) -> TrainingResult:
        """Set the test rows aside, search and fit on the others, then open the test rows once.

        Raises:
            DataError: too few rows, or values that no model can use.
        """
        truth = target.read(table, roles)
        columns = self._split_columns(table)
        split = self._splitter.holdout(columns, strata(truth))
        rows, known = table.select(roles.inputs).take(split.train), truth.at(split.train)
        tuning = None
        if self._search is not None:
            tuning = self._search(self._problem(rows, known, columns.iloc[split.train]))
        hyperparameters = {**self._hyperparameters, **(tuning.best_params if tuning else {})}
        model = self._learner.single_training_iteration(
            self._learner.prepare(rows, known), hyperparameters
        )
        held_out = model.score(table.select(roles.inputs).take(split.test))
        return TrainingResult(
            model=model,
            hyperparameters=hyperparameters,
            tuning=tuning,
            roles=roles,
            target=target,
            schema=FrameSchema.of(table),
            split=split,
            truth=truth,
            held_out=held_out.predictions,
            evaluation=self._evaluator.evaluate(truth.at(split.test), held_out.predictions),
        )

    def _problem(self, rows: pa.Table, truth: Truth, columns: pd.DataFrame) -> TrialProblem:
        """What the search is given: the training part alone, so that no trial can see a test row."""
        return TrialProblem(
            inputs=rows,
            truth=truth,
            split_columns=columns,
            strata=strata(truth),
            learner=self._learner,
            splitter=self._splitter,
            metric=self._metric,
        )

    def _split_columns(self, table: pa.Table) -> pd.DataFrame:
        wanted = [name for name in self._split_names if name in table.column_names]
        frame: pd.DataFrame = table.select(wanted).to_pandas()
        return frame if wanted else pd.DataFrame(index=pd.RangeIndex(table.num_rows))


def strata(truth: Truth) -> NDArray[Any] | None:
    """What to stratify by: the class, or treatment by outcome; None where there is nothing."""
    if truth.classes:
        names: NDArray[Any] = np.array([str(label) for label in truth.classes])[truth.target]
        return names
    if truth.treatment is None:
        return None
    outcomes, codes = np.unique(truth.target, return_inverse=True)
    if len(outcomes) > MOST_STRATA:
        return truth.treatment
    return np.asarray(truth.treatment * len(outcomes) + codes, dtype=np.int64)
