"""A batch on Ray whose workers read a warehouse: the rows that one session has, also after a kill."""

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Lodestar, ended
from tests.ray_commands import HERE, RAY, family, gone, started, until_kept
from tests.scoring_projects import Scoring, copied, scoring_project, with_sections
from tests.warehouse_projects import InAWarehouse, InBigQuery, filled

pytestmark = pytest.mark.faults
RECIPE = "breast_cancer"
ROWS, PIECES = 4_000, 100


@pytest.fixture(scope="module")
def template(
    lodestar: Lodestar, sample_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Scoring:
    return scoring_project(lodestar, sample_project, tmp_path_factory.mktemp("ray") / "project")


@pytest.fixture
def scoring(template: Scoring, tmp_path: Path) -> Scoring:
    return copied(template, tmp_path / "project")


@pytest.fixture(params=["bigquery", "snowflake"])
def warehouse(
    request: pytest.FixtureRequest, tmp_path: Path, scoring: Scoring
) -> Iterator[InAWarehouse]:
    table = pq.read_table(scoring.data(RECIPE)).slice(0, ROWS)
    folder = tmp_path / "other"
    with filled(request, request.param, folder, table, RECIPE, pieces=PIECES) as made:
        with_sections(scoring, "here", made.sections, HERE)
        with_sections(scoring, "ray", made.sections, RAY)
        yield made


def rows(path: Path) -> pa.Table:
    return pq.read_table(path).sort_by("sample_id")


def test_rows_that_workers_read_are_scored_as_streamed_ones_are(
    lodestar: Lodestar, scoring: Scoring, warehouse: InAWarehouse
) -> None:
    scoring.score(RECIPE, "whole.parquet", env="here", variables=warehouse.variables)
    command = started(lodestar, scoring, variables=warehouse.variables)
    assert "one session" not in ended(command).succeeded().stderr
    assert rows(scoring.written("ray.parquet")).equals(rows(scoring.written("whole.parquet")))


def test_a_killed_command_is_gone_on_with_and_its_parts_are_not_scored_again(
    lodestar: Lodestar, scoring: Scoring, warehouse: InAWarehouse
) -> None:
    variables = warehouse.variables
    scoring.score(RECIPE, "whole.parquet", env="here", resume=True, variables=variables)
    command = started(lodestar, scoring, variables=variables)
    until_kept(scoring, command, 3)
    processes = family(command)
    command.kill()
    ended(command)
    assert not scoring.written("ray.parquet").exists()
    kept = scoring.kept()
    assert 3 <= len(kept) < ROWS // PIECES
    left = warehouse.left()
    command = started(lodestar, scoring, variables=variables, resume=True)
    anew = written_anew(scoring, command, kept)
    said = ended(command).succeeded().stderr
    assert anew == set()
    assert f"going on with a batch of which {len(kept)} parts are there" in said
    assert "are scored again" not in said
    whole, found = (scoring.written(name).read_bytes() for name in ("whole.parquet", "ray.parquet"))
    assert found == whole
    assert gone(processes)
    assert warehouse.left() == left
    if isinstance(warehouse, InBigQuery):
        assert len({name.split("/")[1] for name in left}) == 1
        for name in left:
            warehouse.box.bucket.blob(name).delete()


def written_anew(
    scoring: Scoring, command: "subprocess.Popen[str]", kept: Mapping[str, int]
) -> set[str]:
    """Which of the kept parts a command writes once more, until it ends."""
    found: set[str] = set()
    while command.poll() is None:
        with suppress(FileNotFoundError):  # they go when they are published
            found |= {name for name, when in scoring.kept().items() if kept.get(name, when) != when}
        time.sleep(0.02)
    return found
