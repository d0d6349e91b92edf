"""Feast's own joins with history beside ours: where each of its stores is wrong, on real stores.

These are the traps of docs/point-in-time.md and docs/feast.md. A test that fails because Feast has
become right is good news: mend the pages, then the test.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from tests.databases import Database, fresh_database

from lodestar.adapters.files.features import FileFeatureTables
from lodestar.adapters.joins.point_in_time import PointInTimeJoin
from lodestar.adapters.postgres.features import PostgresFeatureTables
from lodestar.errors import SchemaError
from lodestar.interface.features import FeatureTables, SelectedFeatures
from lodestar.settings.features import FeatureView

TIMES = {"event_timestamp": "datetime64[us, UTC]", "created_timestamp": "datetime64[us, UTC]"}
VERSIONS = pd.DataFrame(
    [
        ("ann", "2025-03-01 09:00Z", "2025-03-01 09:01Z", 120.0),
        ("ann", "2025-03-01 11:00Z", "2025-03-01 11:01Z", 150.0),
        ("ann", "2025-03-01 11:30Z", "2025-03-01 18:00Z", 480.0),  # arrived after noon
        ("ann", "2025-03-01 11:00Z", "2025-03-01 11:40Z", 140.0),  # 11:00, corrected
        ("bob", "2024-11-01 10:00Z", "2024-11-01 10:01Z", 75.0),  # older than the ttl
    ],
    columns=["user_id", "event_timestamp", "created_timestamp", "ltv"],
).astype(TIMES)
PURCHASES = FeatureView.model_validate(
    {
        "namespace": "purchases",
        "entity_keys": {"user_id": "string"},
        "source": {"table": "purchases", "created_col": "created_timestamp"},
        "ttl": "90d",
        "features": {"ltv": "float"},
    }
)
MOVES = FeatureView.model_validate(
    {
        "namespace": "moves",
        "entity_keys": {"from_id": "int", "to_id": "int"},
        "source": {"table": "moves", "created_col": "created_timestamp"},
        "features": {"minutes": "int"},
    }
)


def noon(*users: str) -> pd.DataFrame:
    """One offer to each of these users, all at noon."""
    at = pd.to_datetime(["2025-03-01 12:00Z"] * len(users)).as_unit("us")
    offers = range(1, len(users) + 1)
    return pd.DataFrame({"offer": offers, "user_id": users, "event_timestamp": at})


def ours(tables: FeatureTables, view: FeatureView, spine: pd.DataFrame) -> list[Any]:
    """Our answer, in the order of the rows."""
    (feature,) = view.features
    rows = pa.Table.from_pandas(spine, preserve_index=False).to_reader()
    selection = [SelectedFeatures(view, (feature,))]
    with PointInTimeJoin(tables).historical(rows, selection, timestamp="event_timestamp") as joined:
        return list(joined.read_all()[feature].to_pylist())


def feasts(store: Any, view: FeatureView, spine: pd.DataFrame) -> dict[int, Any]:  # noqa: ANN401 -- feast.FeatureStore
    """Feast's answer, by the number of the offer; missing values as None."""
    (feature,) = view.features
    job = store.get_historical_features(spine, features=[f"{view.namespace}:{feature}"])
    frame = job.to_df()
    values = frame[feature].astype(object).where(frame[feature].notna(), None)
    return dict(zip(frame["offer"], values, strict=True))


def opened(folder: Path, offline: str) -> Any:  # noqa: ANN401 -- feast.FeatureStore
    from feast import FeatureStore

    (folder / "feature_store.yaml").write_text(
        f"project: p\nprovider: local\nregistry: registry.db\noffline_store:\n{offline}\n"
        "online_store: {type: sqlite, path: online.db}\nentity_key_serialization_version: 3\n"
    )
    return FeatureStore(repo_path=str(folder))


def applied(store: Any, view: FeatureView, source: Any) -> Any:  # noqa: ANN401 -- Feast's own
    """Register a declaration, of whatever source."""
    from lodestar.adapters.feast.objects import objects_of
    from lodestar.settings.features import FeatureCatalog

    objects = objects_of(FeatureCatalog({view.namespace: view}), None)
    (registered,) = objects.views
    registered.batch_source = source
    store.apply([*objects.entities, registered])
    return store


def columns(created: str | None = "created_timestamp") -> dict[str, Any]:
    more = {} if created is None else {"created_timestamp_column": created}
    return {"timestamp_field": "event_timestamp", **more}


class TestFiles:
    """Feast's default store for files (dask)."""

    @pytest.fixture(autouse=True)
    def _store(self, tmp_path: Path) -> None:
        from feast import FileSource

        self.folder = tmp_path
        VERSIONS.to_parquet(tmp_path / "purchases.parquet")
        source = FileSource(name="s", path="purchases.parquet", **columns())
        self.store = applied(opened(tmp_path, "  type: dask"), PURCHASES, source)
        self.tables = FileFeatureTables(tmp_path)

    def test_rows_get_lost(self) -> None:
        spine = noon("ann", "ann", "bob")
        assert ours(self.tables, PURCHASES, spine) == [140.0, 140.0, None]
        assert len(feasts(self.store, PURCHASES, spine)) == 1

    def test_late_arrivals_leak(self) -> None:
        assert ours(self.tables, PURCHASES, noon("ann")) == [140.0]
        assert feasts(self.store, PURCHASES, noon("ann")) == {1: 480.0}


class TestPostgres:
    """Feast's store for PostgreSQL."""

    @pytest.fixture(autouse=True)
    def _database(self, postgres_uri: str, tmp_path: Path) -> Iterator[None]:
        with fresh_database(postgres_uri) as found:
            self.database: Database = found
            self.folder = tmp_path
            self.tables = PostgresFeatureTables(found.connection())
            yield

    def registered(self, view: FeatureView, rows: pd.DataFrame) -> Any:  # noqa: ANN401 -- feast.FeatureStore
        from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
            PostgreSQLSource,
        )

        self.database.put(pa.Table.from_pandas(rows, preserve_index=False), view.source.table)
        store = opened(
            self.folder,
            f"  type: postgres\n  host: 127.0.0.1\n  port: {self.database.port}\n"
            f"  database: {self.database.server.rpartition('/')[2]}\n"
            f"  db_schema: {self.database.schema}\n  user: lodestar\n"
            f"  password: {self.database.password}\n  sslmode: prefer",
        )
        source = PostgreSQLSource(name="s", table=view.source.table, **columns())
        return applied(store, view, source)

    def test_late_arrivals_leak(self) -> None:
        store = self.registered(PURCHASES, VERSIONS)
        spine = noon("ann", "ann", "bob")
        assert ours(self.tables, PURCHASES, spine) == [140.0, 140.0, None]
        assert feasts(store, PURCHASES, spine) == {1: 480.0, 2: 480.0, 3: None}

    def test_one_entity_gets_anothers_features(self) -> None:
        both = pd.DataFrame({"from_id": [1, 11], "to_id": [11, 1]})
        moves = both.assign(
            event_timestamp=pd.Timestamp("2025-03-01 09:00Z"),
            created_timestamp=pd.Timestamp("2025-03-01 09:00Z"),
            minutes=[12, 50],
        ).astype(TIMES)
        store = self.registered(MOVES, moves)
        spine = both.assign(offer=[1, 2], event_timestamp=noon("a", "b")["event_timestamp"])
        assert ours(self.tables, MOVES, spine) == [12, 50]
        answer = feasts(store, MOVES, spine)
        assert answer != {1: 12, 2: 50}

    def test_times_follow_the_sessions_zone(self) -> None:
        naive = VERSIONS.assign(
            **{name: VERSIONS[name].dt.tz_localize(None) for name in TIMES}
        ).iloc[[1]]
        store = self.registered(PURCHASES, naive)
        spine = noon("ann")
        answers = [self.in_zone(store, zone, spine) for zone in ("UTC", "America/New_York")]
        assert answers == [{1: 150.0}, {1: None}]
        with pytest.raises(SchemaError, match="no time zone"):
            ours(self.tables, PURCHASES, spine)
        said = PURCHASES.source.model_copy(update={"timezone": "UTC"})
        assert ours(self.tables, PURCHASES.model_copy(update={"source": said}), spine) == [150.0]

    def in_zone(self, store: Any, zone: str, spine: pd.DataFrame) -> dict[int, Any]:  # noqa: ANN401 -- Feast's own
        """Feast's answer where the database's sessions are in a zone."""
        name = self.database.server.rpartition("/")[2]
        self.database.run(f"ALTER ROLE lodestar IN DATABASE \"{name}\" SET TimeZone = '{zone}'")
        try:
            return feasts(store, PURCHASES, spine)
        finally:
            self.database.run(f'ALTER ROLE lodestar IN DATABASE "{name}" RESET TimeZone')


def test_ties_fall_as_the_file_lies_in_joins_that_nobody_made_safe(tmp_path: Path) -> None:
    """The page's fourth trap: ours does not depend on the order of the rows."""
    spine = noon("ann").assign(event_timestamp=pd.Timestamp("2025-03-01 11:50Z"))
    spine = spine.astype({"event_timestamp": "datetime64[us, UTC]"})
    rows = VERSIONS[VERSIONS["created_timestamp"] < "2025-03-01 12:00Z"]
    answers: list[Sequence[Any]] = []
    for turned in (rows, rows.iloc[::-1]):
        turned.to_parquet(tmp_path / "purchases.parquet")
        naive = pd.merge_asof(
            spine,
            turned.sort_values("event_timestamp", kind="stable"),
            on="event_timestamp",
            by="user_id",
        )
        answers.append((*naive["ltv"], *ours(FileFeatureTables(tmp_path), PURCHASES, spine)))
    assert answers == [(140.0, 140.0), (150.0, 140.0)]
