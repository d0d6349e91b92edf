"""Scaling and encoding, held against scikit-learn's; and any transformer by class path."""

import json
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

from lodestar.core.preprocessor import SimpleScaler, TransformerPreprocessor
from lodestar.errors import DataError, SchemaError

NO_TARGET = np.zeros(0)


def fitted(columns: dict[str, Any], **options: Any) -> SimpleScaler:  # noqa: ANN401 -- any column
    scaler = SimpleScaler(**options)
    scaler.fit(pa.table(columns), NO_TARGET)
    return scaler


def transformed(scaler: SimpleScaler, columns: dict[str, Any]) -> NDArray[np.float64]:
    return scaler.transform(pa.table(columns), dtype=np.float64).array()


def people(rows: int = 500) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "age": rng.integers(18, 90, rows),
        "income": rng.lognormal(10, 1, rows),
        "city": rng.choice(["Seoul", "Busan", "Jeju"], rows, p=[0.6, 0.3, 0.1]).tolist(),
        "member": rng.random(rows) < 0.5,
    }


def test_numbers_are_scaled_as_scikit_learns_standard_scaler_scales_them() -> None:
    rows, others = people(), people(50)
    numeric = ["age", "income", "member"]
    ours = transformed(fitted({name: rows[name] for name in numeric}), others)
    frame = pd.DataFrame(rows)[numeric].astype(float)
    theirs = StandardScaler().fit(frame).transform(pd.DataFrame(others)[numeric].astype(float))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_categories_are_encoded_as_scikit_learns_one_hot_encoder_encodes_them() -> None:
    rows, others = people(), people(50)
    scaler = fitted({"city": rows["city"]})
    ours = scaler.transform(pa.table({"city": others["city"]}), dtype=np.float64)
    encoder = OneHotEncoder(sparse_output=False).fit(pd.DataFrame({"city": rows["city"]}))
    theirs = pd.DataFrame(
        encoder.transform(pd.DataFrame({"city": others["city"]})),
        columns=[name.replace("city_", "city=") for name in encoder.get_feature_names_out()],
    )
    for name in theirs:
        assert ours.frame()[name].tolist() == theirs[name].tolist()
    assert ours.names == ("city=Seoul", "city=Busan", "city=Jeju", "city=(null)", "city=(other)")
    assert ours.array().sum(axis=1).tolist() == [1.0] * 50


def test_a_missing_number_becomes_the_mean() -> None:
    scaler = fitted({"a": [1.0, 3.0, None, float("nan")]})
    assert transformed(scaler, {"a": [2.0, None, float("nan"), 3.0]}).ravel().tolist() == [
        0,
        0,
        0,
        1,
    ]


def test_whole_numbers_with_nulls_and_flags_are_numbers() -> None:
    scaler = fitted({"n": pa.array([1, 3, None]), "f": pa.array([True, False, None])})
    given = {"n": pa.array([None, 3]), "f": pa.array([True, None])}
    assert transformed(scaler, given).tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_whole_numbers_beyond_what_floats_hold_exactly_are_rounded() -> None:
    scaler = fitted({"hash": [2**62 + 1, -(2**62) - 1]})
    assert transformed(scaler, {"hash": [2**62 + 1, 0]}).ravel().tolist() == [1.0, 0.0]


@pytest.mark.parametrize("value", [0.1, 0.0, 1e15 + 0.3, -7.7])
def test_a_constant_column_is_centred_and_never_divided_by_rounding_error(value: float) -> None:
    scaler = fitted({"a": [value] * 7})
    assert abs(transformed(scaler, {"a": [value]})[0, 0]) < 1
    shifted = transformed(scaler, {"a": [value + 1]})[0, 0]
    assert shifted == pytest.approx(1, abs=0.2)


def test_an_unknown_category_is_counted_and_a_null_is_not_one() -> None:
    scaler = fitted({"city": ["x", "y", None, "x"], "n": [1, 2, 3, 4]})
    made = scaler.transform(
        pa.table({"city": ["x", "z", None, "w", "y"], "n": [1] * 5}), dtype=np.float64
    )
    assert dict(made.unknown) == {"city": 2}
    encoded = made.frame()
    assert encoded["city=(other)"].tolist() == [0, 1, 0, 1, 0]
    assert encoded["city=(null)"].tolist() == [0, 0, 1, 0, 0]
    assert encoded["city=x"].tolist() == [1, 0, 0, 0, 0]


def test_rare_categories_share_a_column_with_the_unknown_ones() -> None:
    scaler = fitted({"c": ["a"] * 3 + ["b"] * 2 + ["d", "c"]}, max_categories=3)
    assert scaler.names == ("c=a", "c=b", "c=c", "c=(null)", "c=(other)")
    assert transformed(scaler, {"c": ["d", "new"]})[:, -1].tolist() == [1.0, 1.0]


def test_groups_are_scaled_by_themselves_and_an_unseen_one_by_all_rows() -> None:
    rows = {"shop": ["a", "a", "b", "b"], "sales": [1.0, 3.0, 100.0, 300.0]}
    scaler = fitted(rows, criterion_col="shop", exclude_cols=("shop",))
    assert scaler.names == ("sales",)
    given = {"shop": ["a", "b", "new", None], "sales": [3.0, 300.0, 101.0, 101.0]}
    made = transformed(scaler, given).ravel()
    assert made[:2].tolist() == [1.0, 1.0]
    total = np.array(rows["sales"])
    expected = (101.0 - total.mean()) / total.std()
    np.testing.assert_allclose(made[2:], [expected, expected])


def test_a_group_without_a_value_takes_that_of_all_rows() -> None:
    scaler = fitted(
        {"shop": ["a", "a", "b"], "sales": [1.0, 3.0, None]},
        criterion_col="shop",
        exclude_cols=("shop",),
    )
    assert transformed(scaler, {"shop": ["b"], "sales": [3.0]}).item() == 1.0


def test_a_number_can_be_the_criterion() -> None:
    scaler = fitted({"k": [1, 1, 2, 2], "v": [0.0, 2.0, 10.0, 30.0]}, criterion_col="k")
    assert transformed(scaler, {"k": [1, 2], "v": [2.0, 30.0]})[:, 1].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "column", [pa.nulls(3, pa.float64()), pa.nulls(3, pa.string()), pa.array([float("nan")] * 3)]
)
def test_a_column_without_any_value_is_refused(column: pa.Array) -> None:
    with pytest.raises(DataError, match="column 'empty' has no value at all"):
        fitted({"empty": column, "n": [1, 2, 3]})


@pytest.mark.parametrize("value", [datetime(2025, 1, 1, tzinfo=UTC), date(2025, 1, 1)])
def test_a_time_is_no_feature_as_it_is(value: date) -> None:
    with pytest.raises(SchemaError, match=r"'when' is a .* and no feature") as caught:
        fitted({"when": [value], "n": [1]})
    assert "exclude_cols" in str(caught.value)
    assert fitted({"when": [value], "n": [1]}, exclude_cols=("when",)).names == ("n",)


def test_excluding_everything_is_refused() -> None:
    with pytest.raises(SchemaError, match="no feature is left"):
        fitted({"a": [1]}, exclude_cols=("a",))


def test_columns_are_found_by_name_and_others_ignored() -> None:
    rows = people()
    scaler = fitted(rows)
    reordered = {name: rows[name] for name in reversed(rows)} | {"new": [1] * 500}
    assert np.array_equal(transformed(scaler, rows), transformed(scaler, reordered))


def test_the_given_rows_are_never_changed() -> None:
    table = pa.table({"a": np.array([1.0, np.nan, 3.0])})
    before = pa.table({"a": np.array([1.0, np.nan, 3.0])})
    scaler = SimpleScaler()
    scaler.fit(table, NO_TARGET)
    scaler.transform(table, dtype=np.float64)
    assert np.array_equal(table["a"].to_numpy(), before["a"].to_numpy(), equal_nan=True)


def test_what_was_learned_survives_json_bit_for_bit() -> None:
    rows = people()
    scaler = fitted(rows, criterion_col="city", max_categories=2)
    back = SimpleScaler.from_json(json.loads(json.dumps(scaler.to_json())))
    assert back.names == scaler.names
    one, other = transformed(scaler, rows), transformed(back, rows)
    assert one.tobytes() == other.tobytes()
    assert json.dumps(back.to_json()) == json.dumps(scaler.to_json())


def test_no_rows_make_no_features_but_all_columns() -> None:
    scaler = fitted(people())
    empty = pa.table(people()).slice(0, 0)
    assert scaler.transform(empty, dtype=np.float32).array().shape == (0, len(scaler.names))


def test_a_record_batch_and_a_table_of_chunks_give_the_same() -> None:
    table = pa.table(people())
    scaler = fitted(people(), criterion_col="city")
    chunked = pa.concat_tables([table.slice(0, 3), table.slice(3, 300), table.slice(303)])
    (batch,) = table.to_batches()
    whole = scaler.transform(table, dtype=np.float64).array()
    for rows in (chunked, batch):
        assert scaler.transform(rows, dtype=np.float64).array().tobytes() == whole.tobytes()


def test_any_transformer_is_taken() -> None:
    rows = {"a": [0.0, 5.0, 10.0], "b": [1, 2, 3]}
    preprocessor = TransformerPreprocessor(MinMaxScaler())
    preprocessor.fit(pa.table(rows), NO_TARGET)
    made = preprocessor.transform(pa.table(rows), dtype=np.float32)
    assert made.names == ("a", "b")
    assert made.array().tolist() == [[0, 0], [0.5, 0.5], [1, 1]]


def test_sparse_features_are_made_dense() -> None:
    rows = {"c": ["x", "y", "x"]}
    preprocessor = TransformerPreprocessor(OneHotEncoder(sparse_output=True))
    preprocessor.fit(pa.table(rows), NO_TARGET)
    made = preprocessor.transform(pa.table(rows), dtype=np.float32)
    assert made.array().tolist() == [[1, 0], [0, 1], [1, 0]]
    assert made.names == ("c_x", "c_y")


def test_a_transformer_that_makes_a_frame_keeps_its_names_and_types() -> None:
    rows = {"a": [0.0, 10.0], "c": ["x", "y"]}
    inner = ColumnTransformer([("n", MinMaxScaler(), ["a"])], remainder="passthrough")
    preprocessor = TransformerPreprocessor(inner.set_output(transform="pandas"))
    preprocessor.fit(pa.table(rows), NO_TARGET)
    made = preprocessor.transform(pa.table(rows), dtype=np.float32)
    assert made.names == ("n__a", "remainder__c")
    assert made.frame()["remainder__c"].tolist() == ["x", "y"]


class Summing:
    """A transformer that returns one number for all rows, which no preprocessor may."""

    def fit(self, frame: pd.DataFrame, target: NDArray[Any]) -> None:
        del frame, target

    def transform(self, frame: pd.DataFrame) -> Any:  # noqa: ANN401 -- wrong on purpose
        return frame.sum().to_numpy()


class Nameless(Summing):
    def transform(self, frame: pd.DataFrame) -> NDArray[Any]:
        return frame.to_numpy()


def test_a_transformer_that_does_not_return_rows_is_an_error() -> None:
    preprocessor = TransformerPreprocessor(Summing())
    with pytest.raises(DataError, match=r"Summing\.transform returned the shape \(1,\)"):
        preprocessor.transform(pa.table({"a": [1, 2]}), dtype=np.float32)


def test_features_without_names_get_numbers() -> None:
    made = TransformerPreprocessor(Nameless()).transform(
        pa.table({"a": [1], "b": [2]}), dtype=np.float32
    )
    assert made.names == ("f0", "f1")
