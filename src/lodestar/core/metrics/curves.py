"""Lines and tables for the report, from the same prepared rows as the metrics."""

import numpy as np

from lodestar.core.metrics.causal import CausalRows
from lodestar.core.metrics.classification import ClassificationRows
from lodestar.core.results import (
    CausalCurves,
    ClassificationCurves,
    Curve,
    FloatArray,
    IntArray,
    Predictions,
    RegressionCurves,
    Truth,
    UpliftDecile,
)

__all__ = ["causal_curves", "classification_curves", "regression_curves"]

_POINTS = 200
_SCATTER = 2_000
_BINS = 10
_CURVED_CLASSES = 20
_Z95 = 1.959963984540054


def classification_curves(truth: Truth, predictions: Predictions) -> ClassificationCurves:
    """Confusion counts, and ROC, precision-recall and calibration lines where there are scores.

    Lines are drawn for the 20 most frequent classes at most; calibration in 10 bins of equal size.
    """
    rows = ClassificationRows(truth, predictions)
    k = rows.class_count
    cells = np.bincount(rows.target * k + rows.predicted, minlength=k * k).reshape(k, k)
    given = truth.classes or predictions.classes or tuple(range(k))
    names = tuple(str(name) for name in given)
    if predictions.probabilities is None:
        return ClassificationCurves(names, cells.astype(np.int64))
    counts = np.bincount(rows.target, minlength=k)
    kept = set(np.argsort(-counts, kind="stable")[:_CURVED_CLASSES].tolist())
    drawn = [i for i, c in enumerate(rows.judged) if c in kept and 0 < counts[c] < len(rows.target)]
    lines = [_ranked_lines(rows, i, names[rows.judged[i]]) for i in drawn]
    return ClassificationCurves(
        names,
        cells.astype(np.int64),
        roc=tuple(roc for roc, _ in lines),
        precision_recall=tuple(recall for _, recall in lines),
        calibration=tuple(_calibration(rows, i, names[rows.judged[i]]) for i in drawn),
    )


def regression_curves(truth: Truth, predictions: Predictions, *, seed: int) -> RegressionCurves:
    """Actual and predicted values of up to 2,000 rows drawn at random."""
    actual = np.asarray(truth.target, dtype=np.float64)
    predicted = np.asarray(predictions.values, dtype=np.float64)
    if len(actual) > _SCATTER:
        chosen = np.sort(np.random.default_rng(seed).choice(len(actual), _SCATTER, replace=False))
        actual, predicted = actual[chosen], predicted[chosen]
    return RegressionCurves(actual, predicted)


def causal_curves(truth: Truth, predictions: Predictions) -> CausalCurves:
    """The Qini curve, its random line, and observed uplift by tenths of predicted uplift."""
    rows = CausalRows(truth, predictions)
    draw = rows.weigh(np.ones((len(truth), 1)))
    share, height = np.r_[0.0, draw.share[:, 0]], np.r_[0.0, draw.qini_curve[:, 0]]
    height = np.nan_to_num(height)
    line = Curve("random", np.array([0.0, 1.0]), np.array([0.0, height[-1]]))
    predicted = np.asarray(predictions.values, dtype=np.float64)[rows.ranking.order]
    tenths = np.array_split(np.arange(len(predicted)), 10)
    deciles = [_decile(i + 1, rows, predicted, at) for i, at in enumerate(tenths) if len(at)]
    return CausalCurves(_thinned("qini", share, height), line, tuple(deciles))


def _decile(number: int, rows: CausalRows, predicted: FloatArray, at: IntArray) -> UpliftDecile:
    outcome, treated = rows.outcome[at, 0], rows.treated[at, 0] > 0
    groups = (outcome[treated], outcome[~treated])
    observed = half = float("nan")
    if all(len(group) for group in groups):
        observed = float(groups[0].mean() - groups[1].mean())
    if all(len(group) > 1 for group in groups):
        half = _Z95 * float(np.sqrt(sum(group.var(ddof=1) / len(group) for group in groups)))
    mean = float(predicted[at].mean())
    return UpliftDecile(number, len(at), mean, observed, observed - half, observed + half)


def _ranked_lines(rows: ClassificationRows, i: int, name: str) -> tuple[Curve, Curve]:
    ranking, own = rows.rankings[i]
    positive = np.cumsum(ranking.sums(own)[:, 0])
    ahead = np.cumsum(ranking.sums(np.ones_like(own))[:, 0])
    recall = positive / positive[-1]
    false_share = (ahead - positive) / (ahead[-1] - positive[-1])
    precision = positive / ahead
    return (
        _thinned(name, np.r_[0.0, false_share], np.r_[0.0, recall]),
        _thinned(name, np.r_[0.0, recall], np.r_[precision[0], precision]),
    )


def _calibration(rows: ClassificationRows, i: int, name: str) -> Curve:
    ranking, own = rows.rankings[i]
    scores = rows.scores[ranking.order, rows.judged[i]]
    bins = [at for at in np.array_split(np.arange(len(scores))[::-1], _BINS) if len(at)]
    x = np.array([scores[at].mean() for at in bins])
    return Curve(name, x, np.array([own[at, 0].mean() for at in bins]))


def _thinned(name: str, x: FloatArray, y: FloatArray) -> Curve:
    """At most 200 points, spread evenly along the line, both ends kept."""
    if len(x) <= _POINTS:
        return Curve(name, x, y)
    steps = [np.abs(np.diff(v)) / max(float(np.ptp(v)), np.finfo(np.float64).tiny) for v in (x, y)]
    along = np.r_[0.0, np.cumsum(steps[0] + steps[1])]
    wanted = np.searchsorted(along, np.linspace(0.0, along[-1], _POINTS))
    kept = np.unique(np.r_[0, np.minimum(wanted, len(x) - 1)[1:-1], len(x) - 1])
    return Curve(name, x[kept], y[kept])
