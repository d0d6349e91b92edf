"""A batch whose rows PostgreSQL divides: the same rows as streamed, and gone on with after changes."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Lodestar
from tests.databases import Database, fresh_database
from tests.scoring_projects import Scoring, copied, with_postgres

from lodestar.errors import IncompleteError

RECIPE = "breast_cancer"


@pytest.fixture
def database(postgres_uri: str) -> Iterator[Database]:
    with fresh_database(postgres_uri) as database:
        yield database


@pytest.fixture
def scoring(scoring_template: Scoring, tmp_path: Path, database: Database) -> Scoring:
    scoring = copied(scoring_template, tmp_path / "project")
    with_postgres(scoring, database)
    return scoring


def rows(path: Path) -> pa.Table:
    return pq.read_table(path).sort_by("sample_id")


def test_divided_rows_are_scored_as_streamed_ones_are(scoring: Scoring, database: Database) -> None:
    streamed = scoring.score(RECIPE, "streamed.parquet", env="pg")
    kept = scoring.score(RECIPE, "kept.parquet", env="pg", resume=True)
    assert kept.rows == streamed.rows == pq.read_metadata(scoring.data(RECIPE)).num_rows
    expected = rows(scoring.written("streamed.parquet"))
    assert rows(scoring.written("kept.parquet")).equals(expected)
    scoring.score(RECIPE, "here.parquet")
    assert rows(scoring.written("here.parquet")).equals(expected)
    assert database.is_left("lodestar batch %")


def test_parts_of_a_database_that_has_moved_on_are_kept_where_their_rows_are_the_same(
    scoring: Scoring, database: Database
) -> None:
    database.run("UPDATE breast_cancer SET mean_radius = NULL WHERE sample_id = 's003000'")
    with pytest.raises(IncompleteError, match="in row ") as caught:
        scoring.score(RECIPE, "kept.parquet", env="pg", resume=True)
    assert "1 of " in str(caught.value)
    before = scoring.kept()
    assert len(before) > 3
    # It is right again, and in another block; more rows came, and one of the first has changed.
    database.run("UPDATE breast_cancer SET mean_radius = 14 WHERE sample_id = 's003000'")
    database.run("UPDATE breast_cancer SET mean_texture = 20 WHERE sample_id = 's000001'")
    database.run(
        "INSERT INTO breast_cancer SELECT * FROM breast_cancer "
        "WHERE sample_id < 's000500' AND sample_id > 's0004'"
    )
    scoring.score(RECIPE, "fresh.parquet", env="pg")
    seen: dict[str, int] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: seen.update(scoring.kept()))
        scoring.score(RECIPE, "kept.parquet", env="pg", resume=True)
    again = [name for name, when in before.items() if seen.get(name) != when]
    assert 0 < len(again) < len(before)
    kept, fresh = (scoring.written(f"{name}.parquet") for name in ("kept", "fresh"))
    assert rows(kept).num_rows == rows(fresh).num_rows
    assert sorted(map(str, rows(kept).to_pylist())) == sorted(map(str, rows(fresh).to_pylist()))


def test_why_the_rows_are_read_by_one_session_is_said(
    lodestar: Lodestar, scoring: Scoring, database: Database
) -> None:
    database.run("ALTER TABLE breast_cancer RENAME TO all_of_it")
    database.run("CREATE VIEW breast_cancer AS SELECT * FROM all_of_it LIMIT 700")
    words = ("batch-inference", "--run-id", scoring.runs[RECIPE], "--env", "pg", "--resume")
    done = lodestar(*words, "--output", "outbox/kept.parquet", cwd=scoring.project).succeeded()
    assert "the rows are read by one session: its SQL has LIMIT or OFFSET" in done.stderr
    assert pq.read_metadata(scoring.written("kept.parquet")).num_rows == 700
