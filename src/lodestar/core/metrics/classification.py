"""Classification metrics, as scikit-learn defines them, weighted by bootstrap counts.

Binary problems (two classes) judge the positive class, position 1; with more classes, precision,
recall and F1 are unweighted means over the classes that occur (macro), ROC AUC and average
precision one-versus-rest means over the classes with rows on both sides.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lodestar.core.metrics.base import Metric, Ranking, defined_mean, ratio
from lodestar.core.results import FloatArray, Predictions, Truth

__all__ = ["CLASSIFICATION", "ClassificationRows"]

_BINARY = 2


class ClassificationRows:
    """True and predicted class positions, and scores sorted once per judged class."""

    def __init__(self, truth: Truth, predictions: Predictions) -> None:
        self.target = np.asarray(truth.target).astype(np.int64)
        self.predicted = np.asarray(predictions.values).astype(np.int64)
        self.probabilities = predictions.probabilities
        columns = 0 if predictions.probabilities is None else predictions.probabilities.shape[1]
        highest = max(self.target.max(initial=0), self.predicted.max(initial=0)) + 1
        declared = (len(truth.classes), len(predictions.classes), columns)
        self.class_count = max(2, int(highest), *declared)

    def weigh(self, weights: FloatArray) -> "ClassificationDraw":
        """The rows under weights (n, r)."""
        return ClassificationDraw(self, weights)

    @cached_property
    def judged(self) -> tuple[int, ...]:
        """Class positions that are ranked: the positive one, or all if more than two."""
        return (1,) if self.class_count == _BINARY else tuple(range(self.class_count))

    @cached_property
    def scores(self) -> FloatArray:
        """Probabilities (n, k)."""
        if self.probabilities is None:
            raise ValueError("this metric needs probabilities and the predictions have none")
        return np.asarray(self.probabilities, dtype=np.float64)

    @cached_property
    def rankings(self) -> tuple[tuple[Ranking, FloatArray], ...]:
        """Per judged class: its ranking, and in ranked order 1 for its rows and 0 for others."""
        ranked = [(Ranking(self.scores[:, c]), self.target == c) for c in self.judged]
        return tuple((r, own[r.order, None].astype(np.float64)) for r, own in ranked)

    @cached_property
    def membership(self) -> Any:  # noqa: ANN401 -- scipy has no types
        """Sparse (3k, n): rows that are hit, true and predicted, per class."""
        from scipy.sparse import csr_array

        k, n = self.class_count, len(self.target)
        every = np.arange(n)
        hit = np.flatnonzero(self.target == self.predicted)
        line = np.r_[self.target[hit], k + self.target, 2 * k + self.predicted]
        column = np.r_[hit, every, every]
        return csr_array((np.ones(len(line)), (line, column)), shape=(3 * k, n))

    @cached_property
    def losses(self) -> FloatArray:
        """Per row (2, n): minus log of the true class's probability, and squared error."""
        rows = np.arange(len(self.target))
        kind = np.asarray(self.probabilities).dtype
        tiny = float(np.finfo(kind if kind.kind == "f" else np.float64).eps)
        own = np.clip(self.scores[rows, self.target], tiny, 1 - tiny)
        if self.class_count == _BINARY:
            squared = (self.scores[:, 1] - self.target) ** 2
        else:
            truth = np.zeros_like(self.scores)
            truth[rows, self.target] = 1.0
            squared = ((self.scores - truth) ** 2).sum(axis=1)
        return np.stack([-np.log(own), squared])


@dataclass(frozen=True)
class Tallies:
    """Weight per class (k, r) of the rows predicted right, of that class, and predicted as it."""

    hit: FloatArray
    true: FloatArray
    predicted: FloatArray


@dataclass(frozen=True)
class ClassificationDraw:
    """Classified rows under weights (n, r)."""

    rows: ClassificationRows
    weights: FloatArray

    @cached_property
    def total(self) -> FloatArray:
        """Sum of the weights (r,)."""
        return np.asarray(self.weights.sum(axis=0))

    @cached_property
    def tallies(self) -> Tallies:
        """All that accuracy, precision, recall, F1 and Matthews' correlation need."""
        hit, true, predicted = np.split(np.asarray(self.rows.membership @ self.weights), 3)
        return Tallies(hit, true, predicted)

    @cached_property
    def mean_losses(self) -> FloatArray:
        """Weighted means (2, r) of the rows' losses."""
        return ratio(self.rows.losses @ self.weights, self.total)

    @cached_property
    def ranked(self) -> tuple[FloatArray, FloatArray]:
        """ROC AUC and average precision (judged classes, r)."""
        pairs = [self._rank(ranking, own) for ranking, own in self.rows.rankings]
        return np.stack([auc for auc, _ in pairs]), np.stack([ap for _, ap in pairs])

    def _rank(self, ranking: Ranking, own: FloatArray) -> tuple[FloatArray, FloatArray]:
        ordered = self.weights[ranking.order]
        positive = ranking.sums(ordered * own)
        everything = ranking.sums(ordered)
        above = np.cumsum(positive, axis=0)
        ahead = np.cumsum(everything, axis=0)
        wins = np.einsum("ij,ij->j", everything - positive, above - positive / 2)
        precision = above / np.maximum(ahead, np.finfo(np.float64).tiny)
        area = np.einsum("ij,ij->j", positive, precision)
        positives = above[-1]
        return ratio(wins, positives * (ahead[-1] - positives)), ratio(area, positives)


def _per_class(draw: ClassificationDraw, top: FloatArray, bottom: FloatArray) -> FloatArray:
    """The positive class's ratio, or the mean over classes that occur (0 / 0 counts as 0)."""
    tallies = draw.tallies
    if draw.rows.class_count == _BINARY:
        return ratio(top[1], bottom[1], empty=0.0)
    occurs = tallies.true + tallies.predicted > 0
    return defined_mean(np.where(occurs, ratio(top, bottom, empty=0.0), np.nan))


def _if_positives(draw: ClassificationDraw, values: FloatArray) -> FloatArray:
    if draw.rows.class_count > _BINARY:
        return values
    return np.where(draw.tallies.true[1] > 0, values, np.nan)


def _accuracy(draw: ClassificationDraw) -> FloatArray:
    return ratio(draw.tallies.hit.sum(axis=0), draw.total)


def _balanced_accuracy(draw: ClassificationDraw) -> FloatArray:
    return defined_mean(ratio(draw.tallies.hit, draw.tallies.true))


def _f1(draw: ClassificationDraw) -> FloatArray:
    tallies = draw.tallies
    return _if_positives(draw, _per_class(draw, 2 * tallies.hit, tallies.true + tallies.predicted))


def _precision(draw: ClassificationDraw) -> FloatArray:
    return _per_class(draw, draw.tallies.hit, draw.tallies.predicted)


def _recall(draw: ClassificationDraw) -> FloatArray:
    return _if_positives(draw, _per_class(draw, draw.tallies.hit, draw.tallies.true))


def _matthews(draw: ClassificationDraw) -> FloatArray:
    tallies, total = draw.tallies, draw.total
    covariance = tallies.hit.sum(axis=0) * total - (tallies.true * tallies.predicted).sum(axis=0)
    true_spread = total**2 - (tallies.true**2).sum(axis=0)
    predicted_spread = total**2 - (tallies.predicted**2).sum(axis=0)
    values = ratio(covariance, np.sqrt(true_spread * predicted_spread), empty=0.0)
    return np.where(true_spread > 0, values, np.nan)


def _roc_auc(draw: ClassificationDraw) -> FloatArray:
    return defined_mean(draw.ranked[0])


def _average_precision(draw: ClassificationDraw) -> FloatArray:
    return defined_mean(draw.ranked[1])


def _log_loss(draw: ClassificationDraw) -> FloatArray:
    return np.asarray(draw.mean_losses[0])


def _brier(draw: ClassificationDraw) -> FloatArray:
    return np.asarray(draw.mean_losses[1])


_SPECIFIED = (
    ("accuracy", _accuracy, "Share of rows whose class is predicted right."),
    ("balanced_accuracy", _balanced_accuracy, "Mean over true classes of the share found."),
    ("f1", _f1, "2 TP / (2 TP + FP + FN): harmonic mean of precision and recall."),
    ("precision", _precision, "TP / (TP + FP); 0 where the class is never predicted."),
    ("recall", _recall, "TP / (TP + FN)."),
    (
        "matthews",
        _matthews,
        "Correlation of true and predicted classes (Matthews 1975; Gorodkin 2004 for k classes).",
    ),
)
_SCORED = (
    (
        "roc_auc",
        _roc_auc,
        "Chance that a positive row scores above a negative one, ties one half (Mann-Whitney).",
    ),
    (
        "average_precision",
        _average_precision,
        "Sum over thresholds of (recall step) * precision, without interpolation.",
    ),
)
_LOSSES = (
    ("log_loss", _log_loss, "Mean of -ln p(true class), p kept off 0 and 1 by machine epsilon."),
    (
        "brier",
        _brier,
        "Mean squared error of the positive class's probability; summed over classes if k > 2.",
    ),
)

CLASSIFICATION: tuple[Metric, ...] = (
    *(
        Metric(name, ("classification",), "maximize", "labels", text, ClassificationRows, kernel)
        for name, kernel, text in _SPECIFIED
    ),
    *(
        Metric(
            name, ("classification",), "maximize", "probabilities", text, ClassificationRows, kernel
        )
        for name, kernel, text in _SCORED
    ),
    *(
        Metric(
            name, ("classification",), "minimize", "probabilities", text, ClassificationRows, kernel
        )
        for name, kernel, text in _LOSSES
    ),
)
