"""The point-in-time join against plain Python, on cases that are made to break joins."""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings
from tests.examples import examples

from lodestar.adapters.joins.point_in_time import PointInTimeJoin
from lodestar.core.entity_codes import EntityCodes
from lodestar.errors import DataError, ExternalError, LodestarError, SchemaError
from lodestar.interface.features import SelectedFeatures, TimeRange
from lodestar.schema import TIMESTAMP
from lodestar.settings.features import FeatureView
from lodestar.testing.known import Case, Stored, asking, known_to, same_rows, some_versions

MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
TTL = timedelta(seconds=10)

# Few values, so that they meet; the moments lie around each other's ttl, to the microsecond.
MOMENTS = st.builds(
    lambda base, seconds, micros: base + timedelta(seconds=seconds, microseconds=micros),
    st.sampled_from([EPOCH, NOON]),
    st.sampled_from([-10, 0, 0, 3, 10, 20]),
    st.sampled_from([-1, 0, 0, 1]),
)
TEXTS = st.sampled_from(["", "a", "b", "a|b", "b|a", "é", "0012", None])
WHOLE = st.sampled_from([1, 11, 111, -1, 2**62, -(2**63), None])
VALUES = {
    "int": st.one_of(st.none(), st.integers(-3, 3), st.sampled_from([2**63 - 1, -(2**63)])),
    "float": st.sampled_from([None, math.nan, 0.0, -0.0, 1.5, -1.5, math.inf, -math.inf]),
    "string": TEXTS,
    "bool": st.sampled_from([None, True, False]),
    "timestamp": st.one_of(st.none(), MOMENTS),
}
TYPES = {
    "int": pa.int64(),
    "float": pa.float64(),
    "string": pa.string(),
    "bool": pa.bool_(),
    "timestamp": TIMESTAMP,
}


class InMemory:
    """Feature tables that hand out their rows in the order in which they were given."""

    def __init__(self, stored: Sequence[Stored], batch_rows: int = 7) -> None:
        self._tables = {each.view.namespace: each.table for each in stored}
        self._batch_rows = batch_rows
        self.asked: list[TimeRange] = []

    def versions(
        self, view: FeatureView, features: Sequence[str], times: TimeRange
    ) -> pa.RecordBatchReader:
        self.asked.append(times)
        table = self._tables[view.namespace]
        left_out = [name for name in view.features if name not in features]
        return table.drop_columns(left_out).to_reader(self._batch_rows)

    def latest(
        self, view: FeatureView, times: TimeRange, *, known_by: datetime
    ) -> pa.RecordBatchReader:
        raise NotImplementedError


@st.composite
def views(draw: st.DrawFn, number: int) -> FeatureView:
    keys = draw(
        st.dictionaries(
            st.sampled_from(["k1", "k2", "k3"]), st.sampled_from(["int", "string"]), min_size=1
        )
    )
    # One name, one type in the spine.
    keys = {name: "int" if name == "k1" else "string" for name in keys}
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3))
    return FeatureView.model_validate(
        {
            "namespace": f"n{number}",
            "entity_keys": keys,
            "source": {"table": f"t{number}", "created_col": draw(st.sampled_from([None, "c"]))},
            "ttl": draw(st.sampled_from([None, MICROSECOND, TTL, timedelta(days=365_000_000)])),
            "features": {f"f{number}{place}": kind for place, kind in enumerate(kinds)},
        }
    )


@st.composite
def entities(draw: st.DrawFn, keys: Sequence[str]) -> dict[str, Any]:
    return {key: draw(WHOLE if key == "k1" else TEXTS) for key in keys}


@st.composite
def stored(draw: st.DrawFn, number: int) -> Stored:
    view = draw(views(number))
    source = view.source
    kinds: dict[str, str] = {**view.entity_keys, source.timestamp_col: "timestamp"}
    if source.created_col:
        kinds[source.created_col] = "timestamp"
    kinds |= {name: feature.type for name, feature in view.features.items()}
    rows = []
    for _ in range(draw(st.integers(0, 25))):
        event = draw(st.one_of(MOMENTS, MOMENTS, MOMENTS, st.none()))
        lag = draw(st.sampled_from([timedelta(), timedelta(), MICROSECOND, TTL, -TTL]))
        row = {
            **draw(entities(view.keys)),
            source.timestamp_col: event,
            **{name: draw(VALUES[feature.type]) for name, feature in view.features.items()},
        }
        if source.created_col:
            row[source.created_col] = draw(st.sampled_from([(event or NOON) + lag] * 9 + [None]))
        rows.append(row)
    if rows:  # rows that were delivered twice
        rows += draw(st.lists(st.sampled_from(rows), max_size=3))
    schema = pa.schema([(name, TYPES[kind]) for name, kind in kinds.items()])
    return Stored(view, pa.Table.from_pylist(rows, schema))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    tables = tuple(draw(stored(number)) for number in range(draw(st.integers(1, 3))))
    rows = draw(
        st.lists(
            st.builds(
                lambda entity, at: {**entity, "asked_at": at},
                entities(("k1", "k2", "k3")),
                MOMENTS,
            ),
            max_size=25,
        )
    )
    schema = pa.schema(
        [("k3", pa.string()), ("asked_at", TIMESTAMP), ("k1", pa.int64()), ("k2", pa.string())]
    )
    selection = []
    for each in tables:
        names = draw(st.permutations(tuple(each.view.features)))
        count = draw(st.integers(1, len(names)))
        selection.append(SelectedFeatures(each.view, tuple(names[:count])))
    return Case(tables, pa.Table.from_pylist(rows, schema), tuple(selection))


def joined(
    case: Case, *, slice_rows: int = 1_000, chunk_rows: int = 9, few_rows: int = -1
) -> pa.Table:
    join = PointInTimeJoin(InMemory(case.stored), slice_rows=slice_rows, few_rows=few_rows)
    spine = case.spine.to_reader(chunk_rows)
    with join.historical(spine, case.selection, timestamp="asked_at") as rows:
        return rows.read_all()


@settings(max_examples=examples(250), deadline=None)
@given(cases(), st.sampled_from([1, 4, 1_000]), st.sampled_from([-1, 10, 1_000]))
def test_every_row_gets_what_plain_python_finds(case: Case, slice_rows: int, few_rows: int) -> None:
    found = joined(case, slice_rows=slice_rows, few_rows=few_rows)
    assert same_rows(found, known_to(case))
    assert found.select(case.spine.column_names).equals(case.spine)


@settings(max_examples=examples(100), deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_in_which_versions_come_changes_nothing(case: Case, draw: Any) -> None:  # noqa: ANN401 -- hypothesis's random.Random
    shuffled = []
    for each in case.stored:
        order = list(range(each.table.num_rows))
        draw.shuffle(order)
        shuffled.append(Stored(each.view, each.table.take(pa.array(order, pa.int64()))))
    assert same_rows(joined(case), joined(Case(tuple(shuffled), case.spine, case.selection)))


@settings(max_examples=examples(100), deadline=None)
@given(cases(), MOMENTS)
def test_values_that_come_after_an_event_change_nothing(case: Case, cut: datetime) -> None:
    """No leakage: rows asked at or before the cut do not see what happened or arrived behind it."""
    asked = case.spine["asked_at"].to_pylist()
    early = case.spine.filter(pa.array([at <= cut for at in asked], pa.bool_()))
    before = []
    for each in case.stored:
        source = each.view.source
        times = [name for name in (source.timestamp_col, source.created_col) if name]
        seen = [
            all(row[name] is not None and row[name] <= cut for name in times)
            for row in each.table.to_pylist()
        ]
        before.append(Stored(each.view, each.table.filter(pa.array(seen, pa.bool_()))))
    all_known = joined(Case(case.stored, early, case.selection))
    assert same_rows(all_known, joined(Case(tuple(before), early, case.selection)))


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.tuples(TEXTS.filter(bool), TEXTS.filter(bool), WHOLE.filter(bool)), max_size=40))
def test_entities_get_one_number_each(rows: list[tuple[str, str, int]]) -> None:
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    kinds = (pa.string(), pa.string(), pa.int64())
    keys = [pa.chunked_array([pa.array(c, k)]) for c, k in zip(columns, kinds, strict=True)]
    codes, numbers = EntityCodes.number(keys)
    assert codes.count == len(set(rows))
    assert len(set(zip(rows, numbers.tolist(), strict=True))) == len(set(rows))


def one_entity(events: Sequence[datetime], created: Sequence[datetime]) -> Stored:
    rows = [
        ("u", event, at, row) for row, (event, at) in enumerate(zip(events, created, strict=True))
    ]
    return some_versions(rows, ttl=None)


def asked_at(*times: datetime) -> pa.Table:
    return asking(*(("u", at) for at in times))


SHAPES: dict[str, Callable[[int], datetime]] = {
    "as they happen": lambda row: NOON + timedelta(seconds=row),
    "all at once, later": lambda row: NOON + timedelta(days=9),
    "the newest first": lambda row: NOON + timedelta(days=9) - timedelta(seconds=2 * row),
    "in waves": lambda row: NOON + timedelta(seconds=row + 300 * (row % 7)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_many_versions_of_one_entity_are_joined_however_they_arrived(shape: str) -> None:
    events = [NOON + timedelta(seconds=row) for row in range(700)]
    held = one_entity(events, [SHAPES[shape](row) for row in range(len(events))])
    spine = asked_at(*(NOON + timedelta(seconds=97 * row) for row in range(-3, 9_000, 13)))
    case = Case((held,), spine, (SelectedFeatures(held.view, ("points",)),))
    assert same_rows(joined(case, slice_rows=100), known_to(case))


def test_times_as_far_apart_as_there_are_do_not_overflow() -> None:
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    held = one_entity([first, last], [first, last])
    for ttl in (None, timedelta.max, *(last - first - less * MICROSECOND for less in range(3))):
        view = held.view.model_copy(update={"ttl": ttl})
        spine = asked_at(first, last - MICROSECOND, last)
        case = Case((Stored(view, held.table),), spine, (SelectedFeatures(view, ("points",)),))
        assert same_rows(joined(case), known_to(case))


def test_more_entities_and_times_than_64_bits_hold_together_are_told_apart() -> None:
    count = 150_000  # 18 bits, beside the 59 of 9,999 years in microseconds
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    events = [first + row * ((last - first) // (count + 1)) for row in range(count)]
    held = some_versions(
        [(f"u{row}", at, at, row) for row, at in enumerate(events)], ttl=MICROSECOND
    )
    asked = [(f"u{row}", at + (row % 3) * MICROSECOND) for row, at in enumerate(events)]
    case = Case((held,), asking(*asked), (SelectedFeatures(held.view, ("points",)),))
    found = joined(case, slice_rows=10_000, chunk_rows=50_000)["points"].to_pylist()
    assert found == [row if row % 3 < 2 else None for row in range(count)]


def test_tables_are_asked_for_the_window_of_the_rows_alone() -> None:
    held = some_versions([("u", NOON, NOON, 1)], ttl=TTL)
    tables = InMemory([held])
    spine = asked_at(NOON + TTL, NOON, NOON + 3 * TTL).to_reader()
    selection = [SelectedFeatures(held.view, ("points", "city"))]
    with PointInTimeJoin(tables).historical(spine, selection, timestamp="asked_at") as rows:
        rows.read_all()
    assert tables.asked == [TimeRange(NOON - TTL, NOON + 3 * TTL)]


def test_rows_without_a_timestamp_are_counted_and_refused() -> None:
    held = some_versions([("u", NOON, NOON, 1)])
    times = pa.array([NOON, None, NOON, None, None], TIMESTAMP)
    spine = pa.table({"user_id": ["u"] * 5, "asked_at": times})
    case = Case((held,), spine, (SelectedFeatures(held.view, ("points",)),))
    with pytest.raises(DataError, match="3 of 5 rows have no 'asked_at'"):
        joined(case, chunk_rows=2)


def test_times_that_no_calendar_has_are_refused() -> None:
    held = some_versions([("u", NOON, NOON, 1)])
    spine = pa.table({"user_id": ["u"], "asked_at": pa.array([2**62]).cast(TIMESTAMP)})
    case = Case((held,), spine, (SelectedFeatures(held.view, ("points",)),))
    with pytest.raises(DataError, match="years 1 to 9999"):
        joined(case)


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("us"), pa.timestamp("ns", "UTC")])
def test_a_timestamp_of_another_type_is_refused(kind: pa.DataType) -> None:
    held = some_versions([("u", NOON, NOON, 1)])
    spine = pa.table({"user_id": ["u"], "asked_at": pa.array([NOON], TIMESTAMP).cast(kind)})
    case = Case((held,), spine, (SelectedFeatures(held.view, ("points",)),))
    with pytest.raises(SchemaError, match="'asked_at'"):
        joined(case)


def test_a_feature_that_the_rows_have_already_is_refused() -> None:
    held = some_versions([("u", NOON, NOON, 1)])
    spine = asked_at(NOON).append_column("points", pa.array([7]))
    case = Case((held,), spine, (SelectedFeatures(held.view, ("points",)),))
    with pytest.raises(SchemaError, match="'points' would stand twice"):
        joined(case)


def test_nothing_selected_gives_the_rows_back() -> None:
    spine = asked_at(NOON, NOON)
    assert joined(Case((), spine, ())).equals(spine)


def test_the_spines_own_error_passes_through() -> None:
    held = some_versions([("u", NOON, NOON, 1)])

    def failing() -> Any:  # noqa: ANN401 -- an iterator of batches
        yield asked_at(NOON).to_batches()[0]
        raise DataError("the spine broke")

    spine = pa.RecordBatchReader.from_batches(asked_at(NOON).schema, failing())
    selection = [SelectedFeatures(held.view, ("points",))]
    join = PointInTimeJoin(InMemory([held]))
    with (
        pytest.raises(DataError, match="the spine broke"),
        join.historical(spine, selection, timestamp="asked_at"),
    ):
        pass


def test_rows_that_are_read_too_late_never_look_like_the_end() -> None:
    held = some_versions([("u", NOON, NOON, 1)])
    spine = asked_at(*[NOON] * 100).to_reader()
    join = PointInTimeJoin(InMemory([held]), slice_rows=10)
    selection = [SelectedFeatures(held.view, ("points",))]
    with join.historical(spine, selection, timestamp="asked_at") as rows:
        assert rows.read_next_batch().num_rows == 10
    with pytest.raises(LodestarError, match="closed after 10 of 100 rows"):
        rows.read_all()


def test_the_temporary_file_leaves_nothing_behind(tmp_path: Path) -> None:
    held = some_versions([("u", NOON, NOON, 1)])
    selection = [SelectedFeatures(held.view, ("points",))]
    scratch = tmp_path / "not" / "there yet"
    join = PointInTimeJoin(InMemory([held]), scratch)
    with join.historical(asked_at(NOON).to_reader(), selection, timestamp="asked_at") as rows:
        assert not list(scratch.iterdir())  # it has no name even now
        rows.read_all()
    assert not list(scratch.iterdir())


def test_a_scratch_folder_that_cannot_be_written_is_an_error_of_the_outside(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    held = some_versions([("u", NOON, NOON, 1)])
    join = PointInTimeJoin(InMemory([held]), tmp_path / "file")
    selection = [SelectedFeatures(held.view, ("points",))]
    with (
        pytest.raises(ExternalError, match="file"),
        join.historical(asked_at(NOON).to_reader(), selection, timestamp="asked_at"),
    ):
        pass
