"""A batch on Ray whose workers read a warehouse: the rows that one session has, scored alike."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Lodestar
from tests.ray_commands import HERE, RAY
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
    snowflake_server.faults(chunk_rows=1_000)
    yield made
    snowflake_server.faults()


@pytest.fixture
def big(
    bigquery_server: EmulatedBigQuery, gcs_endpoint: str, tmp_path: Path, scoring: Scoring
) -> Iterator[InBigQuery]:
    made = bigquery_project(bigquery_server, gcs_endpoint, tmp_path / "other")
    made.faults(file_rows=4_000, group_rows=1_000)
    made.put(pq.read_table(scoring.data(RECIPE)), RECIPE)
    yield made
    bigquery_server.faults()
    assert made.box.names() == []


def rows(path: Path) -> pa.Table:
    return pq.read_table(path).sort_by("sample_id")


@pytest.mark.parametrize("warehouse", ["big", "snow"])
def test_rows_that_workers_read_are_scored_as_streamed_ones_are(
    request: pytest.FixtureRequest, lodestar: Lodestar, scoring: Scoring, warehouse: str
) -> None:
    project = request.getfixturevalue(warehouse)
    with_sections(scoring, "here", project.sections, HERE)
    with_sections(scoring, "ray", project.sections, RAY)
    scoring.score(RECIPE, "whole.parquet", env="here", variables=project.variables)
    words = ("batch-inference", "--run-id", scoring.runs[RECIPE], "--env", "ray")
    place = scoring.written("ray.parquet")
    done = lodestar(
        *words, "--output", str(place), cwd=scoring.project, env=project.variables
    ).succeeded()
    assert "one session" not in done.stderr
    assert rows(place).equals(rows(scoring.written("whole.parquet")))
