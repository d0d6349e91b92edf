"""A team's own Feast repository, made by Feast itself, as our feature store."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.databases import Database, fresh_database
from tests.feast_places import feast_redis
from tests.redis_places import Redis

from lodestar.adapters.feast.repository import FeastOnlineStore
from lodestar.adapters.feast.team import TeamRepository
from lodestar.adapters.joins.point_in_time import PointInTimeJoin
from lodestar.errors import ExternalError, NotAllowedError, SettingsError, UsageError
from lodestar.factory.features import FeatureSources
from lodestar.interface.features import SelectedFeatures, TimeRange
from lodestar.interface.progress import Silent
from lodestar.pipelines.features import NEVER
from lodestar.settings.config import Data
from lodestar.settings.feature_store import FeatureStore
from lodestar.testing.online import every_feature_of, stored_rows

NOON = datetime(2025, 3, 30, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DATA = Data(adapter="duckdb", root="data", snapshots="data/snapshots")
REDIS = """
  type: redis
  connection_string: '127.0.0.1:{port},password="1e5\\u002cx"'
"""
# Driver 1 was rated 4 at ten, 5 at eleven, and its eleven was put right after noon.
RATINGS = pa.table(
    {
        "driver_id": pa.array([1, 1, 1, 2], pa.int64()),
        "rated_at": pa.array([NOON - 2 * HOUR, NOON - HOUR, NOON - HOUR, NOON - HOUR]),
        "arrived_at": pa.array([NOON - 2 * HOUR, NOON - HOUR, NOON + HOUR, NOON + HOUR]),
        "stars": pa.array([4.0, 5.0, 1.0, 2.0], pa.float32()),
        "trips": pa.array([10, 11, 12, 20], pa.int32()),
    }
).cast(
    pa.schema(
        [
            ("driver_id", pa.int64()),
            ("rated_at", pa.timestamp("us", "UTC")),
            ("arrived_at", pa.timestamp("us", "UTC")),
            ("stars", pa.float32()),
            ("trips", pa.int32()),
        ]
    )
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with feast_redis(tmp_path_factory.mktemp("redis")) as found:
        yield found


@pytest.fixture
def database(postgres_uri: str) -> Iterator[Database]:
    with fresh_database(postgres_uri) as found:
        found.put(RATINGS, "ratings")
        yield found


def repository(folder: Path, offline: str, online: str) -> Path:
    """A folder with a `feature_store.yaml`; nothing is applied yet."""
    folder.mkdir()
    (folder / "feature_store.yaml").write_text(
        "project: drivers\nprovider: local\nregistry: registry.db\n"
        f"offline_store:\n{offline}\nonline_store:\n{online}\n"
        "entity_key_serialization_version: 3\n"
    )
    return folder


def apply(folder: Path, **sources: Any) -> None:  # noqa: ANN401 -- Feast's sources
    """What `feast apply` does: one view of drivers per source."""
    from feast import Entity, FeatureStore, FeatureView, Field, ValueType
    from feast.types import Float32, Int32, Int64

    driver = Entity(name="driver_id", join_keys=["driver_id"], value_type=ValueType.INT64)
    views = [
        FeatureView(
            name=name,
            entities=[driver],
            ttl=timedelta(days=1),
            schema=[
                Field(name="driver_id", dtype=Int64),
                Field(name="stars", dtype=Float32),
                Field(name="trips", dtype=Int32),
            ],
            source=source,
            description="how drivers are rated",
            owner="fleet",
        )
        for name, source in sources.items()
    ]
    FeatureStore(repo_path=str(folder)).apply([driver, *views])


def times(**more: Any) -> dict[str, Any]:  # noqa: ANN401 -- of Feast's sources
    return {"timestamp_field": "rated_at", "created_timestamp_column": "arrived_at", **more}


@pytest.fixture
def on_postgres(database: Database, server: Redis, tmp_path: Path) -> Path:
    """Tables in PostgreSQL by name, by a query, and with a column that has another name there."""
    from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
        PostgreSQLSource,
    )

    uri = database.server
    offline = f"""
  type: postgres
  host: 127.0.0.1
  port: {database.port}
  database: {uri.rpartition("/")[2]}
  db_schema: {database.schema}
  user: lodestar
  password: {database.password}
  sslmode: prefer
"""
    folder = repository(tmp_path / "repo", offline, REDIS.format(port=server.port))
    query = "SELECT driver_id, rated_at, arrived_at, stars AS mark, trips FROM ratings"
    apply(
        folder,
        by_table=PostgreSQLSource(name="a", table="ratings", **times()),
        by_query=PostgreSQLSource(name="b", query="SELECT * FROM ratings", **times()),
        renamed=PostgreSQLSource(name="c", query=query, **times(field_mapping={"mark": "stars"})),
    )
    return folder


@pytest.fixture
def on_files(tmp_path: Path) -> Path:
    """What `feast init` makes: parquet files and SQLite; one has a column of another name."""
    from feast import FileSource

    folder = repository(tmp_path / "repo", "  type: dask", "  type: sqlite\n  path: online.db")
    (folder / "data").mkdir()
    pq.write_table(RATINGS, folder / "data" / "ratings.parquet")
    named = RATINGS.rename_columns(["driver_id", "rated_at", "arrived_at", "mark", "trips"])
    pq.write_table(named, folder / "data" / "marks.parquet")
    apply(
        folder,
        by_table=FileSource(name="a", path="data/ratings.parquet", **times()),
        renamed=FileSource(
            name="b", path="data/marks.parquet", **times(field_mapping={"mark": "stars"})
        ),
    )
    return folder


def sources_of(folder: Path) -> FeatureSources:
    section = FeatureStore.model_validate({"feast": {"repository": str(folder), "timeout": 20.0}})
    return FeatureSources(section, DATA, folder.parent)


SPINE = pa.table(
    {
        "driver_id": pa.array([1, 2, 1, 3], pa.int64()),
        "at": pa.array([NOON, NOON, NOON + 2 * HOUR, NOON]).cast(pa.timestamp("us", "UTC")),
    }
)


def joined(folder: Path, namespace: str) -> list[tuple[float | None, int | None]]:
    sources = sources_of(folder)
    join = PointInTimeJoin(sources.tables())
    selection = [SelectedFeatures(sources.catalog.view(namespace), ("stars", "trips"))]
    with join.historical(SPINE.to_reader(), selection, timestamp="at") as rows:
        table = rows.read_all()
    return list(zip(table["stars"].to_pylist(), table["trips"].to_pylist(), strict=True))


# At noon driver 1's correction had not arrived and driver 2's rating neither; nobody rated driver 3.
KNOWN = [(5.0, 11), (None, None), (1.0, 12), (None, None)]


@pytest.mark.parametrize("namespace", ["by_table", "by_query", "renamed"])
def test_history_of_postgresql_is_joined_by_our_own_engine(
    on_postgres: Path, namespace: str
) -> None:
    assert joined(on_postgres, namespace) == KNOWN


@pytest.mark.parametrize("namespace", ["by_table", "renamed"])
def test_history_of_files_is_too_whoever_reads_them(on_files: Path, namespace: str) -> None:
    assert joined(on_files, namespace) == KNOWN


@pytest.mark.parametrize("namespace", ["by_table", "renamed"])
def test_its_tables_and_online_rows_can_be_tried_out_without_reading_a_row(
    on_files: Path, namespace: str
) -> None:
    team = sources_of(on_files)
    view = team.catalog.views[namespace]
    with team.tables().versions(view, tuple(view.features), NEVER) as versions:
        assert versions.read_all().num_rows == 0
    store = team.online_store()
    assert isinstance(store, FeastOnlineStore)
    assert store.probe(view)


def test_its_views_are_namespaces(on_postgres: Path) -> None:
    view = sources_of(on_postgres).catalog.view("by_table")
    assert view.entity_keys == {"driver_id": "int"}
    assert {name: one.type for name, one in view.features.items()} == {
        "stars": "float",
        "trips": "int",
    }
    assert (view.ttl, view.owner) == (timedelta(days=1), "fleet")
    assert (view.source.timestamp_col, view.source.created_col) == ("rated_at", "arrived_at")


@pytest.mark.parametrize("place", ["on_postgres", "on_files"])
def test_feast_answers_with_what_we_materialised_and_we_with_what_feast_did(
    place: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(place)
    sources = sources_of(folder)
    view, theirs = sources.catalog.view("by_table"), sources.catalog.view("renamed")
    store = sources.online_store()
    assert store is not None
    assert store.watermark(view) is None
    with sources.tables().latest(view, TimeRange(None, NOON), known_by=NOON) as rows:
        assert store.write(view, rows) == 1
    store.set_watermark(view, NOON)
    assert store.watermark(view) == NOON
    team = sources.team
    assert team is not None
    asked = [{"driver_id": 1}, {"driver_id": 3}]
    answer = team.store.get_online_features(["by_table:stars", "by_table:trips"], asked).to_dict()
    assert (answer["stars"], answer["trips"]) == ([5.0, None], [11, None])
    team.store.materialize(NOON - 3 * HOUR, NOON, feature_views=["renamed"])
    keys = pa.record_batch({"driver_id": pa.array([1, 3], pa.int64())})
    found = store.read(keys, every_feature_of(theirs))
    assert found.features.column("trips").to_pylist()[1] is None
    assert found.features.column("trips").to_pylist()[0] in {11, 12}
    assert store.watermark(theirs) == NOON


def test_a_namespace_that_a_declaration_cannot_say_is_left_out_with_the_reason(
    on_files: Path,
) -> None:
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.types import Array, Int64

    driver = Entity(name="driver_id", join_keys=["driver_id"], value_type=ValueType.INT64)
    view = FeatureView(
        name="lists",
        entities=[driver],
        schema=[Field(name="driver_id", dtype=Int64), Field(name="last", dtype=Array(Int64))],
        source=FileSource(name="l", path="data/ratings.parquet", timestamp_field="rated_at"),
    )
    FeatureStore(repo_path=str(on_files)).apply([driver, view])
    team = TeamRepository(on_files)
    assert sorted(team.catalog.views) == ["by_table", "renamed"]
    assert "'last' of type Array(Int64)" in team.left_out["lists"]


def test_a_timestamp_of_feasts_is_not_ours_to_write(on_files: Path) -> None:
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.types import Int64, UnixTimestamp

    driver = Entity(name="driver_id", join_keys=["driver_id"], value_type=ValueType.INT64)
    view = FeatureView(
        name="moments",
        entities=[driver],
        schema=[Field(name="driver_id", dtype=Int64), Field(name="last", dtype=UnixTimestamp)],
        source=FileSource(name="m", path="data/ratings.parquet", timestamp_field="rated_at"),
    )
    FeatureStore(repo_path=str(on_files)).apply([driver, view])
    team = TeamRepository(on_files, timeout=20.0)
    moments = team.catalog.view("moments")
    assert moments.features["last"].type == "timestamp"
    row = {"driver_id": 1, "at": NOON, "last": NOON}
    with pytest.raises(NotAllowedError, match="feast materialize"):
        FeastOnlineStore(team).write(moments, iter([stored_rows(moments, [row])]))


def test_declarations_beside_a_repository_are_refused(on_files: Path) -> None:
    features = on_files.parent / "features"
    features.mkdir()
    (features / "a.yaml").write_text(
        "namespace: a\nentity_keys: {b: int}\nsource: {table: c}\nfeatures: {d: int}\n"
    )
    with pytest.raises(SettingsError, match="has its own"):
        sources_of(on_files).catalog  # noqa: B018 -- it is made when it is asked for


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, r"no feature_store\.yaml"),
        ("project: [", "cannot be read"),
        ("online_store: {type: redis}", "names no project"),
        (
            "project: p\nonline_store: {type: redis, redis_type: ring, connection_string: 'a:1'}",
            "no redis_type 'ring'",
        ),
    ],
)
def test_a_folder_that_is_no_repository_is_said(
    tmp_path: Path, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "feature_store.yaml").write_text(text)
    with pytest.raises(UsageError, match=said):
        sources_of(tmp_path).online_store()


def test_a_registry_that_is_not_there_is_an_error_without_a_password(
    tmp_path: Path, server: Redis
) -> None:
    folder = repository(tmp_path / "repo", "  type: dask", REDIS.format(port=server.port))
    with pytest.raises((UsageError, ExternalError)) as caught:
        sources_of(folder).catalog  # noqa: B018 -- it is made when it is asked for
    error: BaseException | None = caught.value
    while error is not None:
        assert "1e5" not in f"{error} {error!r}"
        error = error.__cause__


def test_an_environment_variable_in_feature_store_yaml_is_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM_REDIS", "somewhere:6380,password=hunter2")
    online = "  type: redis\n  connection_string: ${TEAM_REDIS}"
    team = TeamRepository(repository(tmp_path / "repo", "  type: dask", online))
    assert team.redis_connection is not None
    assert str(team.redis_connection.address()) == "somewhere:6380"
    assert "hunter2" not in repr(team.redis_connection)


@pytest.mark.parametrize(
    "line",
    [
        "entity_key_serialization_version: 2",
        "registry: {path: r.db, enable_online_feature_view_versioning: true}",
    ],
)
def test_a_redis_laid_out_otherwise_is_left_to_feasts_own_code(tmp_path: Path, line: str) -> None:
    (tmp_path / "feature_store.yaml").write_text(
        f"project: p\nonline_store: {{type: redis, connection_string: 'a:1'}}\n{line}\n"
    )
    assert TeamRepository(tmp_path).redis_connection is None


def test_materialise_of_a_team_is_ours_too(on_postgres: Path) -> None:
    from lodestar.core.feature_store import ComposedFeatureStore

    sources = sources_of(on_postgres)
    tables = sources.tables()
    store = ComposedFeatureStore(tables, PointInTimeJoin(tables), sources.online_store())
    view = sources.catalog.view("by_query")
    assert store.materialize(view, until=NOON + 2 * HOUR, tell=Silent()) == 2
    keys = pa.record_batch({"driver_id": pa.array([1, 2], pa.int64())})
    found = store.online(keys, every_feature_of(view), now=NOON + 2 * HOUR)
    assert found.features.to_pylist() == [
        {"stars": 1.0, "trips": 12},
        {"stars": 2.0, "trips": 20},
    ]
