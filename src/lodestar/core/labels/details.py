"""What a metric alone does not say: whether probabilities hold, which way errors lean, who gains."""

import math
from statistics import NormalDist

import numpy as np

from lodestar.core.labels.results import Calibration, Detail, ReliabilityBin, Residuals, Uplift
from lodestar.core.results import (
    CausalCurves,
    Evaluation,
    FloatArray,
    MetricEstimate,
    Predictions,
    Truth,
)

__all__ = ["calibration", "detail_of", "residuals"]

BINS = 10
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
Z95 = NormalDist().inv_cdf(0.975)
# The mean distance of a normal variable from its middle, in standard deviations.
MEAN_DISTANCE = math.sqrt(2 / math.pi)
BINARY = 2


def detail_of(evaluation: Evaluation, truth: Truth, predictions: Predictions) -> Detail | None:
    """The task's own detail; None for a classification without probabilities."""
    if isinstance(evaluation.curves, CausalCurves):
        return Uplift(evaluation.curves.deciles)
    if evaluation.task == "regression":
        return residuals(truth, predictions)
    if predictions.probabilities is None:
        return None
    return calibration(truth, predictions)


def calibration(truth: Truth, predictions: Predictions) -> Calibration:
    """Reliability in ten bins of equal width, of the positive class; of the class said if more than two.

    That of the class said is what Guo et al. (2017) call confidence.
    """
    shares = np.asarray(predictions.probabilities, dtype=np.float64)
    target = np.asarray(truth.target)
    if shares.shape[1] == BINARY:
        said, happened = shares[:, 1], (target == 1).astype(np.float64)
    else:
        values = np.asarray(predictions.values).astype(np.int64)
        said = shares[np.arange(len(values)), values]
        happened = (target == values).astype(np.float64)
    places = np.clip((said * BINS).astype(np.int64), 0, BINS - 1)
    bins, error, chance = [], 0.0, 0.0
    for place in range(BINS):
        inside = places == place
        if not inside.any():
            continue
        one = _bin(place, said[inside], happened[inside])
        share = one.rows / len(said)
        variance = float((said[inside] * (1 - said[inside])).mean()) / one.rows
        error += share * abs(one.observed - one.predicted)
        chance += share * MEAN_DISTANCE * math.sqrt(variance)
        bins.append(one)
    return Calibration(error, chance, tuple(bins))


def residuals(truth: Truth, predictions: Predictions) -> Residuals:
    """Prediction minus truth: mean, its 95 % normal interval, quantiles."""
    errors = np.asarray(predictions.values, np.float64) - np.asarray(truth.target, np.float64)
    mean = float(errors.mean())
    half = Z95 * float(errors.std(ddof=1)) / math.sqrt(len(errors)) if len(errors) > 1 else 0.0
    found = np.quantile(errors, QUANTILES)
    pairs = tuple(zip(QUANTILES, map(float, found), strict=True))
    return Residuals(MetricEstimate(mean, mean - half, mean + half), pairs)


def _bin(place: int, said: FloatArray, happened: FloatArray) -> ReliabilityBin:
    rows, observed = len(said), float(happened.mean())
    low, high = _wilson(observed, rows)
    return ReliabilityBin(
        place / BINS, (place + 1) / BINS, rows, float(said.mean()), observed, low, high
    )


def _wilson(share: float, rows: int) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share."""
    squared = Z95**2 / rows
    middle = (share + squared / 2) / (1 + squared)
    half = Z95 / (1 + squared) * math.sqrt(share * (1 - share) / rows + squared / (4 * rows))
    return max(0.0, middle - half), min(1.0, middle + half)
