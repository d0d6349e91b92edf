"""Missing and stale features from end to end: trained, scored and read online by the same rules."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Lodestar
from tests.databases import Database, fresh_database

from lodestar.artifact.contents import CONTENTS, read_contents
from lodestar.artifact.wrapper import PAYLOAD
from lodestar.core.features import select_features
from lodestar.core.policies import RowPolicies
from lodestar.factory.environment import EnvironmentFactory
from lodestar.settings.loading import load_config
from lodestar.settings.selection import FeatureSelection

UNTIL = datetime(2025, 3, 31, 12, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)
TIMESTAMP = pa.timestamp("us", tz="UTC")
USERS, EVENTS = 60, 600
STRANGERS = 5  # of whom nothing was ever known
DEV = {"APP_ENV": "dev"}
ALL = ("--context-params", "below=user_99")
BASE = """\
environment: {augmenter: pass_through, serving: blocked}
data: {adapter: duckdb, root: data, snapshots: data/snapshots}
mlflow: {experiment_name: t, tracking_uri: "sqlite:///mlruns/mlflow.db", artifact_root: mlruns/a}
model: {allowed_modules: ["*"]}
output: {root: outputs, save: [predictions, augmented]}
batch: {chunk_rows: 256}
"""
DEV_CONFIG = """\
environment: {augmenter: feature_store, serving: allowed}
data: {adapter: postgres, postgres: {uri: "${POSTGRES}"}}
feature_store: {provider: redis, offline: postgres, redis: {uri: "${REDIS}", timeout: 20.0}}
"""
FACTS = """\
namespace: facts
entity_keys: {user_id: string}
source: {table: facts}
ttl: 20d
features: {age: int, ltv: float, country: string}
"""
RECIPE = """\
model: {class_path: sklearn.linear_model.LogisticRegression}
loader: {source_uri: recipes/events.sql}
augmenter:
  type: feature_store
  features:
    - feature_namespace: facts
      features:
        - age
        - {name: ltv, on_missing: -1, max_age: 2d}
        - {name: country, on_missing: "?"}
preprocessor: {name: simple_scaler}
data_interface:
  task_type: classification
  target_col: outcome
  entity_keys: [user_id]
"""
SQL = "SELECT user_id, event_timestamp, outcome FROM events WHERE user_id < :below"


@dataclass(frozen=True)
class Shop:
    """The project, and the rows that its tables hold."""

    folder: Path
    events: list[dict[str, Any]]
    facts: list[dict[str, Any]]

    def known(self, user: str, at: datetime) -> dict[str, Any] | None:
        """The latest version then, if it is not older than the ttl."""
        versions = [
            row
            for row in self.facts
            if row["user_id"] == user and at - 20 * DAY <= row["event_timestamp"] <= at
        ]
        return max(versions, key=lambda row: row["event_timestamp"], default=None)

    def settled(self, user: str, at: datetime) -> tuple[int | None, float, str]:
        """The features by the recipe's policies, worked out by hand."""
        row = self.known(user, at)
        if row is None:
            return None, -1.0, "?"
        stale = at - row["event_timestamp"] > 2 * DAY
        return row["age"], -1.0 if stale or row["ltv"] is None else row["ltv"], row["country"]


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory, postgres_uri: str, redis_uri: str
) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("policies")
    for name in ("config", "recipes", "features", ".lodestar"):
        (folder / name).mkdir()
    files = {
        "config/base.yaml": BASE,
        "config/dev.yaml": DEV_CONFIG,
        "features/facts.yaml": FACTS,
        "recipes/events.yaml": RECIPE,
        "recipes/events.sql": SQL,
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    with fresh_database(postgres_uri) as database:
        redis = redis_uri.removesuffix("/0") + "/9"
        (folder / ".lodestar/infra.env").write_text(f"POSTGRES={database.uri}\nREDIS={redis}\n")
        yield _filled(folder, database)


def _filled(folder: Path, database: Database) -> Shop:
    draw = random.Random(7)  # noqa: S311 -- made-up rows
    users = [f"user_{number:02d}" for number in range(USERS)]
    facts = [
        {
            "user_id": user,
            "event_timestamp": UNTIL - days * DAY - timedelta(hours=draw.randrange(24)),
            "age": draw.choice([None, *range(20, 60)]),
            "ltv": draw.choice([None, *(round(draw.uniform(0, 500), 2) for _ in range(9))]),
            "country": draw.choice(["KR", "DE", "FR"]),
        }
        for user in users[: USERS - STRANGERS]
        for days in draw.sample(range(1, 40), 4)
    ]
    events = [
        {
            "user_id": draw.choice(users),
            "event_timestamp": UNTIL - timedelta(seconds=draw.randrange(10 * 86_400)),
            "outcome": draw.randrange(2),
        }
        for _ in range(EVENTS)
    ]
    # At the very edges of max_age and of the ttl.
    for row in facts[::7]:
        for age in (2 * DAY, 20 * DAY):
            for more in (-MICROSECOND, timedelta(), MICROSECOND):
                at = row["event_timestamp"] + age + more
                events.append({"user_id": row["user_id"], "event_timestamp": at, "outcome": 0})
    fact_types = pa.schema(
        [
            ("user_id", pa.string()),
            ("event_timestamp", TIMESTAMP),
            ("age", pa.int64()),
            ("ltv", pa.float64()),
            ("country", pa.string()),
        ]
    )
    event_types = pa.schema(
        [("user_id", pa.string()), ("event_timestamp", TIMESTAMP), ("outcome", pa.int64())]
    )
    database.put(pa.Table.from_pylist(facts, fact_types), "facts")
    database.put(pa.Table.from_pylist(events, event_types), "events")
    return Shop(folder, events, facts)


@pytest.fixture(scope="module")
def run_id(lodestar: Lodestar, shop: Shop) -> str:
    done = lodestar("train", "-r", "events", *ALL, "--json", cwd=shop.folder, env=DEV).succeeded()
    assert "ltv is missing in" in done.stderr
    return str(done.json["run_id"])


def test_a_batch_is_settled_to_the_microsecond_and_what_was_filled_is_counted(
    lodestar: Lodestar, shop: Shop, run_id: str
) -> None:
    done = lodestar(
        "batch-inference", "--run-id", run_id, *ALL, "--json", cwd=shop.folder, env=DEV
    ).succeeded()
    augmented = pq.read_table(shop.folder / done.json["outputs"]["augmented"]).to_pylist()
    assert len(augmented) == len(shop.events)
    wanted = [shop.settled(row["user_id"], row["event_timestamp"]) for row in augmented]
    assert [(row["age"], row["ltv"], row["country"]) for row in augmented] == wanted
    # Both edges are in the data, and both fills.
    assert done.json["features_filled"] == {
        "ltv": sum(ltv == -1.0 for _, ltv, _ in wanted),
        "country": sum(country == "?" for _, _, country in wanted),
    }
    fresh = [shop.known(row["user_id"], row["event_timestamp"]) for row in augmented]
    ages = {
        row["event_timestamp"] - known["event_timestamp"]
        for row, known in zip(augmented, fresh, strict=True)
        if known
    }
    assert {2 * DAY, 2 * DAY + MICROSECOND, 20 * DAY} <= ages


def test_what_a_request_reads_online_is_what_a_batch_joins_at_that_time(
    lodestar: Lodestar, shop: Shop, run_id: str
) -> None:
    until = f"{UNTIL:%Y-%m-%dT%H:%M:%S}"
    lodestar(
        "features", "materialize", "--until", until, "--json", cwd=shop.folder, env=DEV
    ).succeeded()
    compared = lodestar(
        "parity", "--run-id", run_id, *ALL, "--json", cwd=shop.folder, env=DEV
    ).succeeded()
    assert compared.json["equal"] is True

    environment = load_config(shop.folder, "dev", variables={})
    factory = EnvironmentFactory(environment)
    with factory.store().opened(run_id) as opened:
        contents = read_contents(opened.folder / PAYLOAD / CONTENTS)
    snapshot = contents.augmenter_config_snapshot["features"]
    assert snapshot[0]["features"] == ["age", "ltv", "country"]
    assert snapshot[0]["policies"]["ltv"] == {"on_missing": -1, "max_age": "2d"}
    selected = select_features(
        factory.catalog_of(contents),
        [FeatureSelection.model_validate(item) for item in snapshot],
    )
    reader = factory.online_reader(selected)
    assert reader is not None

    async def read(users: list[str]) -> list[tuple[Any, ...]]:
        try:
            return await reader.read([(user,) for user in users])
        finally:
            await reader.close()

    users = [f"user_{number:02d}" for number in range(USERS)]
    policies = RowPolicies(snapshot, [one.view for one in selected], contents.feature_schema)
    now = (UNTIL - EPOCH) // MICROSECOND
    rows = [policies.settle(row, now) for row in asyncio.run(read(users))]
    assert [row.values for row in rows] == [shop.settled(user, UNTIL) for user in users]
    known = [shop.known(user, UNTIL) for user in users]
    late = [row is not None and UNTIL - row["event_timestamp"] > 2 * DAY for row in known]
    assert [row.stale for row in rows] == [("ltv",) if stale else () for stale in late]
    unknown = [row.missing for row, there in zip(rows, known, strict=True) if there is None]
    assert unknown == [("age", "ltv", "country")] * len(unknown)
    assert len(unknown) >= STRANGERS
    assert not any(row.refused for row in rows)


def test_a_policy_that_is_an_error_names_feature_row_and_stage(
    lodestar: Lodestar, shop: Shop
) -> None:
    strict = (
        "augmenter.features=[{feature_namespace: facts, "
        "features: [{name: age, on_missing: error}]}]"
    )
    lodestar("train", "-r", "events", *ALL, "--set", strict, cwd=shop.folder, env=DEV).refused(
        3, "augmenting (batch)", "the feature 'age' of facts is missing in", "user_id='user_"
    )


def test_where_training_saw_no_null_a_missing_feature_is_refused_when_scoring(
    lodestar: Lodestar, shop: Shop
) -> None:
    by_default = (
        "augmenter.features=[{feature_namespace: facts, "
        "features: [age, {name: country, on_missing: null}]}]"
    )
    strangers = {
        row["user_id"]
        for row in shop.events
        if shop.known(row["user_id"], row["event_timestamp"]) is None
    }
    known = ", ".join(
        repr(f"user_{n:02d}") for n in range(USERS) if f"user_{n:02d}" not in strangers
    )
    (shop.folder / "recipes/known.sql").write_text(
        f"{SQL} AND (user_id IN ({known}) OR :below = 'user_98')"
    )
    trained = lodestar(
        "train", "-r", "events", *ALL, "--set", by_default,
        "--set", "loader.source_uri=recipes/known.sql", "--json", cwd=shop.folder, env=DEV,
    ).succeeded()  # fmt: skip
    assert "on_missing of country is null, and training saw no null" in trained.stderr
    scoring = ("batch-inference", "--run-id", trained.json["run_id"], "--context-params")
    lodestar(*scoring, "below=user_98", cwd=shop.folder, env=DEV).refused(
        3, "the feature 'country' of facts is missing in", "training saw no null in it"
    )
