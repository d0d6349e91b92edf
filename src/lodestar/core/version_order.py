"""The order in which versions of an entity replace each other: event time, created, then values."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lodestar.settings.features import FeatureView

__all__ = ["Codes", "Flags", "HeldVersions", "Ints", "meets_next", "micros", "whole_versions"]

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

LEAST, ALL_BUT_SIGN = np.iinfo(np.int64).min, np.int64(2**63 - 1)


def micros(column: pa.Array | pa.ChunkedArray) -> Ints:
    """Timestamps (µs) as whole numbers."""
    return np.asarray(column.cast(pa.int64()), dtype=np.int64)


def meets_next(values: npt.NDArray[np.integer]) -> Flags:
    """Whether each value equals the next; one shorter than the values."""
    return np.asarray(values[1:] == values[:-1])


def whole_versions(
    view: FeatureView, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Leave out what belongs to no entity, no time, or had not verifiably arrived: nulls in those."""
    source = view.source
    needed = [*view.keys, *source.times]
    for batch in batches:
        holed = [column for column in map(batch.column, needed) if column.null_count]
        whole = batch
        if holed:
            valid = np.logical_and.reduce([np.asarray(column.is_valid()) for column in holed])
            whole = batch.filter(pa.array(valid))
        yield whole


@dataclass(frozen=True)
class HeldVersions:
    """Versions in memory, in the order in which they came; times in µs.

    `values` are the features at hand in the order of their declaration, by which versions that are
    equal in entity and both times are compared: null is least, NaN is greatest.
    """

    event: Ints
    created: Ints | None
    values: tuple[str, ...]
    _table: pa.Table

    @classmethod
    def of(cls, view: FeatureView, table: pa.Table) -> "HeldVersions":
        """Take in versions without nulls in keys and times."""
        created = view.source.created_col
        values = tuple(name for name in view.features if name in table.column_names)
        return cls(
            event=micros(table.column(view.source.timestamp_col)),
            created=micros(table.column(created)) if created else None,
            values=values,
            _table=table.select(values),
        )

    @property
    def visible(self) -> Ints:
        """From when on each version can count: it has happened, and it has arrived."""
        return self.event if self.created is None else np.maximum(self.event, self.created)

    def sorted_by(self, entities: Codes) -> tuple[Ints, bool]:
        """The rows by (entity, event time, created, values); whether values had to decide anywhere."""
        order = np.argsort(self.event)
        # The entity's number and the place among the event times are both below 2³¹: one number holds
        # them, however far apart the times are.
        packed = entities[order].astype(np.int64) << 32 | np.arange(len(order))
        packed.sort()
        order = order[packed & 0xFFFFFFFF]
        same = meets_next(entities[order]) & meets_next(self.event[order])
        created = self.created
        if created is not None:
            same = _settle(order, same, lambda rows: [created[rows]])
        alike = _settle(order, same, self._ranks)
        return order, bool((same & ~alike).any())

    def taken(self, name: str, rows: Ints) -> pa.Array:
        """One feature's values in these rows."""
        return self._table.column(name).combine_chunks().take(pa.array(rows))

    def _ranks(self, rows: Ints) -> list[Ints]:
        return [_ranked(self.taken(name, rows)) for name in self.values]


def _settle(order: Ints, same: Flags, keys_of: Callable[[Ints], Sequence[Ints]]) -> Flags:
    """Sort the runs of neighbours that are `same` by further keys, in place; which still are."""
    pairs = np.flatnonzero(same)
    if not pairs.size:
        return same
    inside = np.flatnonzero(np.append(same, False) | np.append(False, same))
    run = np.searchsorted(np.flatnonzero(~same), inside)
    rows = order[inside]
    keys = keys_of(rows)
    within = np.lexsort((*reversed(keys), run))
    order[inside] = rows[within]
    first = within[np.searchsorted(inside, pairs)]
    second = within[np.searchsorted(inside, pairs) + 1]
    still = same.copy()
    still[pairs] = np.logical_and.reduce([key[first] == key[second] for key in keys])
    return still


def _ranked(values: pa.Array) -> Ints:
    """Whole numbers in the order of the values, equal where they are."""
    if not pa.types.is_floating(values.type):
        ranks = np.asarray(pc.rank(values, "ascending", tiebreaker="dense")).astype(np.int64)
        return np.where(np.asarray(values.is_valid()), ranks, LEAST)
    # The bits of floats are in the floats' order, once those of negative ones are turned round. So -0.0
    # comes before 0.0, and no two that differ count as equal.
    numbers = np.asarray(values.fill_null(0.0))
    bits = np.where(np.isnan(numbers), np.nan, numbers).view(np.int64)
    ranks = np.where(bits < 0, bits ^ ALL_BUT_SIGN, bits)
    return np.where(np.asarray(values.is_valid()), ranks, LEAST)
