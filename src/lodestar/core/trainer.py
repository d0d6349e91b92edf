"""Learns: sets the test rows aside, fits on the rest, judges once. The only caller of `fit`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from lodestar.core.evaluator import Evaluator
from lodestar.core.fitted import FittedModel
from lodestar.core.models import Family
from lodestar.core.results import Evaluation, Truth
from lodestar.core.roles import Roles, TargetReader
from lodestar.core.splitter import Split, Splitter
from lodestar.errors import DataError, LodestarError, UsageError
from lodestar.interface.learning import Preprocessor
from lodestar.schema import FrameSchema

__all__ = ["Trainer", "TrainingResult", "strata"]

# Above this many distinct outcomes, rows cannot be stratified by them.
MOST_STRATA = 10


@dataclass(frozen=True)
class TrainingResult:
    """Everything that was learned, and how well it does on rows that it never saw."""

    model: FittedModel
    hyperparameters: Mapping[str, Any]
    roles: Roles
    target: TargetReader
    schema: FrameSchema
    split: Split
    truth: Truth
    evaluation: Evaluation


class Trainer:
    """One recipe's training, on frames alone."""

    def __init__(
        self,
        *,
        family: Family,
        preprocessor: Callable[[], Preprocessor],
        splitter: Splitter,
        evaluator: Evaluator,
        hyperparameters: Mapping[str, Any],
        split_columns: tuple[str, ...],
        seed: int,
    ) -> None:
        self._family = family
        self._make_preprocessor = preprocessor
        self._splitter = splitter
        self._evaluator = evaluator
        self._hyperparameters = dict(hyperparameters)
        self._split_names = split_columns
        self._seed = seed

    def train(self, table: pa.Table, roles: Roles, target: TargetReader) -> TrainingResult:
        """Set the test rows aside, fit on the others, then open the test rows once.

        Raises:
            DataError: too few rows, or values that no model can use.
        """
        truth = target.read(table, roles)
        self._refuse_infinite(table, roles)
        split = self._splitter.holdout(self._split_columns(table), strata(truth))
        model = self._single_training_iteration(
            table, roles, truth, split.train, self._hyperparameters
        )
        held_out = model.score(table.select(roles.inputs).take(split.test))
        return TrainingResult(
            model=model,
            hyperparameters=self._hyperparameters,
            roles=roles,
            target=target,
            schema=FrameSchema.of(table),
            split=split,
            truth=truth,
            evaluation=self._evaluator.evaluate(truth.at(split.test), held_out.predictions),
        )

    def _single_training_iteration(
        self,
        table: pa.Table,
        roles: Roles,
        truth: Truth,
        positions: NDArray[np.int64],
        hyperparameters: Mapping[str, Any],
    ) -> FittedModel:
        """Fit preprocessor and estimator on these rows alone: the one way, for fixed and tuned."""
        rows = table.select(roles.inputs).take(positions)
        known = truth.at(positions)
        preprocessor = self._make_preprocessor()
        preprocessor.fit(rows, known.target)
        features = preprocessor.transform(rows, dtype=self._family.dtype)
        try:
            estimator = self._family.build(hyperparameters, seed=self._seed)
            self._family.fit(estimator, features, known)
        except self._family.refusals() as error:
            raise _refused(self._family.cls.__name__, hyperparameters, error) from error
        return FittedModel(preprocessor, estimator, self._family, truth.classes)

    def _split_columns(self, table: pa.Table) -> pd.DataFrame:
        wanted = [name for name in self._split_names if name in table.column_names]
        frame: pd.DataFrame = table.select(wanted).to_pandas()
        return frame if wanted else pd.DataFrame(index=pd.RangeIndex(table.num_rows))

    @staticmethod
    def _refuse_infinite(table: pa.Table, roles: Roles) -> None:
        for name in roles.inputs:
            column = table.column(name)
            if pa.types.is_floating(column.type) and np.isinf(column.to_numpy()).any():
                row = int(np.flatnonzero(np.isinf(column.to_numpy()))[0])
                raise DataError(
                    f"column {name!r} has an infinite value in row {row}",
                    hint="filter or clip it in the SQL",
                )


def _refused(name: str, hyperparameters: Mapping[str, Any], error: Exception) -> LodestarError:
    """In the library's own words; it is the recipe's mistake where they name a hyperparameter."""
    said = str(error).strip().splitlines() or [type(error).__name__]
    words = f"{name} refuses: {said[0]}"
    if any(parameter in words for parameter in hyperparameters):
        return UsageError(words, hint="see model.hyperparameters in the recipe")
    return DataError(words, hint="see the columns' values, or model.hyperparameters in the recipe")


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
