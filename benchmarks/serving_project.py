"""The project that is served: seeded rows, a recipe of 300 trees, an online store filled with them.

20,000 sessions of 5,000 users and 500 products; each entity has one version of its features, so that
the rows trained on, the rows scored as a batch and the online store hold the same values. What is here
runs in processes of its own.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feature_data import BRANDS, CATEGORIES, COUNTRIES
from pydantic import SecretStr

from lodestar.adapters.feast.config import repo_config
from lodestar.adapters.feast.repository import FeastOnlineStore, FeastRepository, FeastStores
from lodestar.adapters.redis.provider import RedisConnection, RedisOnlineStore
from lodestar.settings.features import load_features

__all__ = ["CHILDREN"]

SEED = 20_250_713
SESSIONS, USERS, PRODUCTS = 20_000, 5_000, 500
ASKED, CHECKED = 5_000, 500
NOON = datetime(2025, 3, 30, 12, tzinfo=UTC)
KEYS = ("user_id", "product_id", "session_id")
NUMBERS = ("age", "ltv", "total_purchase_count", "price", "time_on_page_seconds", "click_count")
TEXTS = ("country_code", "category", "brand")

SESSION = re.compile(r"sess-\d+")


def make() -> None:
    """Write the tables, the snapshot that `train` reads, and the requests of every way."""
    draw = np.random.default_rng(SEED)
    tables = _tables(draw)
    spine = pd.DataFrame(
        {
            "user_id": _ids("user", USERS)[draw.integers(0, USERS, SESSIONS)],
            "product_id": _ids("prod", PRODUCTS)[draw.integers(0, PRODUCTS, SESSIONS)],
            "session_id": _ids("sess", SESSIONS),
            "event_timestamp": pd.Timestamp(NOON),
        }
    )
    joined = spine
    for table in tables.values():
        joined = joined.merge(table, how="left", on=table.columns[0], validate="many_to_one")
    outcome = _outcome(joined, draw)
    for name, table in tables.items():
        times = {"event_timestamp": pd.Timestamp(NOON), "created_timestamp": pd.Timestamp(NOON)}
        table.assign(**times).to_parquet(f"data/{name}.parquet", index=False)
    spine.assign(outcome=outcome).to_parquet("data/sessions.parquet", index=False)
    Path("data/snapshots").mkdir()
    joined.assign(outcome=outcome).to_parquet("data/snapshots/offer.parquet", index=False)
    _write_requests(joined, draw)


def _tables(draw: np.random.Generator) -> dict[str, pd.DataFrame]:
    age = pd.Series(draw.integers(18, 91, USERS), dtype="Int64").mask(draw.random(USERS) < 0.03)
    users, products, sessions = (
        _ids(name, count)
        for name, count in (("user", USERS), ("prod", PRODUCTS), ("sess", SESSIONS))
    )
    return {
        "user_demographics": pd.DataFrame(
            {"user_id": users, "age": age, "country_code": draw.choice(COUNTRIES, USERS)}
        ),
        "user_purchase_summary": pd.DataFrame(
            {
                "user_id": users,
                "ltv": np.round(draw.gamma(2.0, 120.0, USERS), 2),
                "total_purchase_count": draw.integers(0, 30, USERS),
            }
        ),
        "product_details": pd.DataFrame(
            {
                "product_id": products,
                "price": np.round(draw.gamma(2.0, 30.0, PRODUCTS), 2),
                "category": draw.choice(CATEGORIES, PRODUCTS),
                "brand": draw.choice(BRANDS, PRODUCTS),
            }
        ),
        "session_summary": pd.DataFrame(
            {
                "session_id": sessions,
                "time_on_page_seconds": np.round(draw.gamma(2.0, 60.0, SESSIONS), 2),
                "click_count": draw.integers(1, 40, SESSIONS),
            }
        ),
    }


def _ids(name: str, count: int) -> Any:  # noqa: ANN401 -- a numpy array of text
    return np.array([f"{name}-{number:07d}" for number in range(count)])


def _outcome(rows: pd.DataFrame, draw: np.random.Generator) -> Any:  # noqa: ANN401 -- a numpy array
    """Interactions and noise, so that 300 trees of depth 6 all find something to split."""
    age = rows["age"].astype("float64").fillna(45.0)
    score = (
        0.08 * (rows["click_count"] - 20)
        - 0.02 * (rows["price"] - 60)
        + 0.004 * (rows["time_on_page_seconds"] - 120) * (age < 40)
        + 0.5 * np.sin(age / 7) * rows["category"].isin(CATEGORIES[:3])
        + 0.002 * (rows["ltv"] - 240) * rows["country_code"].isin(COUNTRIES[:4])
    )
    return (score + draw.logistic(size=len(rows)) > 0).astype(np.int64)


def _write_requests(rows: pd.DataFrame, draw: np.random.Generator) -> None:
    """Bodies with the keys, and bodies with the features for a server that has no online store."""
    asked = rows.iloc[draw.permutation(len(rows))[:ASKED]]
    keys: list[dict[str, str]] = json.loads(asked[list(KEYS)].to_json(orient="records"))
    # MLflow's server takes no time with a zone, which the model does not need, and no null in a column
    # of whole numbers.
    whole = asked[asked["age"].notna()].drop(columns="event_timestamp").to_json(orient="records")
    parts: Mapping[str, list[dict[str, Any]]] = {
        "keys": keys,
        "frame": [{"dataframe_records": [row]} for row in json.loads(whole)],
        "v2": [_inference_request(row) for row in keys],
    }
    for name, bodies in parts.items():
        lines = [json.dumps(body, separators=(",", ":")) for body in bodies]
        Path(f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        checked = "\n".join(lines[:CHECKED]) + "\n"
        Path(f"{name}_checked.jsonl").write_text(checked, encoding="utf-8")


def _inference_request(row: Mapping[str, str]) -> dict[str, Any]:
    """One row in the Open Inference Protocol."""
    inputs = [
        {"name": key, "shape": [1], "datatype": "BYTES", "data": [value]}
        for key, value in row.items()
    ]
    return {"inputs": inputs}


def train_peer() -> None:
    """Fit the pipeline that one would write without Lodestar, and note what it says of each row."""
    import joblib
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from xgboost import XGBClassifier

    rows = pd.read_parquet("data/snapshots/offer.parquet")
    scaler = ColumnTransformer(
        [
            ("numbers", StandardScaler(), list(NUMBERS)),
            ("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), list(TEXTS)),
        ]
    )
    trees = XGBClassifier(n_estimators=300, max_depth=6, learning_rate=0.1)
    features = rows[[*NUMBERS, *TEXTS]].astype(dict.fromkeys(NUMBERS, "float64"))
    model = make_pipeline(scaler, trees).fit(features, rows["outcome"])
    joblib.dump(model, "peer.joblib")
    said = model.predict_proba(features)
    expected = pd.DataFrame(
        {"session_id": rows["session_id"], "probability_0": said[:, 0], "probability_1": said[:, 1]}
    )
    expected.to_parquet("peer_expected.parquet", index=False)


def fill(redis_uri: str) -> None:
    """Write every entity to Redis, in our layout and in Feast's, and the `feature_store.yaml`."""
    folder = Path.cwd()
    connection = RedisConnection(SecretStr(redis_uri), timeout=10)
    registry = SecretStr(f"sqlite:///{folder / 'registry.db'}")
    stores = FeastStores("shop", registry, folder / "data", connection)
    # JSON is YAML.
    (folder / "feature_store.yaml").write_text(json.dumps(repo_config(stores)), encoding="utf-8")
    repository = FeastRepository(stores, load_features(folder))
    repository.apply()
    for store in (RedisOnlineStore(connection), FeastOnlineStore(repository)):
        for view in repository.catalog.views.values():
            store.write(view, stored_rows(Path("data") / f"{view.source.table}.parquet"))
            store.set_watermark(view, NOON)


def stored_rows(path: Path) -> Iterator[pa.RecordBatch]:
    """A feature table as an online store takes it."""
    table = pq.read_table(path)
    for name in ("event_timestamp", "created_timestamp"):
        at = table.column_names.index(name)
        table = table.set_column(at, name, table[name].cast(pa.timestamp("us", "UTC")))
    yield from table.replace_schema_metadata().to_batches()


def compare(expected: str, bodies: str, answers: str, kind: str) -> None:
    """Hold answers against a batch's predictions, bit by bit; prints how many rows were compared."""
    rows = pq.read_table(expected).to_pylist()
    by_session = {row["session_id"]: (row["probability_0"], row["probability_1"]) for row in rows}
    asked = Path(bodies).read_text(encoding="utf-8").splitlines()
    said = Path(answers).read_text(encoding="utf-8").splitlines()
    differing = []
    for body, answer in zip(asked, said, strict=True):
        session = SESSION.findall(body)[0]
        told = PROBABILITIES[kind](json.loads(answer))
        if told != by_session[session]:
            differing.append(f"{session}: {told} and not {by_session[session]}")
    if differing:
        raise SystemExit(f"{len(differing)} of {len(said)} differ, {differing[0]}")
    print(len(said))


# What a server answers → the probabilities of both classes. JSON's shortest decimals read back exactly.
PROBABILITIES: Mapping[str, Callable[[Any], tuple[float, float]]] = {
    "ours": lambda told: (told["probabilities"]["0"], told["probabilities"]["1"]),
    "mlflow": lambda told: (
        told["predictions"][0]["probability_0"],
        told["predictions"][0]["probability_1"],
    ),
    "v2": lambda told: tuple(told["outputs"][0]["data"]),
}

CHILDREN: Mapping[str, Callable[..., None]] = {
    "make": make,
    "train_peer": train_peer,
    "fill": fill,
    "compare": compare,
}
