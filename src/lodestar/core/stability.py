"""How far values lie from those of before: the population stability index, over bins or of values."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["BlurredBins", "StabilityIndex", "stability_index"]

BINS = 10
# Values are blurred by this part of the former ones' spread: where many of them lie close together, as
# probabilities do near 0 and 1, moving a little is no change, wherever a bin ends.
BLUR = 0.02
BLURRED = np.linspace(-1, 1, 9)
# Added to each bin's count, so that an empty one weighs much, but not without limit.
SMOOTHING = 0.5
# Bins are found from at most so many values, evenly taken: more of them would not move an edge.
MOST_VALUES = 20_000

FloatArray = NDArray[np.float64]


def stability_index(was: ArrayLike, now: ArrayLike) -> float:
    """The index of two lists of counts over the same bins.

    It is the sum of `(now - was) * ln(now / was)` over the bins' shares (Siddiqi, Credit Risk
    Scorecards, 2006): 0 for the same distribution, below 0.1 hardly a change, above 0.25 a large one.
    Samples of n and m values alone bring about (bins - 1) * (1 / n + 1 / m).
    """
    before, after = (_shares(np.asarray(counts, dtype=np.float64)) for counts in (was, now))
    return float(((after - before) * np.log(after / before)).sum())


@dataclass(frozen=True, eq=False)
class BlurredBins:
    """Ten bins that the former values' quantiles make, whose ends are no sharp lines.

    A value counts as nine, spread over `width` to each side. So a bin's count follows from how many
    values lie at or below each of `cuts`.
    """

    edges: FloatArray
    width: float

    @classmethod
    def of(cls, ordered: FloatArray) -> "BlurredBins":
        """The bins of finite values in ascending order; there is at least one."""
        if len(ordered) > MOST_VALUES:
            places = np.linspace(0, len(ordered) - 1, MOST_VALUES).round().astype(np.int64)
            ordered = ordered[places]
        low, middle, high = np.quantile(ordered, [0.05, 0.5, 0.95])
        # A constant is told from any other, but not from itself in another rounding.
        width = float(BLUR * (high - low) or 1e-9 * max(abs(middle), 1.0))
        blurred = (ordered[:, None] + width * BLURRED).ravel()
        return cls(np.quantile(blurred, np.linspace(0, 1, BINS + 1)[1:-1]), width)

    @cached_property
    def cuts(self) -> FloatArray:
        """Where values are counted, (9 edges, 9 places)."""
        cuts: FloatArray = self.edges[:, None] - self.width * BLURRED
        return cuts

    def counts(self, below: NDArray[np.int64], total: int) -> FloatArray:
        """Values per bin (10,), from how many of `total` lie at or below each cut (9, 9)."""
        upto = below.mean(axis=1)
        return np.asarray(np.diff(np.concatenate([[0.0], upto, [float(total)]])))


class StabilityIndex:
    """Compares values with those of before, over the bins that the former values' quantiles make.

    What is not finite is left out.

    Raises:
        ValueError: there is no former value.
    """

    def __init__(self, former: Sequence[float]) -> None:
        was = _finite(former)
        if not was.size:
            raise ValueError("there is no former value to compare with")
        self._bins = BlurredBins.of(was)
        self._was = self._counts(was)

    def of(self, values: Sequence[float]) -> float:
        """The index of these values; 0.0 where there are none."""
        now = _finite(values)
        return stability_index(self._was, self._counts(now)) if now.size else 0.0

    def _counts(self, ordered: FloatArray) -> FloatArray:
        below = np.searchsorted(ordered, self._bins.cuts, side="right")
        return self._bins.counts(below, len(ordered))


def _shares(counts: FloatArray) -> FloatArray:
    smoothed = counts + SMOOTHING
    return np.asarray(smoothed / smoothed.sum())


def _finite(values: Sequence[float]) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    return np.sort(array[np.isfinite(array)])
