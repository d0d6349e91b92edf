"""The shop's features in DynamoDB by the real commands: apply, materialise, parity, serve, emptied."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Finished, Lodestar
from tests.dynamodb_places import KEY, SECRET, client_of, tables_of
from tests.served_projects import served_run
from tests.voucher_project import AS_OF, Voucher, make_voucher_project

pytestmark = pytest.mark.faults  # moto takes its time: half a minute
WINDOW = ("--context-params", "start_date=2025-03-25,end_date=2025-04-01")
CONFIG = """\
environment: {{augmenter: feature_store, serving: allowed}}
feature_store:
  offline: files
  dynamodb:
    region: eu-central-1
    endpoint_url: {url}
    access_key_id: ${{SHOP_KEY}}
    secret_access_key: ${{SHOP_SECRET}}
    table_prefix: e2e.
    timeout: 30
    writes: batch
    tables: {{create: {create}, tags: {{team: growth}}}}
"""
KEYS = {"SHOP_KEY": KEY, "SHOP_SECRET": SECRET}


@pytest.fixture(scope="module")
def voucher(
    lodestar: Lodestar,
    sample_project: Path,
    tmp_path_factory: pytest.TempPathFactory,
    dynamodb_url: str,
) -> Voucher:
    target = tmp_path_factory.mktemp("dynamodb") / "project"
    made = make_voucher_project(lodestar, sample_project, target)
    for name, create in (("dynamo", "true"), ("looking", "false")):
        text = CONFIG.format(url=dynamodb_url, create=create)
        target.joinpath("config", f"{name}.yaml").write_text(text, encoding="utf-8")
    return made


def env(voucher: Voucher, name: str = "dynamo") -> Mapping[str, str]:
    return {**voucher.environment(name), **KEYS}


def without_keys(done: Finished) -> Finished:
    assert SECRET not in done.stdout + done.stderr
    assert KEY not in done.stdout + done.stderr
    return done


def test_the_shop_is_materialised_compared_bit_by_bit_and_served(
    lodestar: Lodestar, voucher: Voucher, dynamodb_url: str
) -> None:
    project, client = voucher.project, client_of(dynamodb_url)

    def run(*words: str, name: str = "dynamo") -> Finished:
        return without_keys(lodestar(*words, cwd=project, env=env(voucher, name)))

    refused = ("does not allow to make", "e2e.product_details", "@entity", "create: true")
    run("features", "apply", name="looking").refused(5, *refused)
    run("features", "materialize", name="looking").refused(4, "there is no table")
    planned = run("features", "apply", "--dry-run", "--json").succeeded().json
    tables = {f"e2e.{path.stem}" for path in (project / "features").glob("*.yaml")}
    assert {change["name"] for change in planned["changes"]} == tables
    assert not tables & tables_of(client)
    assert run("features", "apply", "--json").succeeded().json["applied"] is True
    assert tables <= tables_of(client)
    assert "as they say already" in run("features", "apply").succeeded().stderr
    done = run("features", "materialize", "--until", AS_OF, "--json").succeeded().json
    counts = {item["namespace"]: item["entities"] for item in done["namespaces"]}
    assert counts["user_demographics"] > 4_900
    listed = run("features", "list", "--json", name="looking").succeeded().json["namespaces"]
    assert {item["materialized_until"] for item in listed} == {f"{AS_OF}+00:00"}

    status = run("features", "status", "--as-of", AS_OF, "--json").succeeded().json
    assert {view["state"] for view in status["namespaces"]} == {"fresh"}

    with served_run(project, voucher.run_id, "--as-of", AS_OF, env=env(voucher)) as server:
        compared = run(
            "parity", "--run-id", voucher.run_id, *WINDOW, "--rows", "300", "--json",
            "--url", server.address,
        ).succeeded().json  # fmt: skip
        assert compared["equal"] is True
        assert compared["rows"] == 300
        stages = {column["stage"] for column in compared["columns"]}
        assert {"features", "preprocessed", "predictions"} < stages
        age = "lodestar_feature_age_seconds"
        count = server.metric(f'{age}_count{{namespace="user_demographics"}}')
        mean = server.metric(f'{age}_sum{{namespace="user_demographics"}}') / count
        assert 86_400 < mean < 3_650 * 86_400
        _empty(client, sorted(tables))
        said = server.post(voucher.keys[0])
        assert said.status_code == 422
        assert said.json()["type"].endswith("feature-missing")
        assert SECRET not in server.says()
    never = run("features", "list", "--json").succeeded().json["namespaces"]
    assert {item["materialized_until"] for item in never} == {None}


FEAST = """\
environment: {{augmenter: feature_store, serving: allowed}}
feature_store:
  offline: files
  feast: {{project: shop, registry: "sqlite:///registry.db", online: dynamodb}}
  dynamodb:
    region: eu-central-1
    endpoint_url: {url}
    table_prefix: feast.
    timeout: 30
    writes: batch
"""


def test_the_same_by_way_of_feast(lodestar: Lodestar, voucher: Voucher, dynamodb_url: str) -> None:
    text = FEAST.format(url=dynamodb_url)
    voucher.project.joinpath("config", "fst.yaml").write_text(text, encoding="utf-8")
    chain = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    given = {**voucher.environment("fst"), **chain}

    def run(*words: str) -> Any:  # noqa: ANN401 -- JSON
        done = without_keys(lodestar(*words, "--json", cwd=voucher.project, env=given))
        return done.succeeded().json

    assert run("features", "apply")["applied"] is True
    done = run("features", "materialize", "--until", AS_OF)
    assert {item["namespace"] for item in done["namespaces"]} > {"user_demographics"}
    compared = run("parity", "--run-id", voucher.run_id, *WINDOW, "--rows", "300")
    assert compared["equal"] is True
    with served_run(voucher.project, voucher.run_id, "--as-of", AS_OF, env=given) as server:
        said = server.post(voucher.keys[0])
        assert said.status_code == 200
        assert not said.json().get("degraded")


def _empty(client: Any, tables: list[str]) -> None:  # noqa: ANN401 -- boto3's own
    """Take every item, and leave the tables."""
    for table in tables:
        pages = client.get_paginator("scan").paginate(
            TableName=table, ProjectionExpression="#k", ExpressionAttributeNames={"#k": "@entity"}
        )
        keys = [item for page in pages for item in page["Items"]]
        for start in range(0, len(keys), 25):
            requests = [{"DeleteRequest": {"Key": key}} for key in keys[start : start + 25]]
            client.batch_write_item(RequestItems={table: requests})
