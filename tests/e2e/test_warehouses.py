"""A recipe, untouched, on each warehouse: checked, trained, scored into a table."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.conftest import Lodestar
from tests.warehouses import BigQueryDataset, EmulatedBigQuery, EmulatedSnowflake, SnowflakeSchema

SMALL = ("--set", "model.hyperparameters.n_estimators=5")
COUNT = "SELECT COUNT(*), COUNT(DISTINCT run_id) FROM scores"


@dataclass(frozen=True)
class Warehouse:
    """A place with the table that the recipe reads, and how a project says so."""

    config: str
    variables: dict[str, str]
    output: str
    run: Callable[[str], list[tuple[Any, ...]]]
    said: Callable[[], list[dict[str, Any]]]


@pytest.fixture(params=["snowflake", "bigquery"])
def warehouse(
    request: pytest.FixtureRequest, sample_project: Path
) -> Iterator[tuple[str, Warehouse]]:
    table = pq.read_table(sample_project / "data" / "diabetes.parquet")
    if request.param == "snowflake":
        server: EmulatedSnowflake = request.getfixturevalue("snowflake_server")
        schema = SnowflakeSchema(server)
        schema.put(table, "diabetes")
        config = f"""
  snowflake:
    account: {server.account}
    user: {server.user}
    password: ${{SNOWFLAKE_PASSWORD}}
    database: shop
    schema_name: {schema.name}
    endpoint_url: {server.address}
"""
        variables = {"SNOWFLAKE_PASSWORD": server.password}
        output = f"snowflake://shop.{schema.name}.scores"
        yield "snowflake", Warehouse(config, variables, output, schema.run, server.said)
        return
    emulator: EmulatedBigQuery = request.getfixturevalue("bigquery_server")
    dataset = BigQueryDataset(emulator)
    dataset.put(table, "diabetes")
    config = f"""
  bigquery:
    project: {emulator.project}
    dataset: {dataset.name}
    credentials_file: {emulator.credentials_file}
    endpoint_url: {emulator.address}
    storage_api: false
    maximum_bytes_billed: 1000000
"""
    output = f"bq://{emulator.project}.{dataset.name}.scores"
    yield "bigquery", Warehouse(config, {}, output, dataset.run, emulator.said)


def test_a_recipe_is_checked_trained_and_scored_into_a_table(
    lodestar: Lodestar, project: Path, warehouse: tuple[str, Warehouse]
) -> None:
    name, place = warehouse
    text = f"data:\n  adapter: {name}{place.config}"
    (project / "config" / "prod.yaml").write_text(text)
    env = {"APP_ENV": "prod", **place.variables}
    checked = lodestar("check", "-r", "diabetes", "--json", cwd=project, env=env).succeeded().json
    (recipe,) = checked["recipes"]
    assert recipe["columns"] == 12
    trained = lodestar("train", "-r", "diabetes", *SMALL, "--json", cwd=project, env=env)
    run = trained.succeeded().json["run_id"]
    assert "canary" not in trained.stdout + trained.stderr
    batch = ("batch-inference", "--run-id", run, "--output", place.output, "--json")
    rows = lodestar(*batch, cwd=project, env=env).succeeded().json["rows"]
    assert place.run(COUNT) == [(rows, 1)]
    if name == "bigquery":
        assert recipe["bytes_read"] == rows * 12 * 8
        assert any("reads at most" in note for note in recipe["notes"])
        jobs = [one["configuration"] for one in place.said() if "configuration" in one]
        labels = {one["labels"]["application"] for one in jobs if "labels" in one}
        assert labels >= {"lodestar-train-diabetes", f"lodestar-batch-{run[:8]}"}
    else:
        assert recipe["bytes_read"] is None
        tags = {one["parameters"].get("QUERY_TAG") for one in place.said() if "login" in one}
        assert tags >= {"lodestar train diabetes", f"lodestar batch {run[:8]}"}
    for path in [*(project / "mlruns").rglob("*"), project / "outputs"]:
        if path.is_file():
            assert b"canary" not in path.read_bytes()


def test_where_results_go_is_tried_out_and_left_as_it_was(
    lodestar: Lodestar, project: Path, warehouse: tuple[str, Warehouse]
) -> None:
    name, place = warehouse
    root = place.output.rpartition(".")[0]
    (project / "config" / "prod.yaml").write_text(
        f"data:\n  adapter: {name}{place.config}\noutput:\n  root: {root}\n"
    )
    check = ("check", "--online", "--within", "60", "--json")
    done = lodestar(*check, cwd=project, env={"APP_ENV": "prod", **place.variables}).succeeded()
    found = {piece["name"]: piece for piece in done.json["pieces"]}
    assert found["results"]["state"] == "fine"
    assert found["results"]["said"] == f"{root}: a table was made, loaded, read and removed"
    assert any("lodestar_check_" in one.get("sql", "").lower() for one in place.said())


def test_a_cap_that_is_too_low_is_told_with_its_key(
    lodestar: Lodestar, project: Path, bigquery_server: EmulatedBigQuery, sample_project: Path
) -> None:
    dataset = BigQueryDataset(bigquery_server)
    dataset.put(pq.read_table(sample_project / "data" / "diabetes.parquet"), "diabetes")
    (project / "config" / "prod.yaml").write_text(
        f"""data:
  adapter: bigquery
  bigquery:
    project: {bigquery_server.project}
    dataset: {dataset.name}
    credentials_file: {bigquery_server.credentials_file}
    endpoint_url: {bigquery_server.address}
    storage_api: false
    maximum_bytes_billed: 10
"""
    )
    done = lodestar("train", "-r", "diabetes", cwd=project, env={"APP_ENV": "prod"})
    done.refused(5, "it takes 42,432 bytes", "data.bigquery.maximum_bytes_billed")
