"""One environment's feature store, put together from its tables, the join and its online store."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.compute as pc

from lodestar.core.filling import moment_before
from lodestar.errors import UsageError
from lodestar.interface.features import (
    FeatureTables,
    OnlineRows,
    OnlineStore,
    SaysJoinsCost,
    SelectedFeatures,
    TimeRange,
)
from lodestar.interface.progress import Progress
from lodestar.settings.features import FeatureView

__all__ = ["ComposedFeatureStore", "HistoricalJoin"]


@runtime_checkable
class HistoricalJoin(Protocol):
    """`FeatureStoreAdapter.historical`, over some feature tables."""

    def historical(
        self, spine: pa.RecordBatchReader, selection: Sequence[SelectedFeatures], *, timestamp: str
    ) -> AbstractContextManager[pa.RecordBatchReader]:
        """Join each row's features as they were known at its timestamp."""
        ...


@dataclass(frozen=True)
class ComposedFeatureStore:
    """History from feature tables, the present from an online store; a `FeatureStoreAdapter`."""

    tables: FeatureTables
    join: HistoricalJoin
    store: OnlineStore | None

    def historical(
        self, spine: pa.RecordBatchReader, selection: Sequence[SelectedFeatures], *, timestamp: str
    ) -> AbstractContextManager[pa.RecordBatchReader]:
        """Join each row's features as they were known at its timestamp."""
        return self.join.historical(spine, selection, timestamp=timestamp)

    def bytes_read(self, selection: Sequence[SelectedFeatures], spine: pa.Schema) -> int | None:
        """The most bytes that a join reads; None where nothing is paid for them."""
        join = self.join
        return join.bytes_read(selection, spine) if isinstance(join, SaysJoinsCost) else None

    def online(
        self,
        keys: pa.RecordBatch,
        selection: Sequence[SelectedFeatures],
        *,
        now: datetime | None = None,
    ) -> OnlineRows:
        """What the online store holds, without what is older than its view's ttl at `now`."""
        found = self._online().read(keys, selection)
        return _without_expired(found, selection, now or datetime.now(UTC))

    def materialize(
        self, view: FeatureView, *, until: datetime, since: datetime | None = None, tell: Progress
    ) -> int:
        """Write each entity's latest version that had arrived by `until`, then the watermark.

        Raises:
            UsageError: the store is further on already: newer versions are never replaced by older; or
                versions between what it has and `since` would be left out.
        """
        store = self._online()
        reached = store.watermark(view)
        if reached is not None and reached > until:
            raise UsageError(
                f"the online store has {view.namespace} until {reached:%Y-%m-%d %H:%M:%S} UTC "
                f"already, and does not go back to {until:%Y-%m-%d %H:%M:%S}",
                hint="leave --until out to go on from there",
            )
        oldest = _oldest(view, until)
        if since is not None:
            _refuse_gap(view, reached, since, oldest)
            oldest = since if oldest is None else max(since, oldest)
        with self.tables.latest(view, TimeRange(oldest, until), known_by=until) as rows:
            written = store.write(view, _told(rows, tell))
        store.set_watermark(view, until)
        return written

    def _online(self) -> OnlineStore:
        if self.store is None:
            raise UsageError(
                "this environment declares no online store",
                hint="see feature_store.redis and feature_store.dynamodb in the config",
            )
        return self.store


def _refuse_gap(
    view: FeatureView, reached: datetime | None, since: datetime, oldest: datetime | None
) -> None:
    """Versions from `reached` on, or from the oldest that holds, must all be looked at."""
    begins = max((moment for moment in (reached, oldest) if moment is not None), default=None)
    if begins is None or since > begins:
        has = "nothing yet" if reached is None else f"it until {reached:%Y-%m-%d %H:%M:%S} UTC"
        raise UsageError(
            f"the online store has {has} of {view.namespace}, so versions before "
            f"{since:%Y-%m-%d %H:%M:%S} would be missing",
            hint="leave --since out: everything that holds is looked at then",
        )


def _oldest(view: FeatureView, until: datetime) -> datetime | None:
    """The first event time that still holds; None where the ttl is longer than time itself."""
    try:
        return None if view.ttl is None else until - view.ttl
    except OverflowError:
        return None


def _told(rows: pa.RecordBatchReader, tell: Progress) -> Iterator[pa.RecordBatch]:
    done = 0
    for batch in rows:
        yield batch
        done += batch.num_rows
        tell.rows(done, None)


def _without_expired(
    found: OnlineRows, selection: Sequence[SelectedFeatures], now: datetime
) -> OnlineRows:
    columns = dict(zip(found.features.schema.names, found.features.columns, strict=True))
    times = dict(found.event_times)
    for selected in selection:
        view = selected.view
        if view.ttl is None:
            continue
        oldest = moment_before(now, view.ttl)
        fresh = pc.fill_null(pc.greater_equal(times[view.namespace], oldest), False)  # noqa: FBT003 -- null is not fresh
        times[view.namespace] = _kept(times[view.namespace], fresh)
        columns |= {name: _kept(columns[name], fresh) for name in selected.features}
    rows = pa.RecordBatch.from_arrays(list(columns.values()), schema=found.features.schema)
    return OnlineRows(rows, times)


def _kept(column: pa.Array, fresh: pa.Array) -> pa.Array:
    return pc.if_else(fresh, column, pa.scalar(None, column.type))
