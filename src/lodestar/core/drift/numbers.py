"""Sketches of numbers: how many training rows lie at or below some hundred places.

A window of later rows is counted at the same places. Counts add up, so rows give the same window however
they are split into chunks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lodestar.core.drift.places import PlaceCounter
from lodestar.core.stability import BlurredBins

__all__ = ["NumberCounts", "NumberSketch", "numbers_of"]

FloatArray = NDArray[np.float64]
Counts = NDArray[np.int64]
# A column of at most so many different numbers is told value by value, if hardly any of them came but
# once: else there are likely more of them than these rows show.
MOST_ATOMS = 32
MOST_SINGLES = 0.005
QUANTILES = 64


@dataclass(frozen=True, eq=False)
class NumberSketch:
    """Of n rows, `nulls` of them without a value (null or NaN).

    `marks` are quantiles of the values, with the next smaller number where one value takes up more than
    its share; or, where they are few (`discrete`), each of the values. `below` counts the values at or
    below each of `places`. `low` and `high` are the smallest and the largest; None where there are no
    values.
    """

    rows: int
    nulls: int
    low: float | None
    high: float | None
    marks: FloatArray
    discrete: bool
    bins: BlurredBins | None
    below: Counts

    @classmethod
    def of(cls, column: pa.Array | pa.ChunkedArray) -> "NumberSketch":
        """Sketch all of a column."""
        ordered = np.sort(numbers_of(column))
        ordered = ordered[: np.searchsorted(ordered, np.inf, side="right")]
        rows, present = len(column), len(ordered)
        if not present:
            empty = np.zeros(0)
            none = np.zeros(0, np.int64)
            return cls(rows, rows, None, None, empty, discrete=False, bins=None, below=none)
        distinct, times = np.unique(ordered, return_counts=True)
        singles = int(np.count_nonzero(times == 1))
        discrete = len(distinct) <= MOST_ATOMS and singles <= max(1.0, MOST_SINGLES * present)
        marks = distinct if discrete else _quantiles(ordered)
        bins = None if discrete else BlurredBins.of(ordered)
        places = _places(marks, bins)
        below = np.searchsorted(ordered, places, side="right")
        low, high = float(ordered[0]), float(ordered[-1])
        return cls(rows, rows - present, low, high, marks, discrete, bins, below)

    @cached_property
    def places(self) -> FloatArray:
        """Where values are counted, in ascending order."""
        return _places(self.marks, self.bins)

    @cached_property
    def counted_at(self) -> PlaceCounter:
        """What counts there."""
        return PlaceCounter(self.places)

    def counter(self) -> "NumberCounts":
        """An empty window."""
        return NumberCounts(self)

    def own(self) -> "NumberCounts":
        """The training rows themselves, as a window."""
        counts = NumberCounts(self)
        counts.rows, counts.nulls = self.rows, self.nulls
        counts.below = self.below.copy()
        if self.low is not None and self.high is not None:
            counts.low, counts.high = self.low, self.high
        return counts

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file; numbers come back bit for bit."""
        bins = self.bins
        return {
            "kind": "number",
            "rows": self.rows,
            "nulls": self.nulls,
            "low": self.low,
            "high": self.high,
            "discrete": self.discrete,
            "marks": self.marks.tolist(),
            "bins": bins and {"edges": bins.edges.tolist(), "width": bins.width},
            "below": self.below.tolist(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "NumberSketch":
        """Read what `to_json` wrote."""
        bins = value["bins"]
        return cls(
            rows=value["rows"],
            nulls=value["nulls"],
            low=value["low"],
            high=value["high"],
            marks=np.array(value["marks"], dtype=np.float64),
            discrete=value["discrete"],
            bins=bins and BlurredBins(np.array(bins["edges"], np.float64), bins["width"]),
            below=np.array(value["below"], dtype=np.int64),
        )


class NumberCounts:
    """A window of one column: rows, nulls, range, and values at or below each place of the sketch.

    `above` and `under` count the values outside of the training's range.
    """

    def __init__(self, sketch: NumberSketch) -> None:
        self.sketch = sketch
        self.rows = self.nulls = self.under = self.above = 0
        self.low, self.high = np.inf, -np.inf
        self.below: Counts = np.zeros(len(sketch.places), np.int64)
        self._counter = sketch.counted_at

    @property
    def present(self) -> int:
        """Rows with a value."""
        return self.rows - self.nulls

    def add(self, column: pa.Array | pa.ChunkedArray) -> None:
        """Count more rows."""
        self._count(len(column), numbers_of(column))

    def add_plain(self, values: Sequence[float | None]) -> None:
        """Count more rows, given as Python's own numbers."""
        there = [value for value in values if value is not None]
        self._count(len(values), np.array(there, dtype=np.float64))

    def _count(self, rows: int, numbers: FloatArray) -> None:
        self.rows += rows
        least = float(numbers.min()) if len(numbers) else np.nan
        if np.isnan(least):
            numbers = numbers[~np.isnan(numbers)]
            least = float(numbers.min()) if len(numbers) else np.nan
        self.nulls += rows - len(numbers)
        if not len(numbers):
            return
        most = float(numbers.max())
        self.low, self.high = min(self.low, least), max(self.high, most)
        self.below += self._counter.below(numbers)
        low, high = self.sketch.low, self.sketch.high
        if low is not None and least < low:
            self.under += int(np.count_nonzero(numbers < low))
        if high is not None and most > high:
            self.above += int(np.count_nonzero(numbers > high))

    def merge(self, other: Self) -> None:
        """Add another window of the same sketch."""
        self.rows += other.rows
        self.nulls += other.nulls
        self.under += other.under
        self.above += other.above
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.below += other.below

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file; numbers come back bit for bit."""
        there = self.low <= self.high
        return {
            "rows": self.rows,
            "nulls": self.nulls,
            "under": self.under,
            "above": self.above,
            "range": [self.low, self.high] if there else None,
            "below": self.below.tolist(),
        }

    @classmethod
    def from_json(cls, sketch: NumberSketch, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        counts = cls(sketch)
        counts.rows, counts.nulls = value["rows"], value["nulls"]
        counts.under, counts.above = value["under"], value["above"]
        if value["range"] is not None:
            counts.low, counts.high = value["range"]
        counts.below = np.array(value["below"], dtype=np.int64)
        return counts

    def binned(self) -> FloatArray:
        """Values per bin: the blurred ones, or one per known value and one for all others."""
        sketch, present = self.sketch, self.present
        if sketch.bins is not None:
            at = np.searchsorted(sketch.places, sketch.bins.cuts)
            return sketch.bins.counts(self.below[at], present)
        if not len(sketch.marks):
            return np.array([float(present)])
        each = np.diff(np.concatenate([[0], self.below]))[1::2]
        return np.append(each, present - each.sum()).astype(np.float64)

    def shares_below(self) -> FloatArray:
        """The share of values at or below each place."""
        return np.asarray(self.below / max(self.present, 1))


def numbers_of(column: pa.Array | pa.ChunkedArray) -> FloatArray:
    """The values that are there, as floats: timestamps in µs since 1970, dates in days; NaN stays."""
    if column.null_count:
        column = column.drop_null()
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us", tz=kind.tz), safe=False).cast(pa.int64())
    elif pa.types.is_date(kind):
        column = column.cast(pa.date32()).cast(pa.int32())
    elif pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    if not pa.types.is_float64(column.type):
        # Whole numbers beyond 2^53 are rounded, as the model sees them.
        column = column.cast(pa.float64(), safe=False)
    if isinstance(column, pa.ChunkedArray):
        return np.asarray(column.to_numpy())
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _quantiles(ordered: FloatArray) -> FloatArray:
    """Evenly spaced values of the sorted ones; one that takes up a whole step gets its gap too."""
    at = np.linspace(0, len(ordered) - 1, QUANTILES + 1).round().astype(np.int64)
    marks, times = np.unique(ordered[at], return_counts=True)
    gaps = _gaps(marks[times > 1])
    return np.unique(np.concatenate([marks, gaps[np.isfinite(gaps)]]))


def _gaps(values: FloatArray) -> FloatArray:
    """The next smaller numbers, so that the rows of a value can be told from those below it."""
    with np.errstate(over="ignore"):
        return np.asarray(np.nextafter(values, -np.inf))


def _places(marks: FloatArray, bins: BlurredBins | None) -> FloatArray:
    if bins is None:
        return np.column_stack([_gaps(marks), marks]).ravel()
    return np.unique(np.concatenate([marks, bins.cuts.ravel()]))
