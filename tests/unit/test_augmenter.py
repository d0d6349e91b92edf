"""One augmenter: rows pass through where no feature store is bound, and are joined where one is."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from lodestar.core.augmenter import Augmenter, RunMode
from lodestar.errors import SchemaError, UsageError
from lodestar.interface.features import OnlineRows, SelectedFeatures
from lodestar.interface.progress import Progress
from lodestar.settings.features import FeatureCatalog, FeatureView

SELECTION = [
    {"feature_namespace": "user_demographics", "features": ["age", "country_code"]},
    {"feature_namespace": "product_details", "features": ["price"]},
]
ROWS = pa.table({"user_id": [2, 1, 2], "age": [1, 2, 3], "country_code": ["KR"] * 3})
KEYS = pa.table({"user_id": [2, 1, 2], "product_id": [7, 7, 8]})
NOW = datetime(2025, 3, 1, tzinfo=UTC)


def view(namespace: str, key: str, features: dict[str, str]) -> FeatureView:
    return FeatureView.model_validate(
        {
            "namespace": namespace,
            "entity_keys": {key: "int"},
            "source": {"table": namespace},
            "features": features,
        }
    )


CATALOG = FeatureCatalog(
    {
        "user_demographics": view(
            "user_demographics", "user_id", {"age": "int", "country_code": "string"}
        ),
        "product_details": view("product_details", "product_id", {"price": "float"}),
    }
)


class Prices:
    """A feature store that knows one price, another in the past than now."""

    asked_at: datetime | None = None

    @contextmanager
    def historical(
        self, spine: pa.RecordBatchReader, selection: Sequence[SelectedFeatures], *, timestamp: str
    ) -> Iterator[pa.RecordBatchReader]:
        assert timestamp == "at"
        yield self._with(spine.read_all(), 1.0).to_reader()

    def online(
        self,
        keys: pa.RecordBatch,
        selection: Sequence[SelectedFeatures],
        *,
        now: datetime | None = None,
    ) -> OnlineRows:
        self.asked_at = now
        table = self._with(pa.table(keys), 2.0).select(["age", "country_code", "price"])
        return OnlineRows(table.combine_chunks().to_batches()[0], {})

    def materialize(
        self, view: FeatureView, *, until: datetime, since: datetime | None = None, tell: Progress
    ) -> int:
        raise AssertionError("nobody asked for it")

    @staticmethod
    def _with(rows: pa.Table, price: float) -> pa.Table:
        count = rows.num_rows
        found = {"age": [30] * count, "country_code": ["KR"] * count, "price": [price] * count}
        for name, values in found.items():
            rows = rows.append_column(name, pa.array(values))
        return rows


def bound() -> tuple[Augmenter, Prices]:
    store = Prices()
    return Augmenter(SELECTION).bound(store, CATALOG, timestamp="at"), store


def test_rows_that_bring_their_features_pass_through_as_they_are() -> None:
    rows = ROWS.append_column("price", pa.array([1.0, 2.0, 3.0]))
    for augmenter in (Augmenter(SELECTION), bound()[0]):
        modes: tuple[RunMode, ...] = ("batch", "serving")
        for run_mode in modes:
            with augmenter.augment(rows.to_reader(), run_mode=run_mode) as passed:
                assert passed.read_all().equals(rows)


def test_a_recipe_without_features_takes_any_rows() -> None:
    with Augmenter().augment(ROWS.to_reader()) as passed:
        assert passed.read_all().equals(ROWS)


def test_features_that_are_missing_are_named_with_a_way_on() -> None:
    with (
        pytest.raises(SchemaError, match="lack the features price, and") as caught,
        Augmenter(SELECTION).augment(ROWS.to_reader()),
    ):
        pass
    assert "data/snapshots" in str(caught.value)
    with pytest.raises(SchemaError, match="age, country_code, price"):
        Augmenter(SELECTION).check(ROWS.select(["user_id"]).schema)


def test_rows_without_a_single_row_are_checked_like_any_others() -> None:
    with (
        pytest.raises(SchemaError, match="price"),
        Augmenter(SELECTION).augment(ROWS.slice(0, 0).to_reader()),
    ):
        pass


def test_a_batch_gets_the_features_of_the_past() -> None:
    augmenter, store = bound()
    with augmenter.augment(KEYS.to_reader()) as rows:
        joined = rows.read_all()
    assert joined.column_names == ["user_id", "product_id", "age", "country_code", "price"]
    assert joined["price"].to_pylist() == [1.0] * 3
    assert store.asked_at is None


def test_serving_gets_those_of_now_in_the_order_selected() -> None:
    augmenter, store = bound()
    with augmenter.augment(KEYS.to_reader(), run_mode="serving", now=NOW) as rows:
        present = rows.read_all()
    assert present.column_names == ["user_id", "product_id", "age", "country_code", "price"]
    assert present["price"].to_pylist() == [2.0] * 3
    assert store.asked_at == NOW


def test_what_is_not_declared_cannot_be_bound() -> None:
    wrong = Augmenter([{"feature_namespace": "user_demographics", "features": ["agee"]}])
    with pytest.raises(UsageError, match="agee"):
        wrong.bound(Prices(), CATALOG, timestamp="at")
