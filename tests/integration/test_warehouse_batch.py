"""A batch whose rows lie in a warehouse: read in parts, the same rows as streamed, and gone on with."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.scoring_projects import Scoring, copied, with_sections
from tests.warehouse_projects import InAWarehouse, InBigQuery, filled

from lodestar.artifact.wrapper import load_wrapper
from lodestar.errors import IncompleteError
from lodestar.factory.environment import EnvironmentFactory
from lodestar.pipelines.batch_rows import rows_in_parts
from lodestar.settings.loading import load_config

RECIPE = "breast_cancer"
ROWS, AT = 1_500, 700
SIZES = "batch: {chunk_rows: 100, part_rows: 250}\n"


@pytest.fixture
def scoring(scoring_template: Scoring, tmp_path: Path) -> Scoring:
    found = copied(scoring_template, tmp_path / "project")
    few = pq.read_table(found.data(RECIPE)).slice(0, ROWS)
    pq.write_table(few, found.data(RECIPE))
    return found


@pytest.fixture(params=["bigquery", "snowflake"])
def warehouse(
    request: pytest.FixtureRequest, tmp_path: Path, scoring: Scoring
) -> Iterator[InAWarehouse]:
    table = pq.read_table(scoring.data(RECIPE))
    with filled(request, request.param, tmp_path / "other", table, RECIPE, pieces=250) as made:
        with_sections(scoring, "far", made.sections, SIZES)
        yield made


def rows(path: Path) -> pa.Table:
    return pq.read_table(path).sort_by("sample_id")


def test_rows_in_parts_are_scored_as_streamed_ones_are(
    warehouse: InAWarehouse, scoring: Scoring
) -> None:
    variables = warehouse.variables
    streamed = scoring.score(RECIPE, "streamed.parquet", env="far", variables=variables)
    kept = scoring.score(RECIPE, "kept.parquet", env="far", resume=True, variables=variables)
    assert kept.rows == streamed.rows == ROWS
    expected = rows(scoring.written("streamed.parquet"))
    assert rows(scoring.written("kept.parquet")).equals(expected)
    scoring.score(RECIPE, "here.parquet")
    assert rows(scoring.written("here.parquet")).equals(expected)


def test_parts_whose_rows_are_the_same_at_the_next_go_are_not_scored_again(
    warehouse: InAWarehouse, scoring: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = pq.read_table(scoring.data(RECIPE))
    scoring.spoil(RECIPE, AT)
    warehouse.put(pq.read_table(scoring.data(RECIPE)), RECIPE)
    with pytest.raises(IncompleteError, match="1 of 6 parts"):
        scoring.score(RECIPE, "it.parquet", env="far", resume=True, variables=warehouse.variables)
    before = scoring.kept()
    assert len(before) == 5
    warehouse.put(with_another_value(right, row=0), RECIPE)
    seen: dict[str, int] = {}
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: seen.update(scoring.kept()))
    scoring.score(RECIPE, "it.parquet", env="far", resume=True, variables=warehouse.variables)
    scored = {name for name, when in seen.items() if before.get(name) != when}
    assert scored == {"part-00000.json", "part-00002.json"}
    scoring.score(RECIPE, "fresh.parquet", env="far", variables=warehouse.variables)
    assert rows(scoring.written("it.parquet")).equals(rows(scoring.written("fresh.parquet")))


@pytest.mark.parametrize("warehouse", ["bigquery"], indirect=True)
def test_a_table_by_name_is_divided_and_what_that_costs_is_said(
    warehouse: InAWarehouse, scoring: Scoring
) -> None:
    assert isinstance(warehouse, InBigQuery)
    environment = load_config(scoring.project, "far", variables=warehouse.variables)
    factory, size = EnvironmentFactory(environment), environment.config.batch
    reader = warehouse.table_reader(RECIPE)
    with factory.store().opened(scoring.runs[RECIPE]) as opened:
        wrapper, _ = load_wrapper(opened.folder, digest=opened.digest)
        with rows_in_parts(reader, factory, wrapper, size, kept=True) as batch:
            assert (batch.rows, batch.parts, batch.moving) == (ROWS, 6, True)
            assert "BigQuery bills" in batch.note


def with_another_value(table: pa.Table, *, row: int) -> pa.Table:
    """The same rows but for a number of one of them."""
    at = table.schema.get_field_index("mean_texture")
    values = table.column(at).to_pylist()
    values[row] += 1.0
    return table.set_column(at, "mean_texture", pa.array(values))
