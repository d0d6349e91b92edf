import pyarrow as pa
import pytest

from lodestar.core.augmenter import Augmenter
from lodestar.errors import SchemaError

SELECTION = [
    {"feature_namespace": "user_demographics", "features": ["age", "country_code"]},
    {"feature_namespace": "product_details", "features": ["price"]},
]
ROWS = pa.record_batch({"user_id": [2, 1, 2], "age": [1, 2, 3], "country_code": ["KR"] * 3})


def test_rows_that_bring_their_features_pass_through_as_they_are() -> None:
    rows = ROWS.append_column("price", pa.array([1.0, 2.0, 3.0]))
    assert Augmenter(SELECTION).augment(rows) is rows
    assert Augmenter(SELECTION).augment(rows, run_mode="serving") is rows


def test_a_recipe_without_features_takes_any_rows() -> None:
    assert Augmenter().augment(ROWS) is ROWS


def test_features_that_are_missing_are_named_with_a_way_on() -> None:
    with pytest.raises(SchemaError, match="lack the features price, and") as caught:
        Augmenter(SELECTION).augment(ROWS)
    assert "data/snapshots" in str(caught.value)
    with pytest.raises(SchemaError, match="age, country_code, price"):
        Augmenter(SELECTION).check(ROWS.select(["user_id"]).schema)


def test_an_empty_batch_is_checked_like_any_other() -> None:
    with pytest.raises(SchemaError, match="price"):
        Augmenter(SELECTION).augment(ROWS.slice(0, 0))
