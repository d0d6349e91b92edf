"""Judges predictions on rows that the model never saw: every metric with its interval, and curves.

The bootstrap draws how often each row is taken (multinomial counts) and puts whole blocks of
resamples through the metrics' own weighted formulas, so nothing is sorted or fitted per resample.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lodestar.core.metrics.base import Metric, Weighable
from lodestar.core.metrics.curves import causal_curves, classification_curves, regression_curves
from lodestar.core.metrics.registry import metrics_for
from lodestar.core.results import (
    Curves,
    Evaluation,
    FloatArray,
    MetricEstimate,
    Predictions,
    Task,
    Truth,
)
from lodestar.errors import DataError

__all__ = ["Evaluator"]

_FULL_ROWS = 20_000
_FEWEST_RESAMPLES = 50
_BLOCK_CELLS = 131_072  # 1 MB of float64: a block and its temporaries stay in the processor's cache


class Evaluator:
    """Evaluates one task's predictions, the same way for the same seed.

    Intervals are 95 % percentile bootstrap intervals over `resamples` draws of all rows. Beyond
    20,000 rows (counted once per class pair if there are many classes) fewer draws are made, in
    proportion but never below 50 (nor above `resamples`): the interval stays honest in width and
    gets coarser at its ends.
    """

    def __init__(self, task: Task, *, seed: int, resamples: int = 200) -> None:
        self._task = task
        self._seed = seed
        self._resamples = resamples

    def evaluate(self, truth: Truth, predictions: Predictions) -> Evaluation:
        """Metrics that are defined on these rows, and curves.

        Metrics of probabilities are left out where there are none, and so is any metric that these
        rows do not define (ROC AUC of one class alone). DataError where a value is not finite.
        """
        _check(truth, predictions)
        metrics = [
            metric
            for metric in metrics_for(self._task)
            if metric.needs != "probabilities" or predictions.probabilities is not None
        ]
        rows = metrics[0].prepare(truth, predictions)
        points = _apply(metrics, rows, np.ones((len(truth), 1)))
        defined = [metric for metric in metrics if np.isfinite(points[metric.name][0])]
        draws = self._bootstrap(defined, rows, truth, predictions)
        estimates: dict[str, MetricEstimate] = {}
        for metric in defined:
            drawn = draws[metric.name][np.isfinite(draws[metric.name])]
            point = float(points[metric.name][0])
            ends = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (point, point)
            estimates[metric.name] = MetricEstimate(point, float(ends[0]), float(ends[1]))
        return Evaluation(self._task, len(truth), estimates, self._curves(truth, predictions))

    def _bootstrap(
        self, metrics: list[Metric], rows: Weighable, truth: Truth, predictions: Predictions
    ) -> dict[str, FloatArray]:
        classes = len(truth.classes or predictions.classes)
        work = len(truth) * max(1, classes // 2)
        wanted = max(_FEWEST_RESAMPLES, self._resamples * _FULL_ROWS // max(work, _FULL_ROWS))
        blocks = [
            _apply(metrics, rows, counts)
            for counts in _counts(len(truth), min(wanted, self._resamples), self._seed)
        ]
        return {
            metric.name: np.concatenate([block[metric.name] for block in blocks])
            for metric in metrics
        }

    def _curves(self, truth: Truth, predictions: Predictions) -> Curves:
        if self._task == "classification":
            return classification_curves(truth, predictions)
        if self._task == "regression":
            return regression_curves(truth, predictions, seed=self._seed)
        return causal_curves(truth, predictions)


def _apply(metrics: list[Metric], rows: Weighable, weights: FloatArray) -> dict[str, FloatArray]:
    draw = rows.weigh(weights)
    return {metric.name: metric.kernel(draw) for metric in metrics}


def _counts(rows: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """Blocks (rows, r) of how often each row is drawn; every column sums to the number of rows."""
    generator = np.random.default_rng(seed)
    width = max(1, _BLOCK_CELLS // rows)
    for start in range(0, resamples, width):
        columns = min(width, resamples - start)
        cells = generator.integers(0, rows, size=(rows, columns)) * columns + np.arange(columns)
        counts = np.bincount(cells.ravel(), minlength=rows * columns)
        yield counts.reshape(rows, columns).astype(np.float64)


def _check(truth: Truth, predictions: Predictions) -> None:
    if len(truth) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions for {len(truth)} rows")
    if not len(truth):
        raise DataError(
            "there are no rows to evaluate on",
            hint="check the split's sizes and the rows that the loader gives",
        )
    _finite(truth.target, "targets", "drop or fix the rows without a usable target")
    hint = "look for infinite features, a diverged model or a missing imputer"
    _finite(predictions.values, "predictions", hint)
    if predictions.probabilities is not None:
        _finite(predictions.probabilities, "predicted probabilities", hint)


def _finite(values: NDArray[np.generic], what: str, hint: str) -> None:
    wrong = ~np.isfinite(np.asarray(values, dtype=np.float64))
    if wrong.any():
        bad = int(wrong.reshape(len(values), -1).any(axis=1).sum())
        raise DataError(f"{bad} of {len(values)} {what} are not finite numbers", hint=hint)
