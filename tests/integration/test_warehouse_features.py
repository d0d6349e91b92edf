"""What of feature tables in warehouses the contracts do not ask: types, zones, refusals, what stays."""

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.warehouses import BigQueryDataset, EmulatedBigQuery, EmulatedSnowflake, SnowflakeSchema

from lodestar.adapters.bigquery.features import BigQueryWarehouse
from lodestar.adapters.snowflake.features import SnowflakeWarehouse
from lodestar.adapters.warehouse.features import WarehouseFeatures
from lodestar.errors import ExternalError, LodestarError, NotAllowedError, SchemaError, UsageError
from lodestar.interface.features import SelectedFeatures, TimeRange
from lodestar.settings.features import FeatureView
from lodestar.testing.known import asking, some_versions, some_view

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ALWAYS = TimeRange(None, datetime(2099, 12, 31, tzinfo=UTC))


class Place:
    """A dataset or a schema, and the feature tables in it."""

    def __init__(self, kind: str, server: Any) -> None:  # noqa: ANN401 -- either's
        self.kind, self.server = kind, server
        self.rows: Any = BigQueryDataset(server) if kind == "bigquery" else SnowflakeSchema(server)

    def features(self, **changes: object) -> WarehouseFeatures:
        config = self.rows.config(**changes)
        warehouse = BigQueryWarehouse if self.kind == "bigquery" else SnowflakeWarehouse
        return WarehouseFeatures(warehouse(config, Path()))

    def joined(
        self, view: FeatureView, spine: pa.Table, *names: str, **changes: object
    ) -> pa.Table:
        selection = [SelectedFeatures(view, names)]
        features = self.features(**changes)
        with features.historical(spine.to_reader(), selection, timestamp="asked_at") as rows:
            return rows.read_all()


@pytest.fixture(params=["bigquery", "snowflake"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    server: EmulatedBigQuery | EmulatedSnowflake
    server = request.getfixturevalue(f"{request.param}_server")
    yield Place(request.param, server)
    server.faults()


def table(view: FeatureView, **columns: list[int]) -> pa.Table:
    """One row, at noon, of a view without a created column."""
    at = pa.array([NOON], pa.timestamp("us", "UTC"))
    return pa.table({"user_id": ["u"], view.source.timestamp_col: at, **columns})


def view_of(zone: str | None = None, *, ttl: str | None = None, **kinds: str) -> FeatureView:
    """Facts of users, without a created column."""
    source = {"table": "facts", "timezone": zone}
    return some_view(source=source, ttl=ttl, features=kinds or {"points": "int"})


def test_decimals_are_floats_and_compared_as_such(place: Place) -> None:
    types = "NUMERIC" if place.kind == "bigquery" else "NUMBER(10,2)"
    zoned = "TIMESTAMP" if place.kind == "bigquery" else "TIMESTAMP_LTZ"
    place.rows.run(
        f"CREATE TABLE facts AS SELECT 'u' AS user_id, CAST('2025-06-01T10:00:00+00:00' AS {zoned}) AS "
        f"event_timestamp, CAST('9.50' AS {types}) AS points UNION ALL SELECT 'u', "
        f"CAST('2025-06-01T10:00:00+00:00' AS {zoned}), CAST('10.25' AS {types})"
    )
    view = view_of(points="float")
    assert place.joined(view, asking(("u", NOON)), "points")["points"].to_pylist() == [10.25]
    read = place.features().versions(view, ("points",), ALWAYS).read_all()
    assert sorted(read["points"].to_pylist()) == [9.5, 10.25]


@pytest.mark.parametrize(
    "zone",
    [
        "Europe/Berlin",
        pytest.param("UTC", marks=pytest.mark.faults),
        pytest.param("Asia/Seoul", marks=pytest.mark.faults),
        pytest.param("America/New_York", marks=pytest.mark.faults),
    ],
)
def test_times_without_a_zone_mean_what_they_mean_in_files(place: Place, zone: str) -> None:
    """Through both changes of the clock; where it shows an hour twice the later one counts."""
    start = datetime(2024, 10, 24)  # noqa: DTZ001 -- local
    local = [start + number * HOUR / 2 for number in range(15 * 24 * 2)]
    local += [datetime(2024, 3, 10, 2, minute) for minute in range(0, 60, 7)]  # noqa: DTZ001 -- local
    local += [datetime(2024, 3, 31, 2, minute) for minute in range(0, 60, 7)]  # noqa: DTZ001 -- local
    plain = pa.array(local, pa.timestamp("us"))
    users = pa.array(["u"] * len(local))
    rows = pa.table({"user_id": users, "event_timestamp": plain, "moment": plain})
    place.rows.put(rows, "facts")
    view = view_of(zone, ttl="400d", moment="timestamp")
    moments = in_zone(plain, zone)
    versions = place.features().versions(view, ("moment",), ALWAYS).read_all()
    assert sorted(versions["event_timestamp"].to_pylist()) == sorted(moments)
    assert versions["event_timestamp"].equals(versions["moment"])
    asked = sorted({at - by for at in moments for by in (timedelta(0), HOUR / 7)})
    joined = place.joined(view, asking(*(("u", at) for at in asked)), "moment")
    wanted = [max((one for one in moments if one <= at), default=None) for at in asked]
    assert joined["moment"].to_pylist() == wanted
    until = max(moments) - 7 * 24 * HOUR
    times = TimeRange(until - timedelta(days=300), until)
    (row,) = place.features().latest(view, times, known_by=until).read_all().to_pylist()
    assert row["event_timestamp"] == row["moment"] == max(m for m in moments if m <= until)


def in_zone(plain: pa.Array, zone: str) -> list[datetime]:
    import pyarrow.compute as pc

    found = pc.assume_timezone(plain, zone, ambiguous="latest", nonexistent="latest")
    moments: list[datetime] = found.cast(pa.timestamp("us", "UTC")).to_pylist()
    return moments


def test_a_type_that_no_feature_has_is_named_as_the_warehouse_names_it(place: Place) -> None:
    odd = "BYTES" if place.kind == "bigquery" else "BINARY"
    if place.kind == "bigquery":
        row = "'u' AS user_id, CURRENT_TIMESTAMP() AS event_timestamp, CAST('x' AS BYTES) AS points"
        place.rows.run(f"CREATE TABLE facts AS SELECT {row}")
    else:
        columns = "user_id TEXT, event_timestamp TIMESTAMP_LTZ, points BINARY"
        place.rows.run(f"CREATE TABLE facts ({columns})")
    with pytest.raises(SchemaError, match="'points' is declared int, and the table has") as caught:
        place.features().versions(view_of(), ("points",), ALWAYS)
    assert odd in str(caught.value)


def test_a_table_is_looked_for_in_the_schema_that_it_names(place: Place) -> None:
    view = some_view(source={"table": "elsewhere.user_facts"})
    with pytest.raises(LodestarError, match="elsewhere") as caught:
        place.features().versions(view, ("points",), ALWAYS)
    assert caught.value.exit_code == 3
    stored = some_versions([("u", NOON, NOON, 1)])
    place.rows.put(stored.table, "user_facts")
    source = {"table": f"{place.rows.name}.user_facts"}
    other = Place(place.kind, place.server)
    read = other.features().versions(some_view(source=source), ("points",), ALWAYS).read_all()
    assert read["points"].to_pylist() == [1]


def test_names_are_found_whatever_their_case(place: Place) -> None:
    names = ["USER_ID", "EVENT_TIMESTAMP", "POINTS"]
    place.rows.put(table(view_of(), points=[7]).rename_columns(names), "facts")
    assert place.joined(view_of(), asking(("u", NOON)), "points")["points"].to_pylist() == [7]


def test_rows_wait_where_the_config_says_and_are_gone_afterwards(place: Place) -> None:
    stored = some_versions([("u", NOON, NOON, 1)])
    place.rows.put(stored.table, "user_facts")
    aside = Place(place.kind, place.server)
    aside.rows.run("SELECT 1")  # the emulated Snowflake makes a schema when somebody is in it
    key = "staging_dataset" if place.kind == "bigquery" else "staging_schema"
    place.server.faults()
    joined = place.joined(stored.view, asking(("u", NOON)), "points", **{key: aside.rows.name})
    assert joined["points"].to_pylist() == [1]
    said = " ".join(str(one.get("sql", one.get("load", ""))) for one in place.server.said())
    assert "lodestar_spine_" in said.lower()
    assert f"{aside.rows.name}.lodestar_spine" in said.replace('"', "").replace("`", "").replace(
        "LODESTAR_SPINE", "lodestar_spine"
    )
    assert place.rows.tables() == ["user_facts"]
    assert aside.rows.tables() == []


def test_rows_go_also_when_the_join_fails_or_is_left(place: Place) -> None:
    stored = some_versions([("u", NOON, NOON, 1)])
    place.rows.put(stored.table, "user_facts")
    spine = asking(*(("u", NOON) for _ in range(70_000)))
    selection = [SelectedFeatures(stored.view, ("points",))]
    joining = place.features().historical(spine.to_reader(), selection, timestamp="asked_at")
    with joining as rows:
        assert rows.read_next_batch().num_rows > 0
    with pytest.raises(ZeroDivisionError):
        _failing(place.features(), spine, selection)
    assert place.rows.tables() == ["user_facts"]


def _failing(
    features: WarehouseFeatures, spine: pa.Table, selection: Sequence[SelectedFeatures]
) -> None:
    with features.historical(spine.to_reader(), selection, timestamp="asked_at"):
        raise ZeroDivisionError


def test_answers_that_break_off_are_an_error(place: Place) -> None:
    stored = some_versions([("u", NOON, NOON, 1)])
    place.rows.put(stored.table, "user_facts")
    spine = asking(*(("u", NOON) for _ in range(70_000)))
    broken = {"forgotten_after": 30_000} if place.kind == "bigquery" else {"forgotten_chunk": 2}
    place.server.faults(**broken)
    with pytest.raises(ExternalError, match=r"sent .* of 70,000 rows"):
        place.joined(stored.view, spine, "points")


def test_without_the_right_to_make_a_table_it_is_said_whose(place: Place) -> None:
    stored = some_versions([("u", NOON, NOON, 1)])
    place.rows.put(stored.table, "user_facts")
    place.server.faults(
        **({"deny_tables": True} if place.kind == "bigquery" else {"deny": "CREATE TEMPORARY"})
    )
    with pytest.raises(ExternalError, match="refuses: ") as caught:
        place.joined(stored.view, asking(("u", NOON)), "points")
    assert "grant" in str(caught.value)


def test_a_join_beyond_the_cap_is_not_allowed_and_leaves_nothing(
    bigquery_server: EmulatedBigQuery,
) -> None:
    place = Place("bigquery", bigquery_server)
    stored = some_versions([("u", NOON, NOON, number) for number in range(100)])
    place.rows.put(stored.table, "user_facts")
    with pytest.raises(NotAllowedError, match="more than may be billed: it takes") as caught:
        place.joined(stored.view, asking(("u", NOON)), "points", maximum_bytes_billed=1_000)
    assert "data.bigquery.maximum_bytes_billed" in str(caught.value)
    assert place.rows.tables() == ["user_facts"]


def test_without_any_dataset_the_key_to_set_is_named(bigquery_server: EmulatedBigQuery) -> None:
    place = Place("bigquery", bigquery_server)
    with pytest.raises(UsageError, match="names no dataset") as caught:
        place.features(dataset=None).versions(view_of(), ("points",), ALWAYS)
    assert "dataset.facts" in str(caught.value)
    place.rows.put(table(view_of(), points=[7]), "facts")
    view = some_view(source={"table": f"{place.rows.name}.facts"}, features={"points": "int"})
    with pytest.raises(UsageError, match="rows could wait"):
        place.joined(view, asking(("u", NOON)), "points", dataset=None)


def test_a_missing_driver_names_its_extra(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = "google.cloud.bigquery" if place.kind == "bigquery" else "snowflake.connector"
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(ExternalError, match=rf"lodestar-ml\[{place.kind}\]"):
        place.features().versions(view_of(), ("points",), ALWAYS)
