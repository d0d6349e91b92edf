"""How far a model's predictions lie from those of another: the population stability index."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["StabilityIndex"]

BINS = 10
# Values are blurred by this part of the former ones' spread: where many of them lie close together, as
# probabilities do near 0 and 1, moving a little is no change, wherever a bin ends.
BLUR = 0.02
BLURRED = np.linspace(-1, 1, 9)
# Added to each bin's count, so that an empty one weighs much, but not without limit.
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
        low, middle, high = np.quantile(was, [0.05, 0.5, 0.95])
        # A constant is told from any other, but not from itself in another rounding.
        self._width = BLUR * (high - low) or 1e-9 * max(abs(middle), 1.0)
        self._edges = np.quantile(self._blurred(was), np.linspace(0, 1, BINS + 1)[1:-1])
        self._was = self._shares(was)

    def of(self, values: Sequence[float]) -> float:
        """The index of these values; 0.0 where there are none."""
        now = _finite(values)
        if not now.size:
            return 0.0
        shares = self._shares(now)
        return float(((shares - self._was) * np.log(shares / self._was)).sum())

    def _blurred(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        blurred: NDArray[np.float64] = (values[:, None] + self._width * BLURRED).ravel()
        return blurred

    def _shares(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        places = np.searchsorted(self._edges, self._blurred(values))
        counts = np.bincount(places, minlength=BINS) / len(BLURRED) + SMOOTHING
        return np.asarray(counts / counts.sum())


def _finite(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return array[np.isfinite(array)]
