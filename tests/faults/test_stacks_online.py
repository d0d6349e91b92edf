"""The config that `init --stack on_premises` writes, on a real PostgreSQL, Redis Cluster and MLflow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest
from tests.conftest import Finished, Lodestar
from tests.databases import Database, fresh_database
from tests.faults.test_secrets import CANARY, said_by
from tests.redis_places import Redis, redis_cluster

from lodestar.infra.mlflow_server import MlflowServer

pytestmark = pytest.mark.faults  # three Redis nodes, and Feast is imported by every command


@pytest.fixture
def database(postgres_uri: str) -> Iterator[Database]:
    with fresh_database(postgres_uri) as database:
        yield database


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[Redis]]:
    with redis_cluster(tmp_path / "redis") as nodes:
        yield nodes


def pieces(done: Finished) -> dict[str, Any]:
    assert "Traceback" not in done.stderr, done.stderr
    return {piece["name"]: piece for piece in done.json["pieces"]}


def test_on_premises_is_fine_on_real_servers_and_red_where_its_registry_lets_nobody_in(
    lodestar: Lodestar,
    tmp_path: Path,
    database: Database,
    cluster: list[Redis],
    mlflow_server: MlflowServer,
) -> None:
    lodestar("init", "shop", "--stack", "on_premises", cwd=tmp_path).succeeded()
    project = tmp_path / "shop"
    for declared in (project / "features").glob("*.yaml"):
        rows = project / "data" / f"{declared.stem}.parquet"
        database.put(pq.read_table(rows), declared.stem)
    nodes = ",".join(f"127.0.0.1:{node.port}" for node in cluster)
    variables = {
        "LODESTAR_POSTGRES_URI": database.uri,
        "LODESTAR_FEAST_URI": database.uri,
        "LODESTAR_REDIS_URI": f"redis://:{cluster[0].password}@{nodes}",
        "LODESTAR_STUDIES_URI": database.uri,
        "LODESTAR_SHARE": str(tmp_path / "share"),
        "LODESTAR_MLFLOW_URI": mlflow_server.uri.get_secret_value(),
        "LODESTAR_API_KEY_SHA256": "ab" * 32,
    }
    check = ("check", "--online", "--env", "prod", "--within", "60", "--json")
    found = pieces(lodestar(*check, cwd=project, env=variables).succeeded())
    assert {piece["state"] for piece in found.values()} == {"fine"}, found
    assert "whoever says who they are" in found["serving"]["said"]
    assert not (tmp_path / "share").exists()

    wrong = database.uri.replace(f":{database.password}@", f":{quote(CANARY, safe='')}@")
    done = lodestar(*check, cwd=project, env={**variables, "LODESTAR_FEAST_URI": wrong})
    red = {name for name, piece in pieces(done).items() if piece["state"] == "failed"}
    assert red == {"feature registry"}
    assert done.code == 4
    assert not said_by(done, CANARY)
    cluster[1].kill()
    done = lodestar(*check, cwd=project, env=variables)
    red = {name for name, piece in pieces(done).items() if piece["state"] == "failed"}
    assert red
    assert red <= {name for name in found if name.startswith("online rows of")}
