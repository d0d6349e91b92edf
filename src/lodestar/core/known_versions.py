"""One namespace's versions, sorted so that what was known at a time is one short search away.

A version counts from when it is visible: the later of its event time and its arrival. Of the versions
of an entity that are visible at a time, the last by (event time, created, values) is the answer. One
that a later one meets or precedes in visibility can never be the answer and is dropped; over what
remains, visibility rises with (event time, created), so a search for the time finds the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestar.core.entity_codes import EntityCodes
from lodestar.core.version_order import (
    Codes,
    Flags,
    HeldVersions,
    Ints,
    meets_next,
    whole_versions,
)
from lodestar.settings.features import FeatureView

__all__ = ["KnownVersions", "latest_versions"]

FOREVER = 2**64 - 1
HELD_ROWS = 1 << 19  # versions that are gathered before only the latest of them are kept


@dataclass(frozen=True)
class KnownVersions:
    """What was known of each entity at any time.

    `ambiguous`: some versions are equal in entity and both times and differ in their values, and not
    all features are here to say which comes last.
    """

    entities: EntityCodes
    features: tuple[pa.Array, ...]
    ambiguous: bool
    _starts: Ints
    _visible: Ints
    _event: Ints
    _ttl: np.uint64

    @classmethod
    def of(cls, view: FeatureView, features: Sequence[str], table: pa.Table) -> "KnownVersions":
        """Take in versions with entity, times and at least these features, in any order.

        They are as `FeatureTables.versions` gives them, less what `whole_versions` leaves out.
        """
        entities, codes = EntityCodes.number([table.column(key) for key in view.keys])
        held = HeldVersions.of(view, table)
        order, undecided = held.sorted_by(codes)
        codes, visible = codes[order], held.visible[order]
        keep = _can_be_the_answer(codes, visible)
        order, codes, visible = order[keep], codes[keep], visible[keep]
        return cls(
            entities=entities,
            ambiguous=undecided and len(held.values) < len(view.features),
            _starts=_starts(codes, entities.count),
            _visible=visible,
            _event=visible if held.created is None else held.event[order],
            _ttl=np.uint64(FOREVER if view.ttl is None else min(_micros_in(view.ttl), FOREVER)),
            features=tuple(held.taken(name, order) for name in features),
        )

    def at(self, entities: pa.Array, times: Ints) -> list[pa.Array]:
        """The features of these entities (their numbers, or null) as known at these times (µs)."""
        if not len(self._visible):
            return [pa.nulls(len(times), feature.type) for feature in self.features]
        rows = self._rows(entities, times)
        return [feature.take(rows) for feature in self.features]

    def _rows(self, entities: pa.Array, times: Ints) -> pa.Array:
        # An unknown entity gets the number behind the last, whose group is empty.
        codes = np.asarray(entities.fill_null(self.entities.count))
        first, end = self._starts[codes], self._starts[codes + 1]
        found = first.copy()
        last = len(self._visible) - 1
        step = 1 << int((end - first).max(initial=0)).bit_length()
        while step := step >> 1:  # a binary search in all groups at once
            ahead = found + step
            seen = self._visible[np.minimum(ahead - 1, last)] <= times
            np.copyto(found, ahead, where=seen & (ahead <= end))
        rows = np.maximum(found - 1, 0)
        # What has happened has an age from 0 on; unsigned, it is exact however far apart the times.
        age = (times - self._event[rows]).view(np.uint64)
        return pa.array(rows, mask=(found == first) | (age > self._ttl))


def latest_versions(
    view: FeatureView, versions: pa.RecordBatchReader, *, known_by: datetime
) -> pa.Table:
    """Per entity the last of the versions that had arrived by `known_by`.

    Memory grows with the entities, not with the versions.
    """
    kept = versions.schema.empty_table()
    coming: list[pa.RecordBatch] = []
    rows = 0
    for batch in whole_versions(view, versions):
        arrived = _arrived(view, batch, known_by)
        coming.append(arrived)
        rows += arrived.num_rows
        if rows > max(HELD_ROWS, kept.num_rows):
            kept, coming, rows = _latest(view, kept, coming), [], 0
    return _latest(view, kept, coming)


def _arrived(view: FeatureView, batch: pa.RecordBatch, known_by: datetime) -> pa.RecordBatch:
    created = view.source.created_col
    if created is None:
        return batch
    limit = pa.scalar(known_by, batch.schema.field(created).type)
    return batch.filter(pc.less_equal(batch.column(created), limit))


def _latest(view: FeatureView, kept: pa.Table, coming: Sequence[pa.RecordBatch]) -> pa.Table:
    table = pa.concat_tables([kept, pa.Table.from_batches(coming, kept.schema)])
    _, codes = EntityCodes.number([table.column(key) for key in view.keys])
    order, _ = HeldVersions.of(view, table).sorted_by(codes)
    last = np.append(~meets_next(codes[order]), np.ones(min(len(order), 1), np.bool_))
    return table.take(pa.array(order[last]))


def _can_be_the_answer(codes: Codes, visible: Ints) -> Flags:
    """Whether each version is visible before all later ones of its entity."""
    keep = np.ones(len(codes), np.bool_)
    same = meets_next(codes)
    if not (same & (visible[1:] <= visible[:-1])).any():
        return keep
    soonest = (
        visible.copy()
    )  # of each version and the later ones of its entity, 2, 4, 8, … at a time
    width, longest = 1, int(np.bincount(codes).max())
    while width < longest:
        together = codes[width:] == codes[:-width]
        np.minimum(soonest[:-width], soonest[width:], out=soonest[:-width], where=together)
        width *= 2
    keep[:-1] = ~same | (visible[:-1] < soonest[1:])
    return keep


def _starts(codes: Codes, count: int) -> Ints:
    """Where each entity's group starts; behind them an empty one for those that are unknown."""
    starts = np.zeros(count + 2, np.int64)
    np.cumsum(np.bincount(codes, minlength=count), out=starts[1:-1])
    starts[-1] = starts[-2]
    return starts


def _micros_in(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)
