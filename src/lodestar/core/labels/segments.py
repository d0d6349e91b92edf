"""Cuts rows by the values of a column: those that training knew, or its quartiles."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lodestar.core.drift.categories import CategorySketch
from lodestar.core.drift.numbers import NumberSketch, numbers_of
from lodestar.core.drift.sketches import Sketch
from lodestar.errors import UsageError

__all__ = ["Segmenter", "segmenter_of"]

# So many values of a column are told apart; all others are taken together.
MOST_VALUES = 12
MOST_SEEN = 10_000
QUARTILES = (0.25, 0.5, 0.75)
NOTHING = "no value"
OTHERS = "others"


class Segmenter(Protocol):
    """Gives each row of one column the number of its segment."""

    def codes(self, column: pa.Array) -> pa.Array:
        """A number per row (n,), int32, never null."""
        ...

    def labels(self) -> Sequence[str]:
        """What each number is called, once all rows were numbered; numbers of a name are one segment."""
        ...


def segmenter_of(name: str, sketch: Sketch | None, kind: pa.DataType) -> Segmenter:
    """What cuts the column, by training's sketch of it where there is one.

    Raises:
        UsageError: the column is sensitive, or holds numbers or times that training has no sketch of.
    """
    hidden = isinstance(sketch, CategorySketch) and sketch.salt is not None
    if hidden or not isinstance(sketch, CategorySketch | NumberSketch | None):
        raise UsageError(
            f"--segment {name}: the column is marked sensitive, so its values are told nowhere",
            hint="choose a column that features/*.yaml does not mark",
        )
    if isinstance(sketch, NumberSketch):
        return _Numbers.of(sketch)
    if isinstance(sketch, CategorySketch):
        return _Values(list(sketch.values[:MOST_VALUES]))
    if pa.types.is_floating(kind) or pa.types.is_temporal(kind):
        raise UsageError(
            f"--segment {name}: training left no quantiles of this {kind} column to cut it by",
            hint="choose a feature, or a column of text or whole numbers",
        )
    return _Seen()


@dataclass(frozen=True)
class _Values:
    """Known values; text, or what reads like one."""

    values: list[str]

    def codes(self, column: pa.Array) -> pa.Array:
        found = pc.index_in(column.cast(pa.string()), value_set=pa.array(self.values, pa.string()))
        others = pa.scalar(len(self.values), pa.int32())
        nothing = pa.scalar(len(self.values) + 1, pa.int32())
        return pc.if_else(column.is_null(), nothing, found.fill_null(others))

    def labels(self) -> Sequence[str]:
        return [*self.values, OTHERS, NOTHING]


@dataclass(frozen=True)
class _Numbers:
    """Few known numbers each by itself, else ranges: the last ends where the rows do."""

    ends: NDArray[np.float64]
    exact: bool

    @classmethod
    def of(cls, sketch: NumberSketch) -> "_Numbers":
        if sketch.discrete and len(sketch.marks) <= MOST_VALUES:
            return cls(sketch.marks, exact=True)
        present = max(sketch.rows - sketch.nulls, 1)
        reached = sketch.below / present
        at = [int(np.searchsorted(reached, share)) for share in QUARTILES]
        known = [sketch.places[place] for place in at if place < len(sketch.places)]
        return cls(np.unique(np.array(known, dtype=np.float64)), exact=False)

    def codes(self, column: pa.Array) -> pa.Array:
        values = np.full(len(column), np.nan)
        there = column.is_valid().to_numpy(zero_copy_only=False)
        values[there] = numbers_of(column)
        found = np.searchsorted(self.ends, values, side="left")
        nothing = len(self.ends) + 1
        if self.exact:
            known = self.ends[np.minimum(found, len(self.ends) - 1)] == values
            found = np.where(known, found, len(self.ends))
        return pa.array(np.where(np.isnan(values), nothing, found), pa.int32())

    def labels(self) -> Sequence[str]:
        ends = [f"{end:.6g}" for end in self.ends.tolist()]
        if self.exact:
            return [*ends, OTHERS, NOTHING]
        between = [f"{low} … {high}" for low, high in pairwise(ends)]
        return (
            [f"up to {ends[0]}", *between, f"above {ends[-1]}", NOTHING]
            if ends
            else [OTHERS, NOTHING]
        )


@dataclass
class _Seen:
    """Values that no sketch knows, as they come; only the frequent ones are told apart in the end."""

    _places: dict[str, int] = field(default_factory=dict)
    _counts: dict[int, int] = field(default_factory=dict)

    def codes(self, column: pa.Array) -> pa.Array:
        texts = column.cast(pa.string()).dictionary_encode()
        places = []
        for value in texts.dictionary.to_pylist():
            if value not in self._places and len(self._places) < MOST_SEEN:
                self._places[value] = len(self._places) + 2
            places.append(self._places.get(value, 0))
        found = pa.array([*places, 1], pa.int32()).take(texts.indices.fill_null(len(places)))
        for item in pc.value_counts(found).to_pylist():
            self._counts[item["values"]] = self._counts.get(item["values"], 0) + item["counts"]
        return found

    def labels(self) -> Sequence[str]:
        values = sorted(
            self._places, key=lambda one: (-self._counts.get(self._places[one], 0), one)
        )
        told = set(values[:MOST_VALUES])
        return [OTHERS, NOTHING, *(one if one in told else OTHERS for one in self._places)]
