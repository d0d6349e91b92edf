"""A real Prometheus reads a served model with the shipped rules, and notices when it is gone."""

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML
from tests.conftest import SMALL, Trained
from tests.served_projects import served_run, write_served_config
from tests.serving_places import Served
from tests.swapping import eventually

from lodestar.deploy.dashboard import expressions
from lodestar.infra.endpoint import HOST, Endpoint

pytestmark = [pytest.mark.slow, pytest.mark.faults]
PLACE = files("lodestar.deploy") / "prometheus"
# What a model without features of its own, a shadow, swaps or a full window of rows has nothing of.
EMPTY = "shed|missing|stale|unknown|shadow|swaps|rollbacks|online_failures|drift|4..|5.."


class Prometheus:
    """Asked by its HTTP API."""

    def __init__(self, address: str) -> None:
        self._address = address

    def asked(self, path: str, **params: str) -> Any:  # noqa: ANN401 -- JSON
        answer = httpx.get(f"{self._address}/api/v1/{path}", params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def result(self, query: str) -> list[Any]:
        found: list[Any] = self.asked("query", query=query)["result"]
        return found

    def firing(self) -> set[str]:
        alerts = self.asked("alerts")["alerts"]
        return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}


@pytest.fixture
def served(trained: Callable[..., Trained]) -> Iterator[Served]:
    run = trained("breast_cancer", *SMALL)
    environment = write_served_config(run.project, "scraped")
    with served_run(run.project, run.run_id, env=environment) as server:
        yield server


@pytest.fixture
def prometheus(served: Served, tmp_path: Path) -> Iterator[Prometheus]:
    """With the shipped files: only the address and how often it looks are the test's."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed: apt-get install prometheus")
    config = YAML(typ="safe").load((PLACE / "prometheus.yaml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    job["static_configs"][0]["targets"] = [served.address.removeprefix("http://")]
    job["scrape_interval"] = "1s"
    config["global"] = {"evaluation_interval": "1s"}
    YAML().dump(config, tmp_path / "prometheus.yaml")
    shutil.copy(str(PLACE / "alerts.yaml"), tmp_path)
    address = f"{HOST}:{Endpoint.fresh().port}"
    words = [
        program,
        "--config.file=prometheus.yaml",
        "--storage.tsdb.path=data",
        f"--web.listen-address={address}",
    ]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(words, cwd=tmp_path, stdout=log, stderr=log)
        try:
            yield Prometheus(f"http://{address}")
        finally:
            process.terminate()
            process.wait(30)


def test_it_reads_the_figures_and_its_rule_fires_when_the_server_is_gone(
    served: Served, prometheus: Prometheus, trained: Callable[..., Trained]
) -> None:
    rows = pq.read_table(trained("breast_cancer", *SMALL).project / "data/breast_cancer.parquet")
    bodies = rows.drop(["diagnosis"]).slice(0, 50).to_pylist()

    def is_scraped() -> bool:
        try:
            return prometheus.result('up{job="lodestar"} == 1') != []
        except httpx.HTTPError:  # it starts
            return False

    eventually(is_scraped)
    with served.client() as client:
        for _ in range(4):
            for body in bodies:
                assert client.post("/predict", json=body).status_code == 200
            time.sleep(1)
    eventually(lambda: prometheus.result('lodestar_requests_total{route="/predict"} == 200'))
    for query in expressions('job="lodestar"', "[1m]"):
        found = prometheus.result(query)
        assert found or re.search(EMPTY, query), query
    assert prometheus.firing() == set()
    served.end()
    eventually(lambda: prometheus.firing() == {"LodestarDown"})
