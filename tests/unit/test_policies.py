"""What stands in for a missing feature: the same rules over rows and over batches."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pyarrow as pa
import pytest

from lodestar.core.augmenter import Augmenter
from lodestar.core.filling import BatchPolicies
from lodestar.core.policies import RowPolicies, SettledRow, plain_value, without_nulls
from lodestar.errors import DataError, SchemaError
from lodestar.interface.features import FeatureStoreAdapter, SelectedFeatures
from lodestar.schema import Column, FrameSchema
from lodestar.settings.features import FeatureCatalog, FeatureView

DAY = 86_400_000_000
NOW = 20_000 * DAY
USERS = FeatureView.model_validate(
    {
        "namespace": "users",
        "entity_keys": {"user_id": "string"},
        "source": {"table": "users"},
        "ttl": "10d",
        "features": {
            "age": "int", "ltv": "float", "country": "string", "seen": "timestamp", "vip": "bool",
        },
    }
)  # fmt: skip
SHOPS = FeatureView.model_validate(
    {
        "namespace": "shops",
        "entity_keys": {"shop_id": "int", "region": "string"},
        "source": {"table": "shops"},
        "features": {"size": "float"},
    }
)
NULLABLE = {"age"}
TRAINED = FrameSchema(
    tuple(
        Column(name, feature.type, nullable=name in NULLABLE)
        for view in (USERS, SHOPS)
        for name, feature in view.features.items()
    )
)


def selecting(*features: str, **policies: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"feature_namespace": "users", "features": list(features), "policies": policies}]


def settle(
    row: tuple[Any, ...],
    *features: str,
    trained: FrameSchema | None = TRAINED,
    **policies: Mapping[str, Any],
) -> SettledRow:
    return RowPolicies(selecting(*features, **policies), [USERS], trained).settle(row, NOW)


def test_a_row_that_lacks_nothing_is_taken_as_it_is() -> None:
    row = (NOW, 34, 1.5, "KR")
    assert settle(row, "age", "ltv", "country") == SettledRow((34, 1.5, "KR"))


def test_values_come_in_the_order_of_the_selection_over_all_namespaces() -> None:
    selection = [
        {"feature_namespace": "shops", "features": ["size"]},
        {"feature_namespace": "users", "features": ["country", "age"]},
    ]
    policies = RowPolicies(selection, [SHOPS, USERS], TRAINED)
    assert policies.settle((NOW, 2.5, NOW, "KR", 34), NOW).values == (2.5, "KR", 34)
    assert policies.nothing == (None,) * 5
    found = policies.settle(policies.nothing, NOW)
    assert found == SettledRow(
        (None, None, None), ("size", "country", "age"), (), ("size", "country")
    )


def test_a_single_feature_is_a_row_too() -> None:
    assert settle((NOW, 34), "age").values == (34,)
    assert settle((None, None), "age") == SettledRow((None,), ("age",))


def test_nothing_selected_is_a_row_of_nothing() -> None:
    assert RowPolicies([], [], TRAINED).settle((), NOW) == SettledRow(())


@pytest.mark.parametrize(
    ("policy", "trained", "value", "missing", "refused"),
    [
        ({}, TRAINED, None, "age", ""),
        ({"on_missing": "as_trained"}, TRAINED, None, "age", ""),
        ({"on_missing": "null"}, TRAINED, None, "age", ""),
        ({"on_missing": "error"}, TRAINED, None, "age", "age"),
        ({"on_missing": 0}, TRAINED, 0, "age", ""),
        ({"on_missing": 0}, None, 0, "age", ""),
        ({}, None, None, "age", ""),
        ({"on_missing": "error"}, None, None, "age", "age"),
    ],
)
def test_an_unknown_entity_is_settled_by_the_rule(
    policy: dict[str, Any], trained: FrameSchema | None, value: object, missing: str, refused: str
) -> None:
    found = settle((None, None), "age", trained=trained, age=policy)
    assert found == SettledRow((value,), (missing,), (), (refused,) if refused else ())


@pytest.mark.parametrize("rule", ["as_trained", "null"])
def test_where_training_saw_no_null_a_missing_value_is_refused(rule: str) -> None:
    found = settle((None, None), "country", country={"on_missing": rule})
    assert found.refused == ("country",)


def test_a_feature_that_the_model_does_not_take_may_be_null() -> None:
    found = settle((None, None, None), "age", "country", trained=TRAINED.select(["age"]))
    assert found == SettledRow((None, None), ("age", "country"))


def test_a_null_that_the_store_holds_is_a_value_where_it_stays_and_missing_where_not() -> None:
    assert settle((NOW, None), "age") == SettledRow((None,))
    assert settle((NOW, None), "age", age={"on_missing": 7}) == SettledRow((7,), ("age",))
    assert settle((NOW, None), "age", age={"on_missing": "error"}).refused == ("age",)
    assert settle((NOW, None), "country").refused == ("country",)


def test_nan_is_null() -> None:
    nan = math.nan
    assert settle((NOW, nan), "ltv").refused == ("ltv",)
    assert settle((NOW, nan), "ltv", ltv={"on_missing": 0}) == SettledRow((0.0,), ("ltv",))
    nullable = FrameSchema((Column("ltv", "float", nullable=True),))
    for trained in (nullable, None):
        found = settle((NOW, nan), "ltv", trained=trained)
        assert repr(found.values) == "(nan,)"
        assert found.missing == ()


def test_the_ttl_ends_to_the_microsecond_and_what_is_older_is_unknown() -> None:
    edge = NOW - 10 * DAY
    assert settle((edge, 34), "age").values == (34,)
    assert settle((edge - 1, 34), "age") == SettledRow((None,), ("age",))
    assert settle((edge - 1, 34), "age", age={"on_missing": -1}) == SettledRow((-1,), ("age",))


def test_the_max_age_of_each_feature_ends_to_the_microsecond_and_what_is_older_is_stale() -> None:
    policies = {"age": {"max_age": "2d"}, "country": {"max_age": "3d", "on_missing": "?"}}
    names = ("age", "ltv", "country")
    rows = RowPolicies(selecting(*names, **policies), [USERS], TRAINED)
    two, three = NOW - 2 * DAY, NOW - 3 * DAY
    assert rows.settle((two, 34, 1.5, "KR"), NOW) == SettledRow((34, 1.5, "KR"))
    late = rows.settle((two - 1, 34, 1.5, "KR"), NOW)
    assert late == SettledRow((None, 1.5, "KR"), ("age",), ("age",))
    later = rows.settle((three - 1, 34, 1.5, "KR"), NOW)
    assert later == SettledRow((None, 1.5, "?"), ("age", "country"), ("age", "country"))
    gone = rows.settle((NOW - 10 * DAY - 1, 34, 1.5, "KR"), NOW)
    assert (gone.stale, gone.refused) == ((), ("ltv",))  # past the ttl it is unknown, not stale


def test_a_max_age_beyond_the_ttl_changes_nothing() -> None:
    found = settle((NOW - 10 * DAY - 1, 34), "age", age={"max_age": "99d"})
    assert found == SettledRow((None,), ("age",))


def test_a_value_from_the_future_is_fresh() -> None:
    assert settle((NOW + DAY, 34), "age", age={"max_age": "1us"}).values == (34,)


@pytest.mark.parametrize(
    ("name", "given", "plain"),
    [
        ("ltv", 1, 1.0),
        ("vip", False, False),
        ("seen", "1970-01-02T00:00:00Z", DAY),
        ("seen", "1970-01-01T09:00:00.000001+09:00", 1),
        ("seen", "1969-12-31T23:59:59.999999Z", -1),
        ("country", "", ""),
    ],
)
def test_a_stand_in_is_of_the_features_type(name: str, given: object, plain: object) -> None:
    selection = selecting(name, **{name: {"on_missing": given}})
    (value,) = RowPolicies(selection, [USERS], TRAINED).settle((None, None), NOW).values
    assert (value, type(value)) == (plain, type(plain))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, "int"),
        (1.0, "int"),
        (2**63, "int"),
        ("1", "float"),
        (1, "bool"),
        (1, "string"),
        ("2025-01-01", "timestamp"),
        ("x", "timestamp"),
        (0, "timestamp"),
    ],
)
def test_a_value_of_another_type_cannot_stand_in(value: object, kind: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        plain_value(value, kind)


def test_features_that_may_be_null_by_the_recipe_and_never_were_are_named() -> None:
    selection = selecting(
        "age", "ltv", "country", age={"on_missing": "null"}, ltv={"on_missing": "null"}
    )
    assert without_nulls(selection, TRAINED) == ("ltv",)
    assert without_nulls(selection, TRAINED.select(["age"])) == ()


BATCH = pa.record_batch(
    {
        "user_id": ["a", "b", "c", "d"],
        "age": pa.array([1, None, 3, None], pa.int64()),
        "ltv": pa.array([1.0, math.nan, None, 4.0]),
        "country": ["KR", "DE", "FR", "US"],
        "seen": pa.array([None, 1, 2, 3], pa.timestamp("us", "UTC")),
        "vip": [True, None, False, None],
    }
)


def test_a_batch_is_filled_and_each_value_that_stands_in_is_counted() -> None:
    selection = selecting(
        "age",
        "ltv",
        "country",
        "seen",
        "vip",
        age={"on_missing": 0},
        ltv={"on_missing": 2},
        country={"on_missing": "?"},
        seen={"on_missing": "1970-01-01T00:00:00Z"},
        vip={"on_missing": False},
    )
    filled: dict[str, int] = {}
    for _ in range(2):
        found = BatchPolicies(selection, TRAINED).settled(BATCH, stage="here", filled=filled)
    assert found.schema == BATCH.schema
    assert found.column("age").to_pylist() == [1, 0, 3, 0]
    assert found.column("ltv").to_pylist() == [1.0, 2.0, 2.0, 4.0]
    assert found.column("seen").cast(pa.int64()).to_pylist() == [0, 1, 2, 3]
    assert found.column("vip").to_pylist() == [True, False, False, False]
    assert found.column("country").equals(BATCH.column("country"))
    assert filled == {"age": 4, "ltv": 4, "seen": 2, "vip": 4}


def test_an_error_names_feature_stage_row_and_entity_and_counts_the_rows() -> None:
    policies = BatchPolicies(
        selecting("ltv", ltv={"on_missing": "error"}), TRAINED, {"users": ("user_id",)}
    )
    with pytest.raises(DataError) as caught:
        policies.settled(BATCH, stage="augmenting (batch)", first_row=1_000)
    assert str(caught.value).splitlines()[0] == (
        "augmenting (batch): the feature 'ltv' of users is missing in 2 of 4 rows, first in row 1001 "
        "(user_id='b'): its policy is an error"
    )
    assert caught.value.exit_code == 3


def test_where_training_saw_no_null_a_batch_with_one_is_refused_with_the_reason() -> None:
    with pytest.raises(
        DataError, match=r"'seen' of users is missing in 1 of 4 .*training saw no null"
    ):
        BatchPolicies(selecting("seen"), TRAINED).settled(BATCH, stage="here")


def test_where_training_saw_nulls_or_is_not_over_they_stay() -> None:
    selection = selecting("age", age={"on_missing": "null"})
    for policies in (BatchPolicies(selection, TRAINED), BatchPolicies(selecting("seen"), None)):
        assert policies.idle
        assert policies.settled(BATCH, stage="here") is BATCH


def test_a_value_that_the_column_cannot_take_is_refused() -> None:
    policies = BatchPolicies(selecting("age", age={"on_missing": "none"}), None)
    with pytest.raises(SchemaError, match="'none' cannot stand in for 'age', which is int64"):
        policies.settled(BATCH, stage="here")


def test_rows_that_bring_their_features_are_settled_like_any_others() -> None:
    selection = selecting("age", "country", age={"on_missing": 0})
    filled: dict[str, int] = {}
    rows = pa.Table.from_batches([BATCH, BATCH])
    with Augmenter(selection, TRAINED).augment(rows.to_reader(), filled=filled) as passed:
        found = passed.read_all()
    assert found["age"].to_pylist() == [1, 0, 3, 0] * 2
    assert filled == {"age": 4}
    assert Augmenter(selection, TRAINED).settled(BATCH).column("age").to_pylist() == [1, 0, 3, 0]


def test_a_text_stands_in_where_a_frame_of_one_row_says_nothing_of_the_type() -> None:
    row = pa.record_batch(
        {"age": pa.array([None], pa.float64()), "country": pa.nulls(1, pa.float64())}
    )
    selection = selecting("age", "country", country={"on_missing": "?"})
    assert Augmenter(selection, TRAINED).settled(row).to_pylist() == [{"age": None, "country": "?"}]


def test_an_error_in_a_later_batch_names_the_row_of_the_whole() -> None:
    whole = BATCH.set_column(1, "age", pa.array([1, 2, 3, 4]))
    rows = pa.Table.from_batches([whole, whole, BATCH])
    augmenter = Augmenter(selecting("age", age={"on_missing": "error"}))
    with augmenter.augment(rows.to_reader()) as passed, pytest.raises(DataError, match="in row 9:"):
        passed.read_all()


def test_training_leaves_nulls_and_fills_values_as_scoring_will() -> None:
    selection = selecting("age", "vip", vip={"on_missing": False})
    with Augmenter(selection).augment(pa.Table.from_batches([BATCH]).to_reader()) as passed:
        found = passed.read_all()
    assert found["age"].null_count == 2
    assert found["vip"].null_count == 0


class Ages:
    """A feature store whose every value is the ttl that it was asked with, in days."""

    @contextmanager
    def historical(
        self, spine: pa.RecordBatchReader, selection: Sequence[SelectedFeatures], *, timestamp: str
    ) -> Iterator[pa.RecordBatchReader]:
        table = spine.read_all()
        for one in selection:
            for name in one.features:
                days = None if one.view.ttl is None else one.view.ttl.days
                table = table.append_column(name, pa.array([days] * len(table), pa.int64()))
        yield table.to_reader()


def test_features_of_different_max_age_are_joined_each_by_its_own_and_in_the_order_selected() -> (
    None
):
    catalog = FeatureCatalog({"users": USERS})
    policies = {"age": {"max_age": "2d"}, "vip": {"max_age": "99d"}, "seen": {"max_age": "2d"}}
    selection = selecting("age", "ltv", "vip", "seen", "country", **policies)
    store = cast("FeatureStoreAdapter", Ages())
    augmenter = Augmenter(selection).bound(store, catalog, timestamp="at")
    with augmenter.augment(pa.table({"at": [1, 2]}).to_reader()) as rows:
        joined = rows.read_all()
    assert joined.to_pylist()[1] == {
        "at": 2, "age": 2, "ltv": 10, "vip": 10, "seen": 2, "country": 10,
    }  # fmt: skip
    assert joined.column_names == ["at", "age", "ltv", "vip", "seen", "country"]
