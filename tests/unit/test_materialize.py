"""How far back a materialisation looks, and what it refuses."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lodestar.adapters.files.features import FileFeatureTables
from lodestar.adapters.joins.point_in_time import PointInTimeJoin
from lodestar.core.feature_store import ComposedFeatureStore
from lodestar.errors import UsageError
from lodestar.interface.progress import Silent
from lodestar.settings.features import FeatureView
from lodestar.testing.online import MemoryOnlineStore, every_feature_of

NOON = datetime(2025, 3, 30, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
STAMP = pa.timestamp("us", "UTC")


def view_of(ttl: str | None) -> FeatureView:
    return FeatureView.model_validate(
        {
            "namespace": "visits",
            "entity_keys": {"user_id": "string"},
            "source": {"table": "visits", "created_col": "created"},
            "ttl": ttl,
            "features": {"count": "int"},
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> ComposedFeatureStore:
    """Ann came at ten and eleven, Bob three days ago, Eve at eleven, which was known after noon."""
    rows = [
        ("ann", NOON - 2 * HOUR, NOON - 2 * HOUR, 1),
        ("ann", NOON - HOUR, NOON - HOUR, 2),
        ("bob", NOON - 3 * DAY, NOON - 3 * DAY, 3),
        ("eve", NOON - HOUR, NOON + HOUR / 2, 4),
    ]
    users, event, created, count = zip(*rows, strict=True)
    table = {
        "user_id": pa.array(users),
        "event_timestamp": pa.array(event, STAMP),
        "created": pa.array(created, STAMP),
        "count": pa.array(count, pa.int64()),
    }
    pq.write_table(pa.table(table), tmp_path / "visits.parquet")
    tables = FileFeatureTables(tmp_path)
    return ComposedFeatureStore(tables, PointInTimeJoin(tables), MemoryOnlineStore())


def counts(store: ComposedFeatureStore, view: FeatureView) -> list[int | None]:
    keys = pa.record_batch({"user_id": ["ann", "bob", "eve"]})
    found = store.online(keys, every_feature_of(view), now=NOON)
    return list(found.features.column("count").to_pylist())


def test_without_since_all_that_hold_are_looked_at(store: ComposedFeatureStore) -> None:
    view = view_of(None)
    assert store.materialize(view, until=NOON, tell=Silent()) == 2
    assert counts(store, view) == [2, 3, None]


def test_since_reads_less_where_the_store_has_the_rest(store: ComposedFeatureStore) -> None:
    view = view_of(None)
    store.materialize(view, until=NOON, tell=Silent())
    written = store.materialize(view, until=NOON + HOUR, since=NOON - 2 * HOUR, tell=Silent())
    assert written == 2  # Ann and Eve, whose visit was not known before
    assert counts(store, view) == [2, 3, 4]


@pytest.mark.parametrize(
    ("ttl", "done", "since"),
    [
        (None, None, NOON - 9 * DAY),
        (None, NOON, NOON + HOUR),
        ("1d", None, NOON - HOUR),
    ],
)
def test_a_gap_is_refused_and_nothing_is_written(
    store: ComposedFeatureStore, ttl: str | None, done: datetime | None, since: datetime
) -> None:
    view = view_of(ttl)
    if done is not None:
        store.materialize(view, until=done, tell=Silent())
    before = counts(store, view)
    with pytest.raises(UsageError, match="would be missing"):
        store.materialize(view, until=NOON + 2 * HOUR, since=since, tell=Silent())
    assert counts(store, view) == before


def test_what_no_longer_holds_is_no_gap(store: ComposedFeatureStore) -> None:
    view = view_of("1d")
    assert store.materialize(view, until=NOON, since=NOON - DAY, tell=Silent()) == 1
    assert counts(store, view) == [2, None, None]


def test_where_no_version_holds_any_more_none_is_written_and_the_store_is_up_to_date(
    store: ComposedFeatureStore,
) -> None:
    view = view_of("1h")
    later = NOON + 30 * DAY
    assert store.materialize(view, until=later, tell=Silent()) == 0
    assert store.store is not None
    assert store.store.watermark(view) == later
