"""A batch on Ray whose workers read a warehouse: the same rows, also when the command is killed."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Lodestar, ended
from tests.ray_commands import HERE, RAY, family, gone, started, until_kept
from tests.scoring_projects import Scoring, copied, scoring_project, with_sections
from tests.warehouse_projects import (
    InBigQuery,
    InSnowflake,
    bigquery_project,
    snowflake_project,
)
from tests.warehouses import EmulatedBigQuery, EmulatedSnowflake

pytestmark = pytest.mark.faults
RECIPE = "breast_cancer"


@pytest.fixture(scope="module")
def template(
    lodestar: Lodestar, sample_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Scoring:
    return scoring_project(lodestar, sample_project, tmp_path_factory.mktemp("ray") / "project")


@pytest.fixture
def scoring(template: Scoring, tmp_path: Path) -> Scoring:
    return copied(template, tmp_path / "project")


@pytest.fixture
def snow(
    snowflake_server: EmulatedSnowflake, tmp_path: Path, scoring: Scoring
) -> Iterator[InSnowflake]:
    made = snowflake_project(snowflake_server, tmp_path / "other")
    made.put(pq.read_table(scoring.data(RECIPE)), RECIPE)
    snowflake_server.faults(chunk_rows=100)
    yield made
    snowflake_server.faults()


@pytest.fixture
def big(
    bigquery_server: EmulatedBigQuery, gcs_endpoint: str, tmp_path: Path, scoring: Scoring
) -> InBigQuery:
    made = bigquery_project(bigquery_server, gcs_endpoint, tmp_path / "other")
    made.faults(file_rows=4_000, group_rows=100)
    made.put(pq.read_table(scoring.data(RECIPE)), RECIPE)
    return made


def rows(path: Path) -> pa.Table:
    return pq.read_table(path).sort_by("sample_id")


@pytest.mark.parametrize("warehouse", ["big", "snow"])
def test_a_killed_command_is_gone_on_with_and_its_workers_read_the_warehouse(
    request: pytest.FixtureRequest, lodestar: Lodestar, scoring: Scoring, warehouse: str
) -> None:
    project = request.getfixturevalue(warehouse)
    with_sections(scoring, "here", project.sections, HERE)
    with_sections(scoring, "ray", project.sections, RAY)
    variables = project.variables
    scoring.score(RECIPE, "whole.parquet", env="here", variables=variables)
    command = started(lodestar, scoring, variables=variables)
    until_kept(scoring, command, 3)
    processes = family(command)
    command.kill()
    ended(command)
    assert gone(processes)
    kept = len(scoring.kept())
    assert 3 <= kept < 100
    words = ("batch-inference", "--run-id", scoring.runs[RECIPE], "--env", "ray", "--resume")
    place = str(scoring.written("ray.parquet"))
    done = lodestar(*words, "--output", place, cwd=scoring.project, env=variables).succeeded()
    assert f"going on with a batch of which {kept} parts are there" in done.stderr
    assert "are scored again" not in done.stderr
    assert rows(scoring.written("ray.parquet")).equals(rows(scoring.written("whole.parquet")))
    if warehouse == "big":  # what the killed one left, and nothing of the other
        assert len({name.split("/")[1] for name in project.box.names()}) == 1
