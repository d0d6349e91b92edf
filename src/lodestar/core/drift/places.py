"""How many values lie at or below each of some places, exactly, without sorting the values.

A value's cell of an even grid tells it from every place in another cell: what comes of subtracting,
multiplying and cutting off never decreases where the value increases. Only values in cells that hold a
place are looked up one by one, and these are few where the places are quantiles.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["PlaceCounter"]

FloatArray = NDArray[np.float64]
Counts = NDArray[np.int64]
CELLS = 16_384
# Fewer values are sorted sooner; fewer places leave hardly any cell without a value to look up.
FEWEST_VALUES = 2_048
FEWEST_PLACES = 40
# Places that lie together in few cells tell that way hardly any value from them.
MOST_LOOKED_UP = 0.4


class PlaceCounter:
    """Counts at these places, which ascend; it learns from the values whether a grid helps."""

    def __init__(self, places: FloatArray) -> None:
        self._places = places
        self._sorts = len(places) < FEWEST_PLACES

    def below(self, values: FloatArray) -> Counts:
        """How many of the values, none of which is NaN, lie at or below each place."""
        if self._sorts or len(values) < FEWEST_VALUES:
            return np.searchsorted(np.sort(values), self._places, side="right")
        grid = self._grid
        if grid is None:
            self._sorts = True
            return self.below(values)
        low, scale, cells_of_places, held = grid
        cells = _cells(values, low, scale)
        unsure = values[held.take(cells)]
        self._sorts = len(unsure) > MOST_LOOKED_UP * len(values)
        each = np.bincount(cells, minlength=CELLS)
        each[held] = 0
        looked_up = np.searchsorted(self._places, unsure, side="left")
        there = np.bincount(looked_up, minlength=len(self._places) + 1)[:-1]
        return np.asarray(np.cumsum(each)[cells_of_places] + np.cumsum(there))

    @cached_property
    def _grid(self) -> "tuple[float, float, NDArray[np.intp], NDArray[np.bool_]] | None":
        """Its begin, cells per unit, the places' cells, and which cells hold one; None: there is none.

        It spans all but the outermost places, so that a far-off value does not widen the cells.
        """
        low, high = float(self._places[2]), float(self._places[-3])
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            scale = float(np.float64(CELLS) / np.float64(high - low))
        if not (np.isfinite(scale) and scale > 0 and np.isfinite(low)):
            return None
        cells = _cells(self._places, low, scale)
        held = np.zeros(CELLS, np.bool_)
        held[cells] = True
        return low, scale, cells, held


def _cells(values: FloatArray, low: float, scale: float) -> NDArray[np.intp]:
    with np.errstate(over="ignore"):
        found = values - low
        found *= scale
    np.maximum(found, 0.0, out=found)
    np.minimum(found, CELLS - 1.0, out=found)
    # Through 32 bits: processors turn floats into those several at a time.
    return found.astype(np.int32).astype(np.intp)
