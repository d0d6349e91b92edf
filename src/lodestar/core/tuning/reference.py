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
# In how many parts of the judging rows a model and the reference are compared, of so many rows at least.
PARTS, FEWEST_PART_ROWS = 20, 100


@dataclass(frozen=True)
class Reference:
    """Predictions of all n rows, each by a model that was not fitted on it, and their metric."""

    truth: Truth
    predictions: Predictions
    metric: Metric
    overall: float

    def offset(self, positions: IntArray) -> float:
        """The metric on these rows less that on all; 0 where either is undefined."""
        found = self._score(self.predictions, positions, positions) - self.overall
        return found if np.isfinite(found) else 0.0

    def slope(self, positions: IntArray, predictions: Predictions) -> float | None:
        """How much of its offset is best taken off the metric of a model's predictions of these rows.

        That is their covariance over the variance of the reference's, over parts of the rows at random:
        a better model's metric varies less than the reference's, and not with it alone. None where there
        are too few rows, or it is undefined in too many parts.
        """
        if len(positions) < PARTS * FEWEST_PART_ROWS:
            return None
        order = np.random.default_rng(SEED).permutation(len(positions))
        pairs = np.array(
            [
                (
                    self._score(self.predictions, positions[part], positions[part]),
                    self._score(predictions, part, positions[part]),
                )
                for part in np.array_split(order, PARTS)
            ]
        )
        pairs = pairs[np.isfinite(pairs).all(axis=1)]
        if len(pairs) <= PARTS // 2 or not np.ptp(pairs[:, 0]):
            return None
        covariances = np.cov(pairs, rowvar=False)
        return float(np.clip(covariances[0, 1] / covariances[0, 0], 0.0, 1.0))

    def _score(self, predictions: Predictions, at: IntArray, positions: IntArray) -> float:
        """The metric of those predictions `at` some places, which are of the rows at these positions."""
        probabilities = predictions.probabilities
        some = Predictions(
            predictions.values[at],
            None if probabilities is None else probabilities[at],
            predictions.classes,
        )
        return float(self.metric.compute(self.truth.at(positions), some))


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
