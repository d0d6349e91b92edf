"""Ports to feature stores: as of any past time for learning, as of now for serving."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from lodestar.interface.progress import Progress
from lodestar.settings.features import FeatureView

__all__ = [
    "FeatureStoreAdapter",
    "FeatureTables",
    "MakesReaders",
    "OnlineReader",
    "OnlineRows",
    "OnlineStore",
    "SaysJoinsCost",
    "SelectedFeatures",
    "TimeRange",
]


@dataclass(frozen=True)
class SelectedFeatures:
    """What a recipe takes from one namespace, in its order."""

    view: FeatureView
    features: tuple[str, ...]


@dataclass(frozen=True)
class TimeRange:
    """Event times from `since` to `until`, both inclusive, in UTC; `since` None is the beginning."""

    since: datetime | None
    until: datetime


@dataclass(frozen=True)
class OnlineRows:
    """What an online store holds now for n entities.

    `features` has the selected columns and n rows, in the order asked. `event_times` has, per
    namespace, n timestamps (µs, UTC) of the values' own event times: null where the store knows
    nothing of the entity, and then its features are null too.
    """

    features: pa.RecordBatch
    event_times: Mapping[str, pa.Array]


class FeatureTables(Protocol):
    """Where versioned feature tables lie: a warehouse or files.

    Both stream canonical columns in bounded memory: the view's keys, its timestamp and created
    columns (if any) as µs in UTC, then the features asked for. Timestamps without a zone are read in
    the source's declared `timezone`, and refused where it declares none. A column that is missing or
    of another type than declared is a SchemaError that names it. A read that fails half way raises.
    """

    def versions(
        self, view: FeatureView, features: Sequence[str], times: TimeRange
    ) -> pa.RecordBatchReader:
        """All versions whose event time lies in the range, in any order."""
        ...

    def latest(
        self, view: FeatureView, times: TimeRange, *, known_by: datetime
    ) -> pa.RecordBatchReader:
        """Per entity the latest version in the range that had arrived by `known_by`; all features.

        Of equal event times the last created counts.
        """
        ...


class OnlineStore(Protocol):
    """Keeps the latest version per entity, answers within its deadline, or raises ExternalError."""

    def read(self, keys: pa.RecordBatch, selection: Sequence[SelectedFeatures]) -> OnlineRows:
        """The values of n entities; `keys` has every key column of every namespace, n rows."""
        ...

    def write(self, view: FeatureView, rows: Iterator[pa.RecordBatch]) -> int:
        """Keep these versions (columns as `FeatureTables.latest` gives them); how many were written.

        An entity's newer version is never replaced by an older one; writing twice changes nothing.
        """
        ...

    def watermark(self, view: FeatureView) -> datetime | None:
        """Until when (event time) the namespace was materialised; None if it never was."""
        ...

    def set_watermark(self, view: FeatureView, until: datetime) -> None:
        """Say so; written after the values, never before."""
        ...


class OnlineReader(Protocol):
    """One selection's features, asked for over and over from an event loop, which is never blocked.

    A row asked for is a tuple of key values (int or str, None where null) in the order of `keys`. A
    row answered is a tuple of plain values (bool, int, float, str, µs since 1970 in UTC; None where
    unknown): per namespace of the selection its event time, then its features, in the selection's
    order. A value that is not of the declared type is unknown, with all of its row's namespace.
    """

    keys: tuple[str, ...]

    async def read(self, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Answer n rows within the store's deadline; safe to be called again before it has answered.

        A caller that is cancelled disturbs no other one.

        Raises:
            ExternalError: the store does not answer, or is not asked because it did not lately.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


@runtime_checkable
class MakesReaders(Protocol):
    """An online store that has a reader of its own; any other's reads go to threads."""

    def reader(self, selection: Sequence[SelectedFeatures]) -> OnlineReader:
        """Make a reader; nothing is connected yet."""
        ...


@runtime_checkable
class SaysJoinsCost(Protocol):
    """A join, or a feature store with one, that costs money by the bytes that are read for it."""

    def bytes_read(self, selection: Sequence[SelectedFeatures], spine: pa.Schema) -> int | None:
        """The most bytes that a join reads, for any rows with these columns; None where none count."""
        ...


class FeatureStoreAdapter(Protocol):
    """One environment's feature store: history for batches, the present for serving."""

    def historical(
        self, spine: pa.RecordBatchReader, selection: Sequence[SelectedFeatures], *, timestamp: str
    ) -> AbstractContextManager[pa.RecordBatchReader]:
        """Join each row's features as they were known at its `timestamp` (µs, UTC, no nulls).

        Rows out are rows in, in order, with the selected features behind the spine's columns. Of the
        versions with `t - ttl <= event time <= t` (both inclusive) that had arrived by t (created
        time <= t, where the view has a created column), the latest event time counts, of equal ones
        the latest created; null where there is none. Memory does not grow with the spine.

        Raises:
            SchemaError: the spine lacks a key column or the timestamp, has it of another type, or has a
                column that a feature would add; or a feature table is not as declared.
            DataError: rows of the spine have no timestamp.
        """
        ...

    def online(
        self,
        keys: pa.RecordBatch,
        selection: Sequence[SelectedFeatures],
        *,
        now: datetime | None = None,
    ) -> OnlineRows:
        """As `OnlineStore.read`; values that at `now` are older than the view's ttl are unknown."""
        ...

    def materialize(
        self, view: FeatureView, *, until: datetime, since: datetime | None = None, tell: Progress
    ) -> int:
        """Bring the online store up to `until`; returns how many entities were written.

        With `since` only versions with event times from then on are looked at; it may not lie behind
        what the store has. The watermark is written last: killed half way, the next call gives the same
        state.
        """
        ...
