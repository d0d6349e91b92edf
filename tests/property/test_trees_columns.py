"""Any forest over any raw columns: to the same bits as over the scaler's matrix of them."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.examples import examples
from tests.forests import random_forest

from lodestar.core.preprocessor import SimpleScaler
from lodestar.core.trees.forest import Forest, NotPlannedError
from lodestar.core.trees.many_rows import many_columns, many_rows
from lodestar.errors import DataError

SUBNORMAL, LARGE = 5e-324, 1.7e308
PLAIN = (0.0, -0.0, 1.0, -2.5, 1e-40, SUBNORMAL, -SUBNORMAL, 3.0e38, -1e10)
ODD = (None, math.nan, LARGE, -LARGE, math.inf, -math.inf)
TEXTS = ("a", "b", "c", "rare", "", "(other)", None)


def rows_of(draw: np.random.Generator, count: int, odd: float) -> pa.Table:
    """Of each type that a feature may have; `odd` of the numbers are missing, infinite or too large."""

    def numbers() -> list[float | None]:
        plain = draw.choice([0.0, -0.0, SUBNORMAL, 0.25, *draw.normal(size=9) / 8], size=count)
        strange = draw.random(count) < odd
        return [
            ODD[draw.integers(len(ODD))] if at else one
            for one, at in zip(plain.tolist(), strange, strict=True)
        ]

    def some(values: tuple[Any, ...]) -> list[Any]:
        return [values[at] for at in draw.integers(len(values), size=count)]

    whole = (None, 0, 7, -1, 2**62, 2**53 + 1)
    return pa.table(
        {
            "number": pa.array(draw.choice(PLAIN, size=count)),
            "text": pa.array(some((*TEXTS, "new") if odd else TEXTS), pa.string()),
            "odd": pa.array(numbers(), pa.float64()),
            "single": pa.array(draw.normal(size=count).astype(np.float32)),
            "whole": pa.array(some(whole), pa.int64()),
            "flag": pa.array(some((None, True, False)), pa.bool_()),
            "colour": pa.array(some(("red", "green", None)), pa.string()),
        }
    )


def in_dictionaries(table: pa.Table) -> pa.RecordBatch:
    """As a parquet file has text: what a row group holds, be it in these rows or not."""
    columns = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        plain = column.combine_chunks()
        if pa.types.is_string(field.type):
            plain = pa.concat_arrays([pa.array(["nowhere", "b"]), plain]).dictionary_encode()[2:]
        columns[field.name] = plain
    return pa.RecordBatch.from_pydict(columns)


def through_the_matrix(
    forest: Forest, scaler: SimpleScaler, rows: pa.Table, dtype: type[np.floating[Any]]
) -> NDArray[Any] | None:
    """None where the scaler refuses a value, or makes one that is not finite."""
    try:
        features = scaler.transform(rows, dtype=dtype)
    except DataError:
        return None
    return many_rows(forest, threads=1)(features.array())


@given(
    seed=st.integers(0, 2**32),
    depth=st.integers(0, 8),
    rows=st.integers(1, 700),
    threads=st.integers(1, 3),
    single=st.booleans(),
    strict=st.booleans(),
    odd=st.sampled_from([0.0, 0.001, 0.1]),
    width=st.sampled_from([2, 64]),
    coded=st.booleans(),
)
@settings(max_examples=examples(60), deadline=None)
def test_columns_end_where_their_features_end(
    seed: int,
    depth: int,
    rows: int,
    threads: int,
    single: bool,
    strict: bool,
    odd: float,
    width: int,
    coded: bool,
) -> None:
    draw, dtype = np.random.default_rng(seed), np.float32 if single else np.float64
    learned = rows_of(draw, 200, 0.0)
    scaler = SimpleScaler(max_categories=width)
    scaler.fit(learned, np.zeros(len(learned)))
    values = np.unique(scaler.transform(learned, dtype=dtype).array())
    # Many values lie on thresholds, or on the next number beside them.
    beside = np.nextafter(values, dtype(np.inf))
    some = draw.choice(np.concatenate([values, beside]), size=40)
    forest = random_forest(
        draw,
        trees=9,
        depth=depth,
        width=len(scaler.names),
        kind=dtype,
        strict=strict,
        thresholds=np.concatenate([some, np.repeat([0.0, 1.0], 10)]),
    )
    table = rows_of(draw, rows, odd)
    expected = through_the_matrix(forest, scaler, table, dtype)
    trees = many_columns(forest, scaler, dtype, threads=threads)
    try:
        taken = trees.raw.taken(in_dictionaries(table) if coded else table)
    except DataError:
        assert expected is None
        return
    found = trees(taken, rows)
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert found.tobytes() == expected.tobytes()
        assert taken.unknown == scaler.transform(table, dtype=dtype).unknown


def test_what_a_kernel_does_not_know_is_left_to_the_matrix() -> None:
    draw = np.random.default_rng(3)
    table = rows_of(draw, 200, 0.0)
    plain, grouped = SimpleScaler(), SimpleScaler(criterion_col="text")
    for scaler, depth, words in ((grouped, 3, "by groups"), (plain, 11, "walked")):
        scaler.fit(table, np.zeros(200))
        forest = random_forest(draw, trees=9, depth=depth, width=len(scaler.names))
        with pytest.raises(NotPlannedError, match=words):
            many_columns(forest, scaler, np.float32, threads=1)
