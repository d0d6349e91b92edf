"""How far a model's predictions lie from those of another: the population stability index."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["StabilityIndex"]

BINS = 10
# A quantile that so large a share of the former values equals is a bin of its own: labels, constants.
OWN_BIN = 0.02
# Added to each count, so that a bin that one side has nothing in weighs much, but not without limit.
SMOOTHING = 0.5


class StabilityIndex:
    """Compares values with those of before, over the bins that the former values' quantiles make.

    The index is the sum of `(now - was) * ln(now / was)` over the bins' shares (Siddiqi, Credit Risk
    Scorecards, 2006): 0 for the same distribution, below 0.1 hardly a change, above 0.25 a large one. A
    sample of n alone brings about 9 / n. What is not finite is left out.

    Raises:
        ValueError: there is no former value.
    """

    def __init__(self, former: Sequence[float]) -> None:
        was = _finite(former)
        if not was.size:
            raise ValueError("there is no former value to compare with")
        edges = np.unique(np.quantile(was, np.linspace(0, 1, BINS + 1)[1:-1]))
        equal = (was[:, None] == edges).mean(axis=0)
        self._edges = edges
        self._own = equal >= OWN_BIN
        self._was = self._shares(was)

    def of(self, values: Sequence[float]) -> float:
        """The index of these values; 0.0 where there are none."""
        now = _finite(values)
        if not now.size:
            return 0.0
        shares = self._shares(now)
        return float(((shares - self._was) * np.log(shares / self._was)).sum())

    def _shares(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The smoothed share of each bin; a value on an edge without a bin is below it."""
        below = np.searchsorted(self._edges, values, side="left")
        not_above = np.searchsorted(self._edges, values, side="right")
        on_edge = (below < not_above) & self._own[np.minimum(below, len(self._own) - 1)]
        count = len(self._edges) + 1
        bins = np.where(on_edge, count + below, below)
        kept = [*range(count), *(count + np.flatnonzero(self._own))]
        counts = np.bincount(bins, minlength=count + len(self._own))[kept] + SMOOTHING
        return np.asarray(counts / counts.sum())


def _finite(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return array[np.isfinite(array)]
