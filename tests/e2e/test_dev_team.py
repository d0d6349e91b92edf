"""A recipe that takes its features from a team's own Feast repository, made by Feast itself."""

import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.conftest import Lodestar

# Feast is imported again and again, for seconds each time.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
RECIPE = "uplift_model_exp3"
ALL = ("--context-params", "start_date=2025-01-01,end_date=2025-05-01")
LAST_DAYS = ("--context-params", "start_date=2025-03-25,end_date=2025-04-01")
UNTIL = ("--until", "2025-03-31T12:00:00")
SMALL = ("--set", "model.hyperparameters.n_estimators=5")
TEAM = {"APP_ENV": "team"}
DEFINITIONS = """
from datetime import timedelta

from feast import Entity, FeatureView, Field, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.types import Float64, Int64, String

TIMES = {
    "timestamp_field": "event_timestamp",
    "created_timestamp_column": "created_timestamp",
}
user, product, session = (
    Entity(name=name, join_keys=[name], value_type=ValueType.STRING)
    for name in ("user_id", "product_id", "session_id")
)


def view(name, entity, days, features, **source):
    fields = [Field(name=key, dtype=kind) for key, kind in features.items()]
    return FeatureView(
        name=name,
        entities=[entity],
        ttl=timedelta(days=days),
        schema=[Field(name=entity.name, dtype=String), *fields],
        source=PostgreSQLSource(name=f"{name}_source", **source, **TIMES),
    )


demographics = view(
    "user_demographics", user, 3650, {"age": Int64, "country_code": String}, table="user_demographics"
)
summary = view(
    "session_summary",
    session,
    1,
    {"time_on_page_seconds": Float64, "click_count": Int64},
    query="SELECT * FROM session_summary",
)
details = view(
    "product_details",
    product,
    3650,
    {"price": Float64, "category": String, "brand": String},
    table="product_details",
)
purchases = view(
    "user_purchase_summary",
    user,
    3650,
    {"ltv": Float64, "total_purchase_count": Int64},
    query="SELECT user_id, event_timestamp, created_timestamp, ltv AS spent, total_purchase_count "
    "FROM user_purchase_summary",
    field_mapping={"spent": "ltv"},
)
"""


@pytest.fixture(scope="module")
def project(
    dev_project: Path,
    dev_run: str,
    postgres_uri: str,
    redis_uri: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A copy of the DEV project without declarations, and the team's repository beside it."""
    assert dev_run
    made = shutil.copytree(dev_project, tmp_path_factory.mktemp("team") / "project")
    shutil.rmtree(made / "features")
    config = (made / "config" / "dev.yaml").read_text()
    before, _, after = config.partition("feature_store:\n  provider")
    rest = after.partition("mlflow:")[2]
    section = "feature_store:\n  feast: {repository: ../feature_repo, timeout: 20.0}\n\nmlflow:"
    (made / "config" / "team.yaml").write_text(before + section + rest)
    repository = made.parent / "feature_repo"
    repository.mkdir()
    database, place = urlsplit(postgres_uri), urlsplit(redis_uri)
    (repository / "feature_store.yaml").write_text(
        "project: the_teams\n"
        "provider: local\n"
        "registry: registry.db\n"
        "offline_store:\n"
        "  type: postgres\n"
        f"  host: 127.0.0.1\n  port: {database.port}\n  database: {database.path[1:]}\n"
        f"  user: {database.username}\n  password: {database.password}\n  sslmode: prefer\n"
        "online_store:\n"
        "  type: redis\n"
        f"  connection_string: '127.0.0.1:{place.port},password={place.password}'\n"
        "entity_key_serialization_version: 3\n"
    )
    (repository / "definitions.py").write_text(DEFINITIONS)
    feast = Path(sys.executable).with_name("feast")
    subprocess.run([str(feast), "apply"], cwd=repository, check=True, timeout=240)
    return made


@pytest.fixture(scope="module")
def run_id(lodestar: Lodestar, project: Path) -> str:
    trained = lodestar(
        "train", "-r", RECIPE, *ALL, *SMALL, "--json", cwd=project, env=TEAM
    ).succeeded()
    return str(trained.json["run_id"])


def test_it_learns_from_the_very_rows_that_our_own_declarations_give(
    lodestar: Lodestar, project: Path, dev_run: str, run_id: str
) -> None:
    shown = [
        lodestar("runs", "show", one, "--json", cwd=project).succeeded().json["params"]
        for one in (dev_run, run_id)
    ]
    assert shown[0]["data.sha256"] == shown[1]["data.sha256"]


@pytest.mark.faults
def test_batches_do_without_feast_where_the_tables_have_names(
    lodestar: Lodestar, project: Path, dev_run: str, tmp_path: Path
) -> None:
    """The run of our declarations names tables, so nobody needs the registry to find them."""
    package = tmp_path / "feast"
    package.mkdir()
    (package / "__init__.py").write_text('raise RuntimeError("Feast was imported")\n')
    without = {**TEAM, "PYTHONPATH": str(tmp_path)}
    lodestar(
        "batch-inference", "--run-id", dev_run, *LAST_DAYS, cwd=project, env=without
    ).succeeded()


def test_batch_path_and_online_path_agree_bit_by_bit(
    lodestar: Lodestar, project: Path, run_id: str
) -> None:
    words = ("parity", "--run-id", run_id, *LAST_DAYS)
    lodestar(*words, cwd=project, env=TEAM).refused(3, "never materialised")
    lodestar("features", "materialize", *UNTIL, cwd=project, env=TEAM).succeeded()
    listed = lodestar("features", "list", "--json", cwd=project, env=TEAM).succeeded().json
    assert {one["namespace"]: one["materialized_until"] for one in listed["namespaces"]} == (
        dict.fromkeys(
            ("product_details", "session_summary", "user_demographics", "user_purchase_summary"),
            "2025-03-31T12:00:00+00:00",
        )
    )
    compared = lodestar(*words, "--json", cwd=project, env=TEAM).succeeded().json
    assert (compared["equal"], compared["rows"]) == (True, 1000)
