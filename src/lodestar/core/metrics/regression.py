"""Regression metrics, as scikit-learn defines them, weighted by bootstrap counts."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lodestar.core.metrics.base import Metric, ratio
from lodestar.core.results import FloatArray, IntArray, Predictions, Truth

__all__ = ["REGRESSION", "RegressionRows"]


class RegressionRows:
    """Errors per row, and absolute errors sorted once."""

    def __init__(self, truth: Truth, predictions: Predictions) -> None:
        self.target = np.asarray(truth.target, dtype=np.float64)
        self.errors = np.asarray(predictions.values, dtype=np.float64) - self.target

    def weigh(self, weights: FloatArray) -> "RegressionDraw":
        """The rows under weights (n, r)."""
        return RegressionDraw(self, weights)

    @cached_property
    def order(self) -> IntArray:
        """Rows from the smallest absolute error to the largest."""
        return np.argsort(np.abs(self.errors), kind="stable").astype(np.int64)

    @cached_property
    def parts(self) -> FloatArray:
        """Per row (5, n): error squared, absolute, relative; target centred, and its square."""
        size = np.abs(self.errors)
        relative = size / np.maximum(np.abs(self.target), np.finfo(np.float64).eps)
        if (self.target == 0).any():
            relative = np.full_like(size, np.nan)
        centred = self.target - self.target.mean()
        return np.stack([self.errors**2, size, relative, centred, centred**2])


@dataclass(frozen=True)
class RegressionDraw:
    """Predicted rows under weights (n, r)."""

    rows: RegressionRows
    weights: FloatArray

    @cached_property
    def means(self) -> FloatArray:
        """Weighted means (5, r) of the rows' parts."""
        return ratio(self.rows.parts @ self.weights, self.weights.sum(axis=0))


def _rmse(draw: RegressionDraw) -> FloatArray:
    return np.asarray(np.sqrt(draw.means[0]))


def _mae(draw: RegressionDraw) -> FloatArray:
    return np.asarray(draw.means[1])


def _mape(draw: RegressionDraw) -> FloatArray:
    return np.asarray(draw.means[2])


def _r2(draw: RegressionDraw) -> FloatArray:
    squared, _, _, centre, spread = draw.means
    variance = spread - centre**2
    rounding = 1e-12 * np.maximum(spread, np.finfo(np.float64).tiny)
    return 1.0 - ratio(squared, np.where(variance > rounding, variance, 0.0))


def _median_absolute_error(draw: RegressionDraw) -> FloatArray:
    order = draw.rows.order
    size = np.abs(draw.rows.errors)[order]
    reached = np.cumsum(draw.weights[order], axis=0)
    half = reached[-1] / 2
    last = len(size) - 1
    lower = np.minimum((reached < half).sum(axis=0), last)
    upper = np.minimum((reached <= half).sum(axis=0), last)
    return np.asarray((size[lower] + size[upper]) / 2)


_ERRORS = (
    ("rmse", _rmse, "Root of the mean squared error, in the target's unit."),
    ("mae", _mae, "Mean absolute error, in the target's unit."),
    ("median_absolute_error", _median_absolute_error, "Median absolute error, target's unit."),
    ("mape", _mape, "Mean of |error| / |target|; undefined where a target is 0."),
)

REGRESSION: tuple[Metric, ...] = (
    *(
        Metric(name, ("regression",), "minimize", "values", text, RegressionRows, kernel)
        for name, kernel, text in _ERRORS
    ),
    Metric(
        "r2",
        ("regression",),
        "maximize",
        "values",
        "1 - squared error / variance of the target; undefined where the target is constant.",
        RegressionRows,
        _r2,
    ),
)
