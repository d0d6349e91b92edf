"""What a metric is, and the arithmetic that weighted metrics share.

Every formula takes a matrix of weights (n rows, r columns) and gives r values at once. A column of
ones is the point estimate; a column of bootstrap counts is one resample. So the figure and its
interval can never come from two definitions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from lodestar.core.results import FloatArray, IntArray, Predictions, Task, Truth

__all__ = ["Metric", "Ranking", "Weighable", "defined_mean", "ratio"]


class Weighable(Protocol):
    """Held-out rows, prepared once (sorted, one loss per row), ready to be weighted many times."""

    def weigh(self, weights: FloatArray) -> object:
        """Rows seen through weights (n, r); the result is what the task's kernels take."""
        ...


@dataclass(frozen=True)
class Metric:
    """One way to judge predictions.

    `kernel` takes what `prepare(truth, predictions).weigh(weights)` gives and returns one value per
    column of the weights, NaN where the metric is undefined (one class only, no control rows, ...).
    """

    name: str
    tasks: tuple[Task, ...]
    direction: Literal["maximize", "minimize"]
    needs: Literal["labels", "probabilities", "values", "uplift"]
    description: str
    prepare: Callable[[Truth, Predictions], Weighable]
    kernel: Callable[[Any], FloatArray]

    def compute(
        self, truth: Truth, predictions: Predictions, weights: FloatArray | None = None
    ) -> float:
        """The metric over rows repeated `weights` (n,) times, once by default; NaN if undefined."""
        rows = self.prepare(truth, predictions)
        column = np.ones(len(truth)) if weights is None else np.asarray(weights, dtype=np.float64)
        return float(self.kernel(rows.weigh(column[:, None]))[0])


class Ranking:
    """Rows from the highest score to the lowest, with equal scores taken together."""

    def __init__(self, scores: NDArray[Any]) -> None:
        self.order: IntArray = np.argsort(-scores, kind="stable").astype(np.int64)
        ranked = scores[self.order]
        self.starts: IntArray = np.r_[0, np.flatnonzero(ranked[1:] != ranked[:-1]) + 1]
        self.tied = len(self.starts) < len(scores)

    def sums(self, ranked: FloatArray) -> FloatArray:
        """Sums (groups, r) over rows of equal score, of values (n, r) already in ranked order."""
        return np.add.reduceat(ranked, self.starts, axis=0) if self.tied else ranked


def ratio(top: FloatArray, bottom: FloatArray, *, empty: float = np.nan) -> FloatArray:
    """Quotient of two arrays, `empty` where bottom is 0."""
    filled = np.full(np.broadcast_shapes(top.shape, bottom.shape), empty, dtype=np.float64)
    return np.divide(top, bottom, out=filled, where=bottom != 0)


def defined_mean(values: FloatArray) -> FloatArray:
    """Mean over the first axis of the values that are defined, NaN where none is."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=0), defined.sum(axis=0).astype(np.float64))
