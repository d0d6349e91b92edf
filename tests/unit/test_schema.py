"""Few types for all engines, and rows held to what training saw."""

import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from lodestar.errors import DataError, SchemaError
from lodestar.schema import (
    Column,
    FrameSchema,
    canonical,
    canonical_schema,
    require_columns,
)

UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")


def made_canonical(array: pa.Array) -> pa.Array:
    batch = pa.record_batch([array], names=["x"])
    return canonical(batch, canonical_schema(batch.schema)).column("x")


CASES: dict[str, tuple[pa.Array, pa.DataType, list[Any]]] = {
    "small whole numbers": (pa.array([1, -2, None], pa.int8()), pa.int64(), [1, -2, None]),
    "unsigned": (pa.array([0, 2**63 - 1], pa.uint64()), pa.int64(), [0, 2**63 - 1]),
    "small unsigned": (pa.array([255], pa.uint8()), pa.int64(), [255]),
    "half floats": (pa.array([1.5, None], pa.float16()), pa.float64(), [1.5, None]),
    "floats": (pa.array([0.1], pa.float32()), pa.float64(), [0.10000000149011612]),
    "decimals": (
        pa.array([Decimal("1.10"), None], pa.decimal128(38, 2)),
        pa.float64(),
        [1.1, None],
    ),
    "wide decimals": (
        pa.array([Decimal("12345678901234567890.5")], pa.decimal256(60, 3)),
        pa.float64(),
        [12345678901234567890.5],
    ),
    "large text": (pa.array(["a", None], pa.large_string()), pa.string(), ["a", None]),
    "text views": (pa.array(["a", None], pa.string_view()), pa.string(), ["a", None]),
    "text categories": (
        pa.array(["b", None, "b"]).dictionary_encode(),
        pa.string(),
        ["b", None, "b"],
    ),
    "large text categories": (
        pa.array(["b", None], pa.large_string()).dictionary_encode(),
        pa.string(),
        ["b", None],
    ),
    "number categories": (pa.array([5, 5, None]).dictionary_encode(), pa.int64(), [5, 5, None]),
    "nothing but nulls": (pa.nulls(2), pa.float64(), [None, None]),
    "days in milliseconds": (
        pa.array([date(1969, 7, 20)], pa.date64()),
        pa.date32(),
        [date(1969, 7, 20)],
    ),
    "plain times are UTC": (
        pa.array([datetime(2025, 3, 30, 2, 30)], pa.timestamp("us")),  # noqa: DTZ001 -- naive
        UTC_MICROSECONDS,
        [datetime(2025, 3, 30, 2, 30, tzinfo=UTC)],
    ),
    "times of another zone": (
        pa.array([datetime(2025, 1, 1, 0, 0, tzinfo=UTC)], pa.timestamp("ms", tz="Asia/Seoul")),
        UTC_MICROSECONDS,
        [datetime(2025, 1, 1, 0, 0, tzinfo=UTC)],
    ),
    "times before 1970": (
        pa.array([-1, -86_400_000_001], pa.timestamp("us")),
        UTC_MICROSECONDS,
        [
            datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(1969, 12, 30, 23, 59, 59, 999_999, tzinfo=UTC),
        ],
    ),
    "times in seconds": (
        pa.array([1_700_000_000], pa.timestamp("s", tz="UTC")),
        UTC_MICROSECONDS,
        [datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)],
    ),
    "times in nanoseconds": (
        pa.array([1_700_000_000_000_001_000], pa.timestamp("ns", tz="America/New_York")),
        UTC_MICROSECONDS,
        [datetime(2023, 11, 14, 22, 13, 20, 1, tzinfo=UTC)],
    ),
}


@pytest.mark.parametrize(("array", "wanted", "values"), CASES.values(), ids=CASES.keys())
def test_every_engines_types_become_the_shared_ones(
    array: pa.Array, wanted: pa.DataType, values: list[Any]
) -> None:
    made = made_canonical(array)
    assert made.type == wanted
    assert made.to_pylist() == values


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.int64()),
        pa.struct([("a", pa.int64())]),
        pa.binary(),
        pa.time64("us"),
        pa.duration("us"),
        pa.month_day_nano_interval(),
        pa.map_(pa.string(), pa.int64()),
    ],
)
def test_a_type_that_no_model_takes_is_refused_with_its_column(kind: pa.DataType) -> None:
    with pytest.raises(SchemaError, match="column 'odd' has the type"):
        canonical_schema(pa.schema([("fine", pa.int64()), ("odd", kind)]))


def test_a_column_that_stands_twice_is_refused() -> None:
    with pytest.raises(SchemaError, match="'a' stands twice"):
        canonical_schema(pa.schema([("a", pa.int64()), ("b", pa.int64()), ("a", pa.string())]))


@pytest.mark.parametrize(
    "array",
    [
        pa.array([2**63], pa.uint64()),
        pa.array([2**62], pa.timestamp("s")),
        pa.array([1_700_000_000_000_000_001], pa.timestamp("ns")),
    ],
    ids=["unsigned", "far future", "nanoseconds"],
)
def test_a_value_that_does_not_fit_is_an_error_and_not_another_value(array: pa.Array) -> None:
    with pytest.raises(DataError, match="a value does not fit"):
        made_canonical(array)


def trained() -> FrameSchema:
    return FrameSchema(
        (
            Column("age", "int", nullable=False),
            Column("income", "float", nullable=True),
            Column("city", "string", nullable=True),
            Column("member", "bool", nullable=False),
        )
    )


def batch(**changes: Any) -> pa.RecordBatch:  # noqa: ANN401 -- any column
    columns: dict[str, Any] = {
        "age": [30, 40],
        "income": [1.5, None],
        "city": ["x", None],
        "member": [True, False],
    }
    return pa.record_batch({**columns, **changes})


def test_the_schema_is_read_off_the_rows() -> None:
    table = pa.Table.from_batches([batch(income=[1.0, float("nan")])])
    assert FrameSchema.of(table) == trained()


def test_a_schema_survives_json() -> None:
    assert FrameSchema.from_json(json.loads(json.dumps(trained().to_json()))) == trained()


def test_equal_columns_in_another_order_are_fine() -> None:
    given = batch().select(["member", "city", "income", "age"])
    trained().check(given.schema)
    assert trained().conform(given).equals(trained().conform(batch()))


def test_every_difference_is_told_at_once() -> None:
    given = pa.schema(
        [
            ("age", pa.string()),
            ("income", pa.float64()),
            ("town", pa.string()),
            ("member", pa.bool_()),
        ]
    )
    with pytest.raises(SchemaError) as caught:
        trained().check(given)
    assert caught.value.exit_code == 3
    for line in (
        "- city: missing",
        "+ town: unknown",
        "~ age: string, was int in training",
    ):
        assert line in str(caught.value)
    assert "income" not in str(caught.value)


def test_an_optional_column_may_be_missing_but_not_change() -> None:
    trained().check(batch().select(["age", "income", "member"]).schema, optional=["city"])
    with pytest.raises(SchemaError, match="~ city: int"):
        trained().check(batch(city=[1, 2]).schema, optional=["city"])


def test_whole_numbers_fit_where_training_had_floats_and_the_reverse() -> None:
    trained().check(batch(income=[1, 2], age=[1.0, 2.0]).schema)
    made = trained().conform(batch(income=[1, 2], age=[1.0, 2.0]))
    assert made.schema.equals(trained().arrow())
    assert made.column("age").to_pylist() == [1, 2]


@pytest.mark.parametrize("name", ["income", "city"])
def test_a_column_of_nothing_but_nulls_fits_where_training_saw_nulls(name: str) -> None:
    given = batch(**{name: pa.nulls(2)})
    trained().check(given.schema)
    made = trained().conform(canonical(given, canonical_schema(given.schema)))
    assert made.schema.equals(trained().arrow())
    assert made.column(name).null_count == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"age": [30, None]}, "column 'age' has a null in row 101"),
        ({"member": [None, True]}, "column 'member' has a null in row 100"),
        ({"age": [30.0, 40.5]}, "column 'age' does not fit the type int"),
        ({"age": [30.0, 1e300]}, "column 'age' does not fit the type int"),
        ({"income": [1.0, float("inf")]}, "column 'income' has an infinite value in row 101"),
        ({"income": [float("-inf"), None]}, "column 'income' has an infinite value in row 100"),
        ({"income": [math.inf, -math.inf]}, "column 'income' has an infinite value in row 100"),
        ({"income": [2**60 + 1, 1]}, "column 'income' does not fit the type float"),
    ],
)
def test_what_training_never_saw_is_refused_with_its_row(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        trained().conform(batch(**changes), first_row=100)


def test_numbers_whose_sum_is_too_large_are_finite() -> None:
    largest = [1.7e308, 1.7e308]
    assert trained().conform(batch(income=largest)).column("income").to_pylist() == largest


def test_not_a_number_is_a_null_by_another_name() -> None:
    trained().conform(batch(income=[1.0, float("nan")]))
    strict = FrameSchema((Column("income", "float", nullable=False),))
    with pytest.raises(DataError, match="column 'income' has a NaN in row 1"):
        strict.conform(pa.record_batch({"income": [1.0, float("nan")]}))


def test_conforming_leaves_the_given_rows_alone() -> None:
    given = batch(income=[1, 2])
    trained().conform(given)
    assert given.equals(batch(income=[1, 2]))


def test_columns_that_the_recipe_names_are_asked_for_all_at_once() -> None:
    schema = pa.schema([("target", pa.int64()), ("user_id", pa.int64())])
    require_columns(schema, [("target", "data_interface.target_col")])
    with pytest.raises(SchemaError) as caught:
        require_columns(
            schema,
            [("taget", "data_interface.target_col"), ("grp", "data_interface.treatment_col")],
        )
    assert "no column 'taget' (data_interface.target_col)" in str(caught.value)
    assert "no column 'grp' (data_interface.treatment_col)" in str(caught.value)
    assert "did you mean 'target'?" in str(caught.value)
