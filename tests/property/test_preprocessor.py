"""Whatever the rows: a row's features depend on that row alone, bit for bit, in either precision."""

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.examples import examples

from lodestar.core.preprocessor import SimpleScaler
from lodestar.errors import DataError

# Six decimals: a deviation of 1e-29 would take a scaled value beyond what single precision holds.
DECIMALS = st.floats(-1e12, 1e12).map(lambda value: round(value, 6))
NUMBERS = st.one_of(st.none(), st.just(math.nan), DECIMALS)
WHOLE = st.one_of(st.none(), st.integers(-(2**62), 2**62))
TEXT = st.one_of(st.none(), st.sampled_from(["a", "b", "서울", "", "(other)", "rare"]), st.text())


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(1, 30))

    def column(values: st.SearchStrategy[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(draw(st.lists(values, min_size=rows, max_size=rows)), kind)

    return pa.table(
        {
            "number": column(NUMBERS, pa.float64()),
            "whole": column(WHOLE, pa.int64()),
            "text": column(TEXT, pa.string()),
            "flag": column(st.one_of(st.none(), st.booleans()), pa.bool_()),
        }
    )


def fitted(table: pa.Table, *, grouped: bool) -> SimpleScaler:
    scaler = SimpleScaler(criterion_col="text" if grouped else None, max_categories=3)
    try:
        scaler.fit(table, np.zeros(table.num_rows))
    except DataError:
        reject()
    return scaler


def features(
    scaler: SimpleScaler, table: pa.Table, kind: type[np.floating[Any]] = np.float64
) -> NDArray[Any]:
    return scaler.transform(table, dtype=kind).array()


@settings(deadline=None, max_examples=examples(150))
@given(table=tables(), others=tables(), grouped=st.booleans(), data=st.data())
def test_a_subsets_features_are_the_subset_of_the_features(
    table: pa.Table, others: pa.Table, grouped: bool, data: st.DataObject
) -> None:
    scaler = fitted(table, grouped=grouped)
    chosen = data.draw(st.lists(st.integers(0, others.num_rows - 1), max_size=40))
    whole = features(scaler, others)
    part = features(scaler, others.take(pa.array(chosen, pa.int64())))
    assert part.tobytes() == whole[np.array(chosen, dtype=np.int64)].tobytes()


@settings(deadline=None, max_examples=examples(100))
@given(table=tables(), others=tables(), grouped=st.booleans())
def test_single_precision_is_double_precision_rounded(
    table: pa.Table, others: pa.Table, grouped: bool
) -> None:
    scaler = fitted(table, grouped=grouped)
    double = features(scaler, others)
    if (np.abs(double) > np.finfo(np.float32).max).any():
        with pytest.raises(DataError, match="too large to be scaled as float32"):
            features(scaler, others, np.float32)
        return
    single = features(scaler, others, np.float32)
    assert single.dtype == np.float32
    assert single.tobytes() == double.astype(np.float32).tobytes()


@settings(deadline=None, max_examples=examples(100))
@given(table=tables(), others=tables(), grouped=st.booleans())
def test_features_are_never_missing_and_every_text_has_exactly_one_place(
    table: pa.Table, others: pa.Table, grouped: bool
) -> None:
    scaler = fitted(table, grouped=grouped)
    made = features(scaler, others)
    assert not np.isnan(made).any()
    places = made[:, 2 : len(scaler.names) - 1]
    assert (places.sum(axis=1) == 1).all()


@settings(deadline=None, max_examples=examples(100))
@given(table=tables(), others=tables(), grouped=st.booleans())
def test_json_keeps_every_bit(table: pa.Table, others: pa.Table, grouped: bool) -> None:
    scaler = fitted(table, grouped=grouped)
    text = json.dumps(scaler.to_json(), ensure_ascii=False)
    back = SimpleScaler.from_json(json.loads(text))
    assert features(back, others).tobytes() == features(scaler, others).tobytes()


@settings(deadline=None, max_examples=examples(60))
@given(table=tables(), seed=st.integers(0, 2**32 - 1))
def test_the_order_of_the_training_rows_decides_no_category(table: pa.Table, seed: int) -> None:
    scaler = fitted(table, grouped=False)
    order = np.random.default_rng(seed).permutation(table.num_rows)
    assert fitted(table.take(pa.array(order)), grouped=False).names == scaler.names
