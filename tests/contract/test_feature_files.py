"""Feature tables in files, and the point-in-time join over them, under their contracts."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.contract.test_data_ports import damage, put

from lodestar.adapters.files.features import FileFeatureTables
from lodestar.adapters.joins.point_in_time import PointInTimeJoin
from lodestar.errors import DataError, SchemaError
from lodestar.interface.features import TimeRange
from lodestar.testing.features import FeatureTablesContract, HistoricalContract, Stored
from lodestar.testing.known import some_versions, some_view

ALWAYS = TimeRange(None, datetime(9999, 12, 31, tzinfo=UTC))
NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
NOON_MICROS = int(NOON.timestamp()) * 1_000_000


class InTemporaryDirectory:
    suffix: ClassVar[str]

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.place = tmp_path

    def tables(self, *stored: Stored) -> FileFeatureTables:
        for each in stored:
            put(each.table, self.place / f"{each.view.source.table}{self.suffix}")
        return FileFeatureTables(self.place)


class FilesContract(InTemporaryDirectory, FeatureTablesContract):
    def broken(self, stored: Stored) -> FileFeatureTables:
        tables = self.tables(stored)
        damage(self.place / f"{stored.view.source.table}{self.suffix}")
        return tables


class TestParquetTables(FilesContract):
    suffix = ".parquet"


class TestCsvTables(FilesContract):
    suffix = ".csv"
    knows_empty_text = False

    @pytest.mark.parametrize(
        ("column", "kind"), [("points", pa.string()), ("event_timestamp", pa.int64())]
    )
    def test_a_column_of_another_type_is_named_with_both_types(
        self, column: str, kind: pa.DataType
    ) -> None:
        super().test_a_column_of_another_type_is_named_with_both_types(column, kind)

    def test_digits_are_text_where_text_is_declared(self) -> None:
        (self.place / "user_facts.csv").write_text(
            "user_id,event_timestamp,created_timestamp,city\n"
            "007,2025-06-01 00:00Z,2025-06-01 00:00Z,NA\n"
        )
        tables = FileFeatureTables(self.place)
        read = tables.versions(some_view(), ("city",), ALWAYS).read_all()
        assert read.select(["user_id", "city"]).to_pylist() == [{"user_id": "007", "city": "NA"}]

    @pytest.mark.parametrize(
        ("text", "moment"),
        [
            ("2025-06-01T12:00:00Z", NOON),
            ("2025-06-01 14:00:00.000001+02:00", NOON + timedelta(microseconds=1)),
            ("2025-06-01 12:00:00+00", NOON),
            ("9999-12-30 00:00:00.000001Z", datetime(9999, 12, 30, 0, 0, 0, 1, tzinfo=UTC)),
            ("1500-01-01 00:00:00Z", datetime(1500, 1, 1, tzinfo=UTC)),
            ("2025-06-01 21:00:00", NOON),
            ("2025-06-01", NOON - timedelta(hours=21)),
        ],
    )
    def test_times_are_read_with_their_zone_or_in_the_declared_one(
        self, text: str, moment: datetime
    ) -> None:
        (self.place / "user_facts.csv").write_text(f"user_id,event_timestamp\nu,\nu,{text}\n")
        view = some_view(source={"table": "user_facts", "timezone": "Asia/Seoul"})
        read = FileFeatureTables(self.place).versions(view, (), ALWAYS).read_all()
        assert read["event_timestamp"].to_pylist() == [moment]

    def test_text_that_is_no_time_is_named(self) -> None:
        (self.place / "user_facts.csv").write_text("user_id,event_timestamp\nu,yesterday\n")
        view = some_view(source={"table": "user_facts", "timezone": "UTC"})
        with pytest.raises(SchemaError, match="is declared timestamp, and the table has string"):
            FileFeatureTables(self.place).versions(view, (), ALWAYS)

    def test_a_value_that_does_not_fit_far_down_is_an_error(self) -> None:
        path = self.place / "user_facts.csv"
        lines = ["user_id,event_timestamp,created_timestamp,points"]
        lines += [f"u,2025-06-01 00:00Z,2025-06-01 00:00Z,{row}" for row in range(100_000)]
        path.write_text("\n".join([*lines, lines[1] + "x"]))
        with pytest.raises(DataError, match="user_facts"):
            FileFeatureTables(self.place).versions(some_view(), ("points",), ALWAYS).read_all()


class TestArrowTables(FilesContract):
    suffix = ".arrow"


class JoinContract(InTemporaryDirectory, HistoricalContract):
    seeds = 20

    def store(self, *stored: Stored) -> PointInTimeJoin:
        return PointInTimeJoin(self.tables(*stored), self.place / "scratch", slice_rows=17)


class TestJoinOverParquet(JoinContract):
    suffix = ".parquet"


class TestJoinOfManyRows(JoinContract):
    """As the one before, without a look at which entities the rows ask for."""

    suffix = ".parquet"

    def store(self, *stored: Stored) -> PointInTimeJoin:
        return PointInTimeJoin(self.tables(*stored), few_rows=-1)


class TestJoinOverCsv(JoinContract):
    suffix = ".csv"
    knows_empty_text = False


class TestJoinOverArrow(JoinContract):
    suffix = ".arrow"


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Seoul", None])
def test_row_groups_out_of_the_range_are_left_out_and_no_others(
    tmp_path: Path, unit: str, zone: str | None
) -> None:
    hours = [NOON + timedelta(hours=hour) for hour in range(-200, 200)]
    events = pa.array([hour.replace(tzinfo=None) for hour in hours], pa.timestamp(unit))
    events = events if zone is None else events.cast(pa.timestamp(unit, zone))
    table = pa.table({"user_id": ["u"] * len(hours), "event_timestamp": events})
    pq.write_table(table, tmp_path / "user_facts.parquet", row_group_size=10)
    view = some_view(source={"table": "user_facts", "timezone": "UTC"})
    times = TimeRange(NOON - timedelta(hours=30), NOON + timedelta(hours=30))
    read = FileFeatureTables(tmp_path).versions(view, (), times)
    sizes = [batch.num_rows for batch in read]
    assert sum(sizes) == 61
    assert len(sizes) < 20  # of 40 row groups


def test_a_file_without_statistics_is_read_whole(tmp_path: Path) -> None:
    stored = some_versions([("u", NOON, NOON, 1)])
    pq.write_table(stored.table, tmp_path / "user_facts.parquet", write_statistics=False)
    times = TimeRange(NOON, NOON)
    read = FileFeatureTables(tmp_path).versions(stored.view, ("points",), times).read_all()
    assert read["points"].to_pylist() == [1]


@pytest.fixture(params=["America/New_York", "Asia/Seoul"])
def session_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("session_zone")
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".arrow"])
def test_the_zone_of_the_session_changes_nothing(tmp_path: Path, suffix: str) -> None:
    assert time.timezone != 0, os.environ["TZ"]
    plain = pa.array([NOON.replace(tzinfo=None)], pa.timestamp("us"))
    table = pa.table({"user_id": ["u"], "event_timestamp": plain})
    put(table, tmp_path / f"user_facts{suffix}")
    view = some_view(source={"table": "user_facts", "timezone": "UTC"})
    read = FileFeatureTables(tmp_path).versions(view, (), ALWAYS).read_all()
    assert read["event_timestamp"].to_pylist() == [NOON]


def test_of_hours_that_the_clock_shows_twice_or_skips_the_later_moment_counts(
    tmp_path: Path,
) -> None:
    local = [datetime(2025, 10, 26, 2, 30), datetime(2025, 3, 30, 2, 30)]  # noqa: DTZ001 -- local on purpose
    table = pa.table({"user_id": ["u", "u"], "event_timestamp": pa.array(local)})
    put(table, tmp_path / "user_facts.parquet")
    view = some_view(source={"table": "user_facts", "timezone": "Europe/Berlin"})
    read = FileFeatureTables(tmp_path).versions(view, (), ALWAYS).read_all()
    assert read["event_timestamp"].to_pylist() == [
        datetime(2025, 10, 26, 1, 30, tzinfo=UTC),
        datetime(2025, 3, 30, 1, 0, tzinfo=UTC),
    ]


def test_a_table_in_a_folder_is_a_schema_and_a_table(tmp_path: Path) -> None:
    stored = some_versions([("u", NOON, NOON, 1)], source={"table": "shop.user_facts"})
    put(stored.table, tmp_path / "shop" / "user_facts.parquet")
    read = FileFeatureTables(tmp_path).versions(stored.view, ("points",), ALWAYS)
    assert read.read_all()["points"].to_pylist() == [1]


def test_a_list_is_no_feature(tmp_path: Path) -> None:
    table = pa.table({"user_id": ["u"], "event_timestamp": [NOON], "points": [[1, 2]]})
    put(table, tmp_path / "user_facts.parquet")
    view = some_view(source={"table": "user_facts"})
    with pytest.raises(SchemaError, match="'points' is declared int, and the table has list"):
        FileFeatureTables(tmp_path).versions(view, ("points",), ALWAYS)


def test_a_column_of_nothing_but_nulls_is_of_any_type(tmp_path: Path) -> None:
    table = pa.table({"user_id": ["u"], "event_timestamp": [NOON], "points": pa.nulls(1)})
    put(table, tmp_path / "user_facts.parquet")
    view = some_view(source={"table": "user_facts"})
    read = FileFeatureTables(tmp_path).versions(view, ("points",), ALWAYS).read_all()
    assert read["points"].equals(pa.chunked_array([pa.nulls(1, pa.int64())]))


def test_the_latest_of_more_versions_than_are_held_at_once_are_the_latest_of_all(
    tmp_path: Path,
) -> None:
    rows, users = 1_200_000, 1_000
    place = np.random.default_rng(7).permutation(rows)
    events = pa.array(NOON_MICROS + place).cast(pa.timestamp("us", "UTC"))
    names = pa.array([f"u{number}" for number in range(users)])
    table = pa.table(
        {
            "user_id": names.take(pa.array(place % users)),
            "event_timestamp": events,
            "points": pa.array(place),
        }
    )
    put(table, tmp_path / "user_facts.parquet")
    view = some_view(source={"table": "user_facts"}, features={"points": "int"})
    until = NOON + timedelta(microseconds=rows - users // 2)
    latest = FileFeatureTables(tmp_path).latest(view, TimeRange(None, until), known_by=until)
    last = rows - users // 2
    assert sorted(latest.read_all()["points"].to_pylist()) == list(
        range(last - users + 1, last + 1)
    )
