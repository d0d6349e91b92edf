"""The shop: its training set is joined as things were known, and its effect is the one stated."""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.examples import examples

from lodestar.errors import UsageError
from lodestar.samples.shop import _rows, true_uplift, write_shop

FEATURES = {
    "user_demographics": ("user_id", ["age", "country_code"]),
    "user_purchase_summary": ("user_id", ["ltv", "total_purchase_count"]),
    "product_details": ("product_id", ["price", "category", "brand"]),
    "session_summary": ("session_id", ["time_on_page_seconds", "click_count"]),
}
SPINE = ["user_id", "product_id", "session_id", "event_timestamp", "grp", "outcome"]
SNAPSHOT = "snapshots/uplift_model_exp3"

Row = dict[str, Any]


def rows(root: Path, name: str) -> list[Row]:
    listed: list[Row] = pq.read_table(root / f"{name}.parquet").to_pylist()
    return listed


def oracle(versions: list[Row], key: str, entity: str, at: datetime) -> Row:
    """The definition itself: of what was true and had arrived, the latest."""
    known = [
        version
        for version in versions
        if version[key] == entity
        and version["event_timestamp"] <= at
        and version["created_timestamp"] <= at
    ]
    by_time = sorted(known, key=lambda v: (v["event_timestamp"], v["created_timestamp"]))
    return by_time[-1] if by_time else {}


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sessions=st.integers(1, 80), users=st.integers(1, 12))
def test_every_feature_of_the_training_set_is_the_latest_that_had_arrived(
    tmp_path_factory: pytest.TempPathFactory, seed: int, sessions: int, users: int
) -> None:
    root = tmp_path_factory.mktemp("shop")
    write_shop(root, sessions=sessions, users=users, products=5, seed=seed)
    training = rows(root, SNAPSHOT)
    spine = rows(root, "sessions")
    assert [{name: row[name] for name in SPINE} for row in training] == spine
    for table, (key, names) in FEATURES.items():
        versions = rows(root, table)
        for row in training:
            expected = oracle(versions, key, row[key], row["event_timestamp"])
            assert {n: row[n] for n in names} == {n: expected.get(n) for n in names}


moments = st.integers(0, 12)
versions_of_two_keys = st.lists(
    st.tuples(st.sampled_from("ab"), moments, moments), max_size=30, unique=True
)


@settings(max_examples=examples(60), deadline=None)
@given(versions=versions_of_two_keys, asked=st.lists(st.tuples(st.sampled_from("abc"), moments)))
def test_the_join_is_exact_on_ties_restatements_and_rows_that_arrive_before_their_event(
    versions: list[tuple[str, int, int]], asked: list[tuple[str, int]]
) -> None:
    time = pa.timestamp("us", tz="UTC")
    feature = pa.table(
        {
            "id": pa.array([key for key, _, _ in versions], pa.string()),
            "event_timestamp": pa.array([event for _, event, _ in versions], time),
            "created_timestamp": pa.array([created for _, _, created in versions], time),
        }
    )
    spine = pa.table(
        {
            "id": pa.array([key for key, _ in asked], pa.string()),
            "event_timestamp": pa.array([at for _, at in asked], time),
        }
    )
    expected = []
    for key, at in asked:
        known = [
            (event, created, row)
            for row, (of, event, created) in enumerate(versions)
            if of == key and max(event, created) <= at
        ]
        expected.append(max(known)[2] if known else None)
    assert _rows(spine, feature).to_pylist() == expected


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("default_shop")
    write_shop(root)
    return root


@pytest.fixture(scope="module")
def training(shop: Path) -> pd.DataFrame:
    return pd.read_parquet(shop / f"{SNAPSHOT}.parquet")


def test_the_same_seed_writes_the_same_bytes_and_another_seed_other_ones(tmp_path: Path) -> None:
    sizes = {"sessions": 500, "users": 50, "products": 20}
    first = write_shop(tmp_path / "first", **sizes, seed=1)
    again = write_shop(tmp_path / "again", **sizes, seed=1)
    other = write_shop(tmp_path / "other", **sizes, seed=2)
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]
    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(first, other, strict=True))


def test_the_smallest_shop_is_a_shop(tmp_path: Path) -> None:
    write_shop(tmp_path, sessions=1, users=1, products=1, seed=0)
    assert len(rows(tmp_path, SNAPSHOT)) == 1


@pytest.mark.parametrize("wrong", [{"sessions": 0}, {"users": 0}, {"products": 0}, {"seed": -1}])
def test_sizes_that_make_no_shop_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least"):
        write_shop(tmp_path, **wrong)
    assert not any(tmp_path.iterdir())


def test_every_version_arrives_within_six_hours_and_some_are_restated(shop: Path) -> None:
    for table, (key, _) in FEATURES.items():
        frame = pd.read_parquet(shop / f"{table}.parquet")
        lag = frame["created_timestamp"] - frame["event_timestamp"]
        assert lag.min() >= pd.Timedelta(0)
        assert pd.Timedelta(hours=5) < lag.max() <= pd.Timedelta(hours=6)
        assert frame.duplicated([key, "event_timestamp"]).any()
        assert not frame.duplicated([key, "event_timestamp", "created_timestamp"]).any()


def test_ids_are_text_times_are_utc_and_unknown_values_are_null(
    shop: Path, training: pd.DataFrame
) -> None:
    schema = pq.read_schema(shop / "sessions.parquet")
    assert schema.field("event_timestamp").type == pa.timestamp("us", tz="UTC")
    assert {str(schema.field(n).type) for n in ("user_id", "product_id", "session_id")} == {
        "string"
    }
    assert training["session_id"].is_unique
    assert training["session_id"].str.startswith("sess-").all()
    unknown = training.isna().mean()
    assert 0.01 < unknown["age"] < 0.06
    assert 0.05 < unknown["click_count"] < 0.15
    assert unknown[["ltv", "price", "country_code", "outcome"]].eq(0).all()


def test_each_won_session_is_a_purchase(shop: Path) -> None:
    sessions = pd.read_parquet(shop / "sessions.parquet")
    purchases = pd.read_parquet(shop / "purchases.parquet")
    won = sessions.loc[sessions["outcome"] == 1, "session_id"]
    assert sorted(purchases["session_id"].dropna()) == sorted(won)
    assert purchases["session_id"].isna().any()


def test_a_user_s_summary_counts_the_purchases_outside_of_the_experiment(shop: Path) -> None:
    purchases = pd.read_parquet(shop / "purchases.parquet")
    outside = purchases[purchases["session_id"].isna()].groupby("user_id")["amount"]
    summary = pd.read_parquet(shop / "user_purchase_summary.parquet").groupby("user_id").max()
    bought = summary[summary["total_purchase_count"] > 0]
    assert bought["total_purchase_count"].to_dict() == outside.count().to_dict()
    assert np.allclose(bought["ltv"], outside.sum(), atol=0.01)


def test_a_join_that_ignores_arrival_would_differ(shop: Path, training: pd.DataFrame) -> None:
    summary = pd.read_parquet(shop / "session_summary.parquet")
    spine = training[["session_id", "event_timestamp"]].rename(columns={"event_timestamp": "at"})
    leaky = summary.merge(spine, on="session_id").query("event_timestamp <= at")
    assert set(leaky["session_id"]) == set(training["session_id"])
    assert training["click_count"].isna().sum() > 1000


def test_the_effect_is_what_its_docstring_says() -> None:
    frame = pd.DataFrame({"age": [18, 18, 80, np.nan], "price": [5.0, 300.0, 5.0, np.nan]})
    effect = true_uplift(frame)
    assert effect.dtype == np.float64
    assert effect[:3] == pytest.approx([0.245, -0.05, -0.05], abs=0.005)
    assert effect[3] == true_uplift(pd.DataFrame({"age": [45], "price": [70.0]}))[0]


def test_treated_sessions_gain_the_stated_effect_where_it_is_high_and_where_it_is_low(
    tmp_path: Path,
) -> None:
    write_shop(tmp_path, sessions=200_000, users=20_000, products=2_000)
    frame = pd.read_parquet(tmp_path / f"{SNAPSHOT}.parquet")
    treated = frame["grp"] == "treatment"
    assert treated.mean() == pytest.approx(0.5, abs=0.005)
    effect = true_uplift(frame)
    for low, high in ((-0.06, -0.04), (-0.04, 0.05), (0.05, 0.15), (0.15, 0.26)):
        within = (effect > low) & (effect <= high)
        gain = frame.loc[within & treated, "outcome"].mean()
        gain -= frame.loc[within & ~treated, "outcome"].mean()
        error = np.sqrt(1.0 / within.sum())  # four times sqrt(p(1-p)/n) of two halves, p about 0.1
        assert gain == pytest.approx(effect[within].mean(), abs=2 * error)


def test_a_two_model_learner_finds_the_effect_in_12_000_rows(training: pd.DataFrame) -> None:
    from xgboost import XGBRegressor

    texts = ["country_code", "category", "brand"]
    numbers = ["age", "ltv", "total_purchase_count", "price", "time_on_page_seconds", "click_count"]
    codes = training[texts].apply(lambda column: column.astype("category").cat.codes)
    features = pd.concat([training[numbers], codes], axis="columns").to_numpy(np.float64)
    order = np.random.default_rng(0).permutation(len(training))
    train, test = order[:12_000], order[16_000:]
    treated = training["grp"].to_numpy() == "treatment"
    outcome = training["outcome"].to_numpy()
    predicted = []
    for group in (True, False):
        mine = train[treated[train] == group]
        model = XGBRegressor(max_depth=3, learning_rate=0.1, n_jobs=1, random_state=0)
        predicted.append(model.fit(features[mine], outcome[mine]).predict(features[test]))
    truth = pd.Series(true_uplift(training)[test])
    assert truth.corr(pd.Series(predicted[0] - predicted[1]), method="spearman") > 0.7
