"""The shop's features in warehouses: snapshot, training, batches, the online store, checks, refusals.

A small shop; the same recipe and features/*.yaml, untouched, in LOCAL and on both warehouses.
"""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Lodestar, copy_of
from tests.dynamodb_places import KEY, SECRET
from tests.warehouses import BigQueryDataset, EmulatedBigQuery, EmulatedSnowflake, SnowflakeSchema

from lodestar.adapters.files.features import FileFeatureTables
from lodestar.core.ordering import in_content_order
from lodestar.factory.environment import EnvironmentFactory
from lodestar.infra.postgres import PostgresServer
from lodestar.interface.features import TimeRange
from lodestar.samples.shop import write_shop
from lodestar.settings.features import FeatureView, load_features
from lodestar.settings.loading import load_config
from lodestar.testing.online import every_feature_of

RECIPE = "uplift_model_exp3"
ALL = ("--context-params", "start_date=2025-01-01,end_date=2025-05-01")
SMALL = ("--set", "model.hyperparameters.n_estimators=5")
AS_OF = datetime(2025, 3, 31, 12, tzinfo=UTC)
SENSITIVE = "country_code"
HEAD = """\
environment: {{augmenter: feature_store, serving: allowed}}
data:
  adapter: {name}
  snapshots: data/taken
{place}
feature_store:
  offline: {name}
"""


@dataclass(frozen=True)
class Warehouse:
    """One that holds the shop, and how a project's config says so."""

    name: str
    place: str
    variables: dict[str, str]
    run: Callable[[str], list[tuple[Any, ...]]]
    tables: Callable[[], list[str]]
    server: EmulatedBigQuery | EmulatedSnowflake

    def configured(self, project: Path, online: str, *, more: str = "") -> dict[str, str]:
        """Write a config with this online store; the variables that name it."""
        environment = f"{self.name}_{abs(hash((online, more))):x}"
        text = HEAD.format(name=self.name, place=self.place + more) + online
        (project / "config" / f"{environment}.yaml").write_text(text)
        return {"APP_ENV": environment, **self.variables}


@pytest.fixture(scope="module")
def shop(sample_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a small shop."""
    project = copy_of(sample_project, tmp_path_factory.mktemp("warehouses") / "project")
    write_shop(project / "data", sessions=1_200, users=300, products=50)
    return project


# Each takes half a minute; that Snowflake keeps the contracts is seen without it, too.
@pytest.fixture(
    scope="module", params=["bigquery", pytest.param("snowflake", marks=pytest.mark.faults)]
)
def warehouse(request: pytest.FixtureRequest, shop: Path) -> Warehouse:
    """One with the sessions and each namespace's table."""
    names = ["sessions", *load_features(shop).views]
    tables = {name: pq.read_table(shop / "data" / f"{name}.parquet") for name in names}
    if request.param == "bigquery":
        emulator: EmulatedBigQuery = request.getfixturevalue("bigquery_server")
        dataset = BigQueryDataset(emulator)
        for name, table in tables.items():
            dataset.put(table, name)
        place = f"""  bigquery:
    project: {emulator.project}
    dataset: {dataset.name}
    credentials_file: {emulator.credentials_file}
    endpoint_url: {emulator.address}
    storage_api: false
"""
        return Warehouse("bigquery", place, {}, dataset.run, dataset.tables, emulator)
    server: EmulatedSnowflake = request.getfixturevalue("snowflake_server")
    schema = SnowflakeSchema(server)
    for name, table in tables.items():
        schema.put(table, name)
    place = f"""  snowflake:
    account: {server.account}
    user: {server.user}
    password: ${{SNOWFLAKE_PASSWORD}}
    database: shop
    schema_name: {schema.name}
    endpoint_url: {server.address}
"""
    variables = {"SNOWFLAKE_PASSWORD": server.password}
    return Warehouse("snowflake", place, variables, schema.run, schema.tables, server)


@pytest.fixture(scope="module")
def local_run(lodestar: Lodestar, shop: Path) -> str:
    """A run of LOCAL, whose snapshot other code joined before there was any database."""
    trained = lodestar("train", "-r", RECIPE, *SMALL, "--json", cwd=shop).succeeded()
    return str(trained.json["run_id"])


DIRECT = "  redis: {uri: '${REDIS}', timeout: 20}\n"


def test_what_is_trained_and_scored_in_a_warehouse_is_what_local_has(
    lodestar: Lodestar, shop: Path, warehouse: Warehouse, local_run: str, redis_uri: str
) -> None:
    env = {**warehouse.configured(shop, DIRECT), "REDIS": own_database(redis_uri)}
    before = warehouse.tables()
    trained = lodestar("train", "-r", RECIPE, *ALL, *SMALL, "--json", cwd=shop, env=env)
    run = trained.succeeded().json["run_id"]
    shown = [
        lodestar("runs", "show", one, "--json", cwd=shop).succeeded().json
        for one in (run, local_run)
    ]
    assert shown[0]["params"]["data.sha256"] == shown[1]["params"]["data.sha256"]
    assert shown[0]["metrics"]["auuc"] == shown[1]["metrics"]["auuc"]
    (contents,) = [
        json.loads(path.read_text())
        for path in (shop / "mlruns").rglob("lodestar/contents.json")
        if f"run_id: {run}" in (path.parents[1] / "MLmodel").read_text()
    ]
    joined_by = contents["augmenter_config_snapshot"]["joined_by"]
    assert joined_by == f"lodestar.adapters.warehouse.features over {warehouse.name}"

    batch = ("batch-inference", "--run-id", run, "--json")
    there = lodestar(*batch, *ALL, "--output", "there.parquet", cwd=shop, env=env).succeeded()
    here = lodestar(*batch, "--output", "here.parquet", cwd=shop).succeeded()
    scores = [
        pq.read_table(shop / done.json["outputs"]["predictions"])
        .select(["session_id", "prediction"])
        .sort_by("session_id")
        for done in (there, here)
    ]
    assert scores[0].num_rows == 1_200
    assert scores[0].equals(scores[1])
    assert warehouse.tables() == before  # what waited for its features is gone
    assert "canary" not in "".join(done.stdout + done.stderr for done in (trained, there))


def test_a_snapshot_is_locals_own_but_for_what_is_sensitive(
    lodestar: Lodestar, shop: Path, warehouse: Warehouse
) -> None:
    env = warehouse.configured(shop, "")
    taken = lodestar("snapshot", "-r", RECIPE, *ALL, "--json", cwd=shop, env=env).succeeded()
    assert (taken.json["rows"], taken.json["hashed"]) == (1_200, [SENSITIVE])
    tables = [
        pq.read_table(shop / "data" / folder / f"{RECIPE}.parquet").drop_columns(SENSITIVE)
        for folder in ("taken", "snapshots")
    ]
    ours, given = (in_content_order(table.select(sorted(table.column_names))) for table in tables)
    assert ours.equals(given.cast(ours.schema))


def test_queries_of_the_join_are_named_like_those_of_the_loader(
    lodestar: Lodestar, shop: Path, warehouse: Warehouse
) -> None:
    env = warehouse.configured(shop, "")
    warehouse.server.faults()
    lodestar("snapshot", "-r", RECIPE, *ALL, "--rows", "10", cwd=shop, env=env).succeeded()
    said = warehouse.server.said()
    if warehouse.name == "bigquery":
        jobs = [one for one in said if "configuration" in one]
        assert {one["configuration"]["labels"]["application"] for one in jobs} == {
            f"lodestar-snapshot-{RECIPE}"
        }
    else:
        tags = {one["parameters"]["QUERY_TAG"] for one in said if "login" in one}
        assert tags == {f"lodestar snapshot {RECIPE}"}
    statements = [one["sql"] for one in said if "sql" in one]
    (join,) = [sql for sql in statements if "KNOWN3" in sql]
    read = [sql for sql in statements if "user_purchase_summary" in sql.lower() and sql != join]
    assert not [sql for sql in read if "information_schema" not in sql]  # no table leaves it


ONLINE = {
    "redis": DIRECT,
    "feast-redis": f"{DIRECT}  feast: {{project: P, registry: 'sqlite:///R', online: redis}}\n",
    "feast-postgres": "  feast: {project: P, registry: '${PG}', online: '${PG}', timeout: 30}\n",
    "dynamodb": """\
  dynamodb: {region: eu-central-1, endpoint_url: '${DYNAMO}', table_prefix: P., timeout: 30,
    writes: batch, access_key_id: '${KEY}', secret_access_key: '${SECRET}'}
""",
    "feast-dynamodb": """\
  feast: {project: P, registry: 'sqlite:///R', online: dynamodb}
  dynamodb: {region: eu-central-1, endpoint_url: '${DYNAMO}', table_prefix: t., timeout: 30,
    writes: batch}
""",
}


@pytest.mark.parametrize(
    "online", [pytest.param(one, marks=[pytest.mark.faults] * (one != "redis")) for one in ONLINE]
)
def test_features_are_applied_materialised_and_listed(
    request: pytest.FixtureRequest,
    lodestar: Lodestar,
    shop: Path,
    warehouse: Warehouse,
    online: str,
) -> None:
    env = with_online(request, shop, warehouse, online)
    applied = lodestar("features", "apply", "--json", cwd=shop, env=env).succeeded().json
    assert applied["namespaces"] == len(load_features(shop).views)
    until = f"{AS_OF:%Y-%m-%dT%H:%M:%S}"
    words = ("features", "materialize", "--until", until, "--json")
    done = lodestar(*words, cwd=shop, env=env).succeeded().json["namespaces"]
    listed = (
        lodestar("features", "list", "--json", cwd=shop, env=env).succeeded().json["namespaces"]
    )
    assert {item["materialized_until"] for item in listed} == {f"{until}+00:00"}
    environment = load_config(shop, env["APP_ENV"], variables=env)
    store: Any = EnvironmentFactory(environment).online_store()
    with closing(store):
        for told, (name, view) in zip(done, sorted(load_features(shop).views.items()), strict=True):
            latest = latest_of(shop, view)
            assert (told["namespace"], told["entities"]) == (name, latest.num_rows)
            some = latest.slice(0, 40).combine_chunks()
            (keys,) = some.select(view.keys).to_batches() or [None]
            if keys is not None:
                found = store.read(keys, every_feature_of(view))
                wanted = some.select([*view.features]).to_pylist()
                assert found.features.select([*view.features]).to_pylist() == wanted
                events = some[view.source.timestamp_col].to_pylist()
                assert found.event_times[name].to_pylist() == events


def latest_of(shop: Path, view: FeatureView) -> pa.Table:
    """What other code finds in the files."""
    since = None if view.ttl is None else AS_OF - view.ttl
    files = FileFeatureTables(shop / "data")
    return files.latest(view, TimeRange(since, AS_OF), known_by=AS_OF).read_all()


def own_database(redis_uri: str) -> str:
    """Other tests write the same namespaces into the server's first one, perhaps newer versions."""
    return redis_uri.removesuffix("/0") + "/8"


def with_online(
    request: pytest.FixtureRequest, shop: Path, warehouse: Warehouse, online: str
) -> dict[str, str]:
    """The variables of an environment with that online store, of a project of its own there."""
    project = f"p_{warehouse.name}_{online.replace('-', '_')}"
    text = ONLINE[online].replace("P.", f"{project}.").replace("project: P", f"project: {project}")
    variables = warehouse.configured(shop, text.replace("///R", f"///{project}.db"))
    if "REDIS" in text:
        variables["REDIS"] = own_database(request.getfixturevalue("redis_uri"))
    if "PG" in text:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        variables["PG"] = server.uri_of("feast").get_secret_value()
    if "DYNAMO" in text:
        variables["DYNAMO"] = request.getfixturevalue("dynamodb_url")
        variables |= {"KEY": KEY, "SECRET": SECRET}
        variables |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
    return variables


def test_check_online_looks_at_every_table_and_check_says_what_a_join_costs(
    lodestar: Lodestar, shop: Path, warehouse: Warehouse
) -> None:
    env = warehouse.configured(shop, "")
    done = lodestar("check", "-r", RECIPE, "--json", cwd=shop, env=env).succeeded()
    (checked,) = done.json["recipes"]
    rows = {
        name: pq.read_metadata(shop / "data" / f"{name}.parquet")
        for name in load_features(shop).views
    }
    read = sum(one.num_rows * one.num_columns * 8 for one in rows.values())
    assert checked["bytes_joined"] == (read if warehouse.name == "bigquery" else None)
    online = lodestar("check", "--online", "--json", cwd=shop, env=env).succeeded()
    states = {piece["name"]: piece["state"] for piece in online.json["pieces"]}
    assert {states[f"table of {name}"] for name in rows} == {"fine"}


def test_declarations_that_do_not_fit_are_red_with_what_is_there(
    lodestar: Lodestar, sample_project: Path, tmp_path: Path, warehouse: Warehouse
) -> None:
    project = copy_of(sample_project, tmp_path / "project")
    env = warehouse.configured(project, "")
    for name, old, new in (
        ("user_demographics", "age: {type: int", "age: {type: string"),
        ("product_details", "  price: float", "  prize: float"),
        ("session_summary", "table: session_summary", "table: session_sumary"),
        ("user_purchase_summary", "event_timestamp", "event_timestamp: ltv #"),
    ):
        file = project / "features" / f"{name}.yaml"
        text = file.read_text()
        assert old in text
        if name != "user_purchase_summary":
            file.write_text(text.replace(old, new))
        else:
            file.write_text(
                text.replace("timestamp_col: event_timestamp", "timestamp_col: ltv").replace(
                    "  ltv: {", "  spent: {"
                )
            )
    done = lodestar("check", "--online", "--json", cwd=project, env=env)
    assert done.code == 3, done.stderr
    errors = {
        piece["name"].removeprefix("table of "): json.dumps(piece["error"])
        for piece in done.json["pieces"]
        if piece["state"] == "failed"
    }
    assert "'age' is declared string, and the table has int64" in errors["user_demographics"]
    assert "no column 'prize'" in errors["product_details"]
    assert "'price'" in errors["product_details"]
    assert "'session_summary'" in errors["session_summary"]
    assert (
        "'ltv' is declared timestamp, and the table has double" in errors["user_purchase_summary"]
    )
