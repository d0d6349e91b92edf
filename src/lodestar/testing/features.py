# ruff: noqa: D102 -- a test says in its name what it is about
"""Contract tests for feature stores' history: what any feature tables and any join of them must keep.

An adapter's author subclasses them and says how to put rows where the adapter finds them:

```python
class TestMyTables(FeatureTablesContract):
    def tables(self, *stored: Stored) -> MyTables:
        put_rows_where_my_tables_find_them(stored)
        return MyTables(...)


class TestMyStore(HistoricalContract):
    def store(self, *stored: Stored) -> MyStore:
        put_rows_where_my_store_finds_them(stored)
        return MyStore(...)
```

What counts is decided by `lodestar.testing.known`, in plain Python.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Protocol

import pyarrow as pa
import pytest

from lodestar.errors import DataError, LodestarError, SchemaError
from lodestar.interface.features import FeatureTables, SelectedFeatures, TimeRange
from lodestar.schema import TIMESTAMP
from lodestar.testing.known import (
    Case,
    Stored,
    a_case,
    asking,
    known_at,
    known_to,
    latest_known,
    same_rows,
    some_versions,
    some_view,
)

__all__ = [
    "FeatureTablesContract",
    "Historical",
    "HistoricalContract",
    "Stored",
    "known_at",
    "some_view",
]

MICROSECOND = timedelta(microseconds=1)
NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
ALWAYS = TimeRange(None, datetime(9999, 12, 31, tzinfo=UTC))


class Historical(Protocol):
    """The part of `FeatureStoreAdapter` that looks back."""

    def historical(
        self, spine: pa.RecordBatchReader, selection: Sequence[SelectedFeatures], *, timestamp: str
    ) -> AbstractContextManager[pa.RecordBatchReader]:
        """As `FeatureStoreAdapter.historical`."""
        ...


class FeatureTablesContract:
    """What every `FeatureTables` keeps; a subclass gives `tables`, and `broken` where it can."""

    knows_empty_text: ClassVar[bool] = True  # or reads "" as null

    def tables(self, *stored: Stored) -> FeatureTables:
        """Make feature tables that hold exactly these rows, in columns of these types."""
        raise NotImplementedError

    def broken(self, stored: Stored) -> FeatureTables:
        """Make feature tables that fail half way through these rows; may raise itself."""
        raise NotImplementedError

    def test_columns_are_keys_then_times_then_the_features_asked_for(self) -> None:
        stored = some_versions([("u", NOON, NOON, 1)])
        columns = ["user_id", "event_timestamp", "created_timestamp", "city", "points"]
        read = self.tables(stored).versions(stored.view, ("city", "points"), ALWAYS).read_all()
        assert read.column_names == columns
        assert read.schema.equals(stored.table.select(columns).schema)
        assert same_rows(read, stored.table.select(columns))

    def test_features_that_are_not_asked_for_are_not_read(self) -> None:
        stored = some_versions([("u", NOON, NOON, 1)])
        read = self.tables(stored).versions(stored.view, ("points",), ALWAYS).read_all()
        assert read.column_names == ["user_id", "event_timestamp", "created_timestamp", "points"]

    def test_both_ends_of_the_range_belong_to_it_to_the_microsecond(self) -> None:
        since, until = NOON, NOON + timedelta(hours=1)
        events = [since - MICROSECOND, since, until, until + MICROSECOND]
        stored = some_versions([("u", event, event, row) for row, event in enumerate(events)])
        read = self.tables(stored).versions(stored.view, ("points",), TimeRange(since, until))
        assert sorted(read.read_all()["points"].to_pylist()) == [1, 2]

    def test_versions_that_arrived_late_are_among_them(self) -> None:
        stored = some_versions([("u", NOON, NOON + timedelta(days=400), 1)])
        read = self.tables(stored).versions(stored.view, ("points",), TimeRange(None, NOON))
        assert read.read_all().num_rows == stored.table.num_rows

    def test_times_before_1970_and_far_ahead_come_back(self) -> None:
        events = [datetime(1900, 1, 1, tzinfo=UTC), datetime(2999, 12, 31, 23, tzinfo=UTC)]
        stored = some_versions([("u", event, event + MICROSECOND, 1) for event in events])
        read = self.tables(stored).versions(stored.view, ("points",), ALWAYS).read_all()
        assert sorted(read["event_timestamp"].to_pylist()) == events
        assert sorted(read["created_timestamp"].to_pylist()) == [e + MICROSECOND for e in events]

    def test_an_empty_range_keeps_its_columns(self) -> None:
        stored = some_versions([("u", NOON, NOON, 1)])
        never = TimeRange(NOON + timedelta(days=1), NOON + timedelta(days=2))
        read = self.tables(stored).versions(stored.view, ("points",), never).read_all()
        assert read.num_rows == 0
        assert read.column_names == ["user_id", "event_timestamp", "created_timestamp", "points"]

    def test_tables_can_be_read_again_and_at_the_same_time(self) -> None:
        stored = some_versions([(f"u{row}", NOON, NOON, row) for row in range(100)])
        tables = self.tables(stored)
        with (
            tables.versions(stored.view, ("points",), ALWAYS) as one,
            tables.versions(stored.view, ("points",), ALWAYS) as other,
        ):
            assert one.read_all().num_rows == stored.table.num_rows
            assert other.read_all().num_rows == stored.table.num_rows

    def test_what_does_not_fit_is_said_before_rows_are_asked_for(self) -> None:
        stored = some_versions([("u", NOON, NOON, 1)])
        tables = self.tables(Stored(stored.view, stored.table.drop_columns("city")))
        with pytest.raises(SchemaError, match="'city'"):
            tables.versions(stored.view, ("city",), TimeRange(None, datetime(1, 1, 1, tzinfo=UTC)))

    @pytest.mark.parametrize("missing", ["user_id", "event_timestamp", "created_timestamp", "city"])
    def test_a_missing_column_is_named_with_its_table_and_the_near_names(
        self, missing: str
    ) -> None:
        stored = some_versions([("u", NOON, NOON, 1)])
        names = [f"{n}_" if n == missing else n for n in stored.table.column_names]
        tables = self.tables(Stored(stored.view, stored.table.rename_columns(names)))
        with pytest.raises(SchemaError, match=f"'{missing}'") as caught:
            tables.versions(stored.view, ("city",), ALWAYS).read_all()
        assert f"'{missing}_'" in str(caught.value)
        assert "user_facts" in str(caught.value)

    @pytest.mark.parametrize(
        ("column", "kind"),
        [("user_id", pa.int64()), ("points", pa.string()), ("event_timestamp", pa.int64())],
    )
    def test_a_column_of_another_type_is_named_with_both_types(
        self, column: str, kind: pa.DataType
    ) -> None:
        stored = some_versions([("7", NOON, NOON, 1)])
        place = stored.table.column_names.index(column)
        other = pa.array([7]).cast(kind) if column != "points" else pa.array(["seven"])
        tables = self.tables(Stored(stored.view, stored.table.set_column(place, column, other)))
        with pytest.raises(SchemaError, match=f"'{column}' is declared") as caught:
            tables.versions(stored.view, ("points",), ALWAYS).read_all()
        assert "user" in str(caught.value)

    def test_timestamps_without_a_zone_are_in_the_declared_one(self) -> None:
        stored = self._naive(timezone="Asia/Seoul")
        read = self.tables(stored).versions(stored.view, ("points",), ALWAYS).read_all()
        assert read["event_timestamp"].to_pylist() == [NOON - timedelta(hours=9)]
        assert read["created_timestamp"].to_pylist() == [NOON - timedelta(hours=8)]

    def test_timestamps_without_a_zone_are_refused_where_none_is_declared(self) -> None:
        stored = self._naive(timezone=None)
        with pytest.raises(DataError, match="'event_timestamp' have no time zone"):
            self.tables(stored).versions(stored.view, ("points",), ALWAYS).read_all()

    def test_a_table_that_is_not_there_is_named(self) -> None:
        stored = some_versions([("u", NOON, NOON, 1)])
        view = some_view(source={"table": "user_fact", "created_col": "created_timestamp"})
        with pytest.raises(LodestarError, match="user_fact") as caught:
            self.tables(stored).versions(view, ("points",), ALWAYS).read_all()
        assert caught.value.exit_code in {3, 4}

    def test_a_read_that_fails_half_way_raises(self) -> None:
        stored = some_versions([(f"u{row}", NOON, NOON, row) for row in range(50_000)])
        with pytest.raises(LodestarError):
            self.broken(stored).versions(stored.view, ("points",), ALWAYS).read_all()

    @pytest.mark.parametrize("seed", range(6))
    def test_the_latest_version_per_entity_is_as_in_plain_python(self, seed: int) -> None:
        case = a_case(seed, empty_text=self.knows_empty_text)
        until, known_by = NOON, NOON + timedelta(hours=1)
        for since in (None, until - timedelta(hours=2)):
            for stored in case.stored:
                tables = self.tables(*case.stored)
                read = tables.latest(stored.view, TimeRange(since, until), known_by=known_by)
                rows = read.read_all().to_pylist()
                assert sorted(map(repr, rows)) == sorted(
                    map(repr, latest_known(stored, since, until, known_by))
                )

    @staticmethod
    def _naive(timezone: str | None) -> Stored:
        """One version whose timestamps have no zone: at twelve, arrived at one."""
        source = {
            "table": "user_facts",
            "created_col": "created_timestamp",
            "timezone": timezone,
        }
        stored = some_versions([("u", NOON, NOON + timedelta(hours=1), 1)], source=source)
        table = stored.table
        for name in ("event_timestamp", "created_timestamp"):
            plain = table[name].cast(pa.timestamp("us"))
            table = table.set_column(table.column_names.index(name), name, plain)
        return Stored(stored.view, table)


class HistoricalContract:
    """What every point-in-time join keeps; a subclass gives `store`."""

    seeds: ClassVar[int] = 8
    knows_empty_text: ClassVar[bool] = True  # or reads "" as null

    def store(self, *stored: Stored) -> Historical:
        """Make a feature store whose offline tables hold exactly these rows."""
        raise NotImplementedError

    def points(self, stored: Stored, *asked: tuple[str | None, datetime]) -> list[int | None]:
        """Join the points of these users at these times."""
        selection = [SelectedFeatures(stored.view, ("points",))]
        joined = self.joined(Case((stored,), asking(*asked), tuple(selection)))
        values: list[int | None] = joined["points"].to_pylist()
        return values

    def joined(self, case: Case, *, chunk_rows: int = 1_000) -> pa.Table:
        """Join a whole case."""
        spine = case.spine.to_reader(chunk_rows)
        store = self.store(*case.stored)
        with store.historical(spine, case.selection, timestamp="asked_at") as rows:
            return rows.read_all()

    @pytest.mark.parametrize("seed", range(20))
    def test_every_value_is_as_in_plain_python(self, seed: int) -> None:
        if seed >= self.seeds:
            pytest.skip("this store is slow; it takes fewer cases")
        case = a_case(seed, empty_text=self.knows_empty_text)
        assert same_rows(self.joined(case), known_to(case))

    def test_columns_of_the_spine_come_first_and_are_untouched(self) -> None:
        stored = some_versions([("u", NOON, NOON, 1)])
        spine = asking(("u", NOON), ("v", NOON)).append_column("amount", pa.array([0.5, None]))
        selection = (SelectedFeatures(stored.view, ("city", "points")),)
        joined = self.joined(Case((stored,), spine, selection))
        assert joined.column_names == ["user_id", "asked_at", "amount", "city", "points"]
        assert joined.select(spine.column_names).equals(spine)
        assert joined["city"].to_pylist() == ["city 1", None]

    def test_a_namespace_can_be_selected_from_twice(self) -> None:
        stored = some_versions([("u", NOON, NOON, 1)])
        selection = tuple(SelectedFeatures(stored.view, (name,)) for name in ("city", "points"))
        joined = self.joined(Case((stored,), asking(("u", NOON)), selection))
        assert joined.select(["city", "points"]).to_pylist() == [{"city": "city 1", "points": 1}]

    def test_duplicate_rows_stay_in_number_and_order(self) -> None:
        stored = some_versions([("u", NOON, NOON, 1), ("u", NOON - MICROSECOND, NOON, 0)] * 2)
        later = NOON + timedelta(hours=1)
        asked = [("u", later), ("v", later), ("u", later), ("u", NOON), ("u", later)]
        assert self.points(stored, *asked) == [1, None, 1, 1, 1]

    def test_both_ends_count_to_the_microsecond(self) -> None:
        stored = some_versions([("u", NOON, NOON, 1)])
        expiry = NOON + timedelta(days=30)
        asked = [NOON - MICROSECOND, NOON, expiry, expiry + MICROSECOND]
        assert self.points(stored, *(("u", at) for at in asked)) == [None, 1, 1, None]
        assert self.points(stored, ("u", expiry)) == [1]  # where no other row widens the window

    def test_what_was_told_before_it_happened_counts_from_when_it_happened(self) -> None:
        stored = some_versions([("u", NOON, NOON - timedelta(hours=1), 1)])
        assert self.points(stored, ("u", NOON - MICROSECOND), ("u", NOON)) == [None, 1]

    def test_a_version_that_arrived_after_the_event_does_not_count(self) -> None:
        stored = some_versions(
            [
                ("u", NOON - timedelta(hours=2), NOON - timedelta(hours=2), 1),
                ("u", NOON - timedelta(hours=1), NOON + timedelta(hours=1), 2),
            ]
        )
        asked = [NOON, NOON + timedelta(hours=1) - MICROSECOND, NOON + timedelta(hours=1)]
        assert self.points(stored, *(("u", at) for at in asked)) == [1, 1, 2]

    def test_an_old_version_that_arrives_last_does_not_hide_a_newer_one(self) -> None:
        stored = some_versions(
            [
                ("u", NOON - timedelta(hours=1), NOON - timedelta(hours=1), 2),
                ("u", NOON - timedelta(hours=3), NOON - timedelta(minutes=1), 1),
            ]
        )
        assert self.points(stored, ("u", NOON)) == [2]

    def test_of_equal_event_times_the_last_created_that_had_arrived_counts(self) -> None:
        event = NOON - timedelta(hours=5)
        versions = [("u", event, event + timedelta(hours=hours), hours) for hours in (4, 0, 9, 2)]
        assert self.points(some_versions(versions), ("u", NOON)) == [4]

    @pytest.mark.parametrize("turn", [1, -1])
    def test_of_versions_equal_in_both_times_the_greater_values_count(self, turn: int) -> None:
        versions = [("u", NOON, NOON, 1), ("u", NOON, NOON, 3), ("u", NOON, NOON, 2)]
        assert self.points(some_versions(versions[::turn]), ("u", NOON)) == [3]

    def test_which_version_counts_does_not_depend_on_the_features_selected(self) -> None:
        stored = some_versions([("u", NOON, NOON, 9), ("u", NOON, NOON, 10)])
        for features in (("city",), ("points", "city"), ("city", "points")):
            selection = (SelectedFeatures(stored.view, features),)
            joined = self.joined(Case((stored,), asking(("u", NOON)), selection))
            assert joined["city"].to_pylist() == ["city 10"]

    def test_without_a_created_column_the_event_time_alone_decides(self) -> None:
        stored = some_versions(
            [("u", NOON, NOON + timedelta(days=9), 1)], source={"table": "user_facts"}
        )
        assert self.points(stored, ("u", NOON), ("u", NOON - MICROSECOND)) == [1, None]

    def test_without_a_ttl_the_oldest_version_counts(self) -> None:
        long_ago = datetime(1900, 1, 1, tzinfo=UTC)
        stored = some_versions([("u", long_ago, long_ago, 1)], ttl=None)
        assert self.points(stored, ("u", NOON), ("u", NOON.replace(year=2999))) == [1, 1]

    def test_times_before_1970_are_times(self) -> None:
        events = [datetime(1969, 12, 31, 23, 59, 59, second, tzinfo=UTC) for second in (1, 999_999)]
        stored = some_versions([("u", event, event, row) for row, event in enumerate(events)])
        asked = [events[0] - MICROSECOND, events[0], events[1], events[1] + MICROSECOND]
        assert self.points(stored, *(("u", at) for at in asked)) == [None, 0, 1, 1]

    def test_entities_of_several_keys_are_not_mixed_up(self) -> None:
        view = some_view(entity_keys={"left_id": "int", "right_id": "int"})
        pairs = [(1, 11), (11, 1), (1, 1), (111, 1), (1, 111)]
        times = pa.array([NOON] * len(pairs), TIMESTAMP)
        left, right = zip(*pairs, strict=True)
        stored = Stored(
            view,
            pa.table(
                {
                    "left_id": left,
                    "right_id": right,
                    "event_timestamp": times,
                    "created_timestamp": times,
                    "points": range(len(pairs)),
                    "city": ["x"] * len(pairs),
                }
            ),
        )
        spine = pa.table({"right_id": [*right, 11], "left_id": [*left, 11]}).append_column(
            "asked_at", pa.array([NOON] * (len(pairs) + 1), TIMESTAMP)
        )
        case = Case((stored,), spine, (SelectedFeatures(view, ("points",)),))
        assert self.joined(case)["points"].to_pylist() == [0, 1, 2, 3, 4, None]

    def test_null_and_unknown_keys_match_nothing(self) -> None:
        stored = some_versions([("u", NOON, NOON, 1), (None, NOON, NOON, 2), ("", NOON, NOON, 3)])
        empty = 3 if self.knows_empty_text else None
        assert self.points(stored, (None, NOON), ("v", NOON), ("", NOON)) == [None, None, empty]

    def test_an_empty_spine_keeps_its_columns(self) -> None:
        stored = some_versions([("u", NOON, NOON, 1)])
        case = Case((stored,), asking(), (SelectedFeatures(stored.view, ("points",)),))
        joined = self.joined(case)
        assert joined.num_rows == 0
        assert joined.column_names == ["user_id", "asked_at", "points"]

    def test_an_empty_table_gives_nulls(self) -> None:
        assert self.points(some_versions([]), ("u", NOON), ("v", NOON)) == [None, None]

    def test_rows_keep_their_order_over_many_batches(self) -> None:
        stored = some_versions([(f"u{row}", NOON, NOON, row) for row in range(0, 5_000, 2)])
        asked = [((row * 7919) % 5_000) for row in range(5_000)]
        spine = asking(*((f"u{row}", NOON + row * MICROSECOND) for row in asked))
        case = Case((stored,), spine, (SelectedFeatures(stored.view, ("points",)),))
        joined = self.joined(case, chunk_rows=117)
        assert joined.select(spine.column_names).equals(spine)
        assert joined["points"].to_pylist() == [None if row % 2 else row for row in asked]

    def test_a_spine_without_a_key_or_the_timestamp_is_refused(self) -> None:
        stored = some_versions([("u", NOON, NOON, 1)])
        for column in ("user_id", "asked_at"):
            spine = asking(("u", NOON)).drop_columns(column)
            case = Case((stored,), spine, (SelectedFeatures(stored.view, ("points",)),))
            with pytest.raises(SchemaError, match=f"no column '{column}'"):
                self.joined(case)

    def test_a_key_of_another_type_is_refused(self) -> None:
        stored = some_versions([("7", NOON, NOON, 1)])
        spine = asking(("7", NOON)).set_column(0, "user_id", pa.array([7]))
        case = Case((stored,), spine, (SelectedFeatures(stored.view, ("points",)),))
        with pytest.raises(SchemaError, match="'user_id'"):
            self.joined(case)
