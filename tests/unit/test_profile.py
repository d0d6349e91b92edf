from typing import Literal

import numpy as np
import pandas as pd
import pytest

from lodestar.core.profile import profile
from lodestar.core.results import ColumnProfile


def only(values: object, **roles: str) -> ColumnProfile:
    (column,) = profile(pd.DataFrame({"x": values}), roles).columns
    return column


def test_columns_keep_their_order_and_get_their_roles() -> None:
    frame = pd.DataFrame({"y": [1, 2], "id": ["a", "b"], "f": [0.5, 0.5]})
    shown = profile(frame, {"y": "target", "id": "entity"})
    assert shown.rows == 2
    assert [(c.name, c.role) for c in shown.columns] == [
        ("y", "target"),
        ("id", "entity"),
        ("f", "feature"),
    ]


def test_numbers_show_range_mean_nulls_and_histogram() -> None:
    column = only([*range(20), None])
    assert (column.rows, column.nulls, column.distinct) == (21, 1, 20)
    assert (column.minimum, column.mean, column.maximum) == ("0", "9.5", "19")
    assert column.histogram == (1,) * 20
    assert column.top == ()


def test_large_whole_numbers_are_shown_in_full() -> None:
    assert only([1, 2**53 + 1]).maximum == "9007199254740993"


def test_numbers_that_are_not_finite_stay_out_of_the_range() -> None:
    column = only([1.0, 2.0, np.inf])
    assert column.maximum == "2"
    assert sum(column.histogram) == 2


def test_the_widest_floats_still_have_a_histogram() -> None:
    column = only([-1.7e308, 1.7e308])
    assert (column.histogram[0], column.histogram[-1]) == (1, 1)


def test_the_histogram_is_numpys() -> None:
    values = np.random.default_rng(0).normal(size=5_000)
    assert list(only(values).histogram) == np.histogram(values, bins=20)[0].tolist()


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "int64[pyarrow]"])
def test_nullable_numbers_are_numbers(
    dtype: Literal["Int64", "Float64", "int64[pyarrow]"],
) -> None:
    column = only(pd.array([1, None, 3], dtype=dtype))
    assert (column.nulls, column.minimum, column.maximum) == (1, "1", "3")


@pytest.mark.parametrize(
    "dtype", ["datetime64[us]", "datetime64[ns, UTC]", "timestamp[s][pyarrow]"]
)
def test_times_show_iso_text(
    dtype: Literal["datetime64[us]", "datetime64[ns, UTC]", "timestamp[s][pyarrow]"],
) -> None:
    column = only(pd.Series(["2025-01-01", None, "2025-01-03"]).astype(dtype))
    assert column.minimum.startswith("2025-01-01T00:00:00")
    assert column.mean.startswith("2025-01-02T00:00:00")
    assert column.maximum.startswith("2025-01-03T00:00:00")
    assert (column.nulls, column.distinct, sum(column.histogram)) == (1, 2, 2)


def test_other_columns_show_their_most_frequent_values() -> None:
    column = only(["b", "a", "b", None, "c"])
    assert column.top == (("b", 2), ("a", 1), ("c", 1))
    assert (column.nulls, column.distinct, column.histogram) == (1, 3, ())


def test_booleans_are_counted_not_averaged() -> None:
    assert only([True, True, False]).top == (("True", 2), ("False", 1))


def test_categories_that_do_not_occur_are_not_counted() -> None:
    column = only(pd.Categorical(["a", "a"], categories=["a", "z"]))
    assert (column.distinct, column.top) == (1, (("a", 2),))


def test_values_that_are_all_different_are_not_shown() -> None:
    column = only(["ann@example.org", "bob@example.org"])
    assert (column.top, column.distinct) == ((), 2)


def test_cells_that_hold_lists_are_shown_as_text() -> None:
    column = only([[1], [1], None])
    assert (column.top, column.nulls) == ((("[1]", 2),), 1)


@pytest.mark.parametrize(
    "values", [[], [None, None], pd.Series([np.nan]), pd.Series([pd.NaT, pd.NaT])]
)
def test_empty_and_all_null_columns_have_no_range(values: object) -> None:
    column = only(values)
    assert column.nulls == column.rows
    assert (column.distinct, column.minimum, column.histogram, column.top) == (0, "", (), ())


def test_one_value_stands_in_one_bin() -> None:
    assert only([3.0, 3.0]).histogram == (2, *(0,) * 19)
