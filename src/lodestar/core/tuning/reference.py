"""How hard a split is: what one reference model scores on its validation rows, less what on all rows.

Most of what parts two trials on splits of their own is which rows judge them, and any decent model
finds the same rows hard. Taking the reference's difference off is a control variate (Lavenberg &
Welch 1981, A perspective on the use of control variables to increase the efficiency of simulation).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lodestar.core.learner import Learner
from lodestar.core.metrics import Metric
from lodestar.core.models.watching import StoppedError
from lodestar.core.results import IntArray, Predictions, Truth
from lodestar.core.tuning.drafts import draft_share, some_of

__all__ = ["Reference", "cross_fitted"]

FOLDS = 3
SEED = 0


@dataclass(frozen=True)
class Reference:
    """Predictions of all n rows, each by a model that was not fitted on it, and their metric."""

    truth: Truth
    predictions: Predictions
    metric: Metric
    overall: float

    def offset(self, positions: IntArray) -> float:
        """The metric on these rows less that on all; 0 where either is undefined."""
        here = Predictions(
            self.predictions.values[positions],
            None
            if self.predictions.probabilities is None
            else self.predictions.probabilities[positions],
            self.predictions.classes,
        )
        found = self.metric.compute(self.truth.at(positions), here) - self.overall
        return float(found) if np.isfinite(found) else 0.0


def cross_fitted(
    inputs: pa.Table,
    truth: Truth,
    strata: NDArray[Any] | None,
    *,
    learner: Learner,
    metric: Metric,
    hyperparameters: Mapping[str, Any],
    overdue: Callable[[], bool],
) -> Reference:
    """Predict every third of the rows by a model of the others; of many rows a share is fitted on.

    Raises:
        StoppedError: the deadline has come.
        LodestarError: the estimator refuses the hyperparameters or the rows.
    """
    chooser = np.random.default_rng(SEED)
    fold = _folds(len(truth), strata, chooser)
    share = draft_share(len(truth) * (FOLDS - 1) // FOLDS)
    given = hyperparameters if share is None else learner.family.drafted(hyperparameters)
    values: NDArray[Any] | None = None
    probabilities: NDArray[Any] | None = None
    for number in range(FOLDS):
        if overdue():
            raise StoppedError
        others = np.flatnonzero(fold != number)
        if share is not None:
            others = some_of(others, strata, share, chooser)
        rest = np.flatnonzero(fold == number)
        rows = learner.prepare(inputs.take(others), truth.at(others))
        model = learner.single_training_iteration(rows, given)
        features = rows.preprocessor.transform(inputs.take(rest), dtype=learner.family.dtype)
        found = model.predict(features)
        values = _placed(values, rest, found.values, len(truth))
        if found.probabilities is not None:
            probabilities = _placed(probabilities, rest, found.probabilities, len(truth))
    predictions = Predictions(np.asarray(values), probabilities, truth.classes)
    reference = Reference(truth, predictions, metric, 0.0)
    return replace(reference, overall=float(metric.compute(truth, predictions)))


def _folds(count: int, strata: NDArray[Any] | None, chooser: np.random.Generator) -> IntArray:
    """The fold of every row; strata are spread over all of them."""
    order = chooser.permutation(count)
    if strata is not None:
        _, codes = np.unique(np.asarray(strata)[order], return_inverse=True)
        order = order[np.argsort(codes, kind="stable")]
    fold = np.empty(count, dtype=np.int64)
    fold[order] = np.arange(count) % FOLDS
    return fold


def _placed(
    into: NDArray[Any] | None, positions: IntArray, found: NDArray[Any], count: int
) -> NDArray[Any]:
    if into is None:
        into = np.empty((count, *found.shape[1:]), dtype=found.dtype)
    into[positions] = found
    return into
