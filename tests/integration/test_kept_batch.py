"""`batch-inference --resume`: scored parts are kept until all is published; the rest is scored."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.scoring_projects import GROUP, ROWS, Scoring, copied

from lodestar.artifact.folders import held
from lodestar.errors import DataError, IncompleteError, UsageError


@pytest.fixture
def scoring(scoring_template: Scoring, tmp_path: Path) -> Scoring:
    return copied(scoring_template, tmp_path / "project")


@pytest.mark.parametrize(
    "recipe", [pytest.param("wine", marks=pytest.mark.faults), "breast_cancer"]
)
def test_a_batch_in_kept_parts_leaves_the_same_file_and_no_parts(
    scoring: Scoring, recipe: str
) -> None:
    streamed = scoring.score(recipe, "streamed.parquet")
    kept = scoring.score(recipe, "kept.parquet", resume=True)
    assert kept.rows == streamed.rows == pq.read_metadata(scoring.data(recipe)).num_rows
    same = scoring.written("kept.parquet").read_bytes()
    assert same == scoring.written("streamed.parquet").read_bytes()
    assert not list((scoring.project / ".lodestar/batches").iterdir())


@pytest.mark.parametrize("recipe", ["wine", "breast_cancer"])
def test_a_poison_part_is_named_and_the_rest_kept_until_its_rows_are_right(
    scoring: Scoring, recipe: str
) -> None:
    whole = scoring.score(recipe, "whole.parquet")
    right = scoring.data(recipe).read_bytes()
    scoring.spoil(recipe, 777)
    with pytest.raises(IncompleteError) as caught:
        scoring.score(recipe, "kept.parquet", resume=True)
    said = str(caught.value)
    assert caught.value.exit_code == 3
    assert "1 of " in said
    assert "part 1 (rows 5" in said  # from row 500 of the file, from a chunk's end of the SQL
    assert "tried 1 ×: column " in said
    assert "in row 777" in said
    assert "--resume scores only these parts" in said
    assert not scoring.written("kept.parquet").exists()
    before = scoring.kept()
    assert "part-00001.json" not in before
    assert len(before) >= 5

    scoring.data(recipe).write_bytes(right)
    watched: dict[str, int] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *args, **_: watched.update(scoring.kept()))
        went_on = scoring.score(recipe, "kept.parquet", resume=True)
    assert watched == before | {"part-00001.json": watched["part-00001.json"]}
    assert went_on.rows == whole.rows
    same = scoring.written("kept.parquet").read_bytes()
    assert same == scoring.written("whole.parquet").read_bytes()


def test_what_policies_fill_is_the_same_and_counted_over_all_parts(scoring: Scoring) -> None:
    for row in (10, 777, 778, 3000):
        scoring.spoil("wine", row)
    streamed = scoring.score("filled", "streamed.parquet")
    kept = scoring.score("filled", "kept.parquet", resume=True)
    assert kept.features_filled == streamed.features_filled == {"alcohol": 4}
    same = scoring.written("kept.parquet").read_bytes()
    assert same == scoring.written("streamed.parquet").read_bytes()


@pytest.fixture
def interrupted(scoring: Scoring) -> Scoring:
    """A batch of which one part is missing; its rows are right again."""
    right = scoring.data("wine").read_bytes()
    scoring.spoil("wine", 777)
    with pytest.raises(IncompleteError):
        scoring.score("wine", "kept.parquet", resume=True)
    scoring.data("wine").write_bytes(right)
    return scoring


def test_going_on_with_other_rows_is_refused(interrupted: Scoring) -> None:
    rows = pq.read_table(interrupted.data("wine"))
    pq.write_table(rows.slice(1), interrupted.data("wine"), row_group_size=GROUP)
    with pytest.raises(DataError, match=r"part 0 \(rows 0 to 499\) has other rows now") as caught:
        interrupted.score("wine", "kept.parquet", resume=True)
    assert "leave --resume out" in str(caught.value.hint)
    assert not interrupted.written("kept.parquet").exists()
    assert interrupted.score("wine", "kept.parquet").rows == len(rows) - 1


def test_rows_that_are_no_longer_there_are_noticed(interrupted: Scoring) -> None:
    rows = pq.read_table(interrupted.data("wine"))
    pq.write_table(rows.slice(0, 1000), interrupted.data("wine"), row_group_size=GROUP)
    with pytest.raises(DataError, match="there are more of them kept than there are now"):
        interrupted.score("wine", "kept.parquet", resume=True)


def test_a_part_that_was_damaged_is_scored_again(interrupted: Scoring) -> None:
    folder = next((interrupted.project / ".lodestar/batches").iterdir())
    damaged = folder / "part-00003.predictions.arrows"
    damaged.write_bytes(damaged.read_bytes()[:-9] + b"x" * 9)
    manifest = folder / "part-00004.json"
    said = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps({**said, "artifact_digest": "other"}), encoding="utf-8")
    interrupted.score("wine", "whole.parquet")
    interrupted.score("wine", "kept.parquet", resume=True)
    same = interrupted.written("kept.parquet").read_bytes()
    assert same == interrupted.written("whole.parquet").read_bytes()


def test_without_resume_a_batch_begins_anew(interrupted: Scoring) -> None:
    assert interrupted.score("wine", "kept.parquet").rows == ROWS
    assert interrupted.kept()  # a streamed batch neither uses nor removes what is kept


def test_two_commands_at_one_batch_do_not_mix(interrupted: Scoring) -> None:
    folder = next((interrupted.project / ".lodestar/batches").iterdir())
    before = interrupted.kept()
    with (
        held(folder),
        pytest.raises(UsageError, match="another command is scoring the same batch"),
    ):
        interrupted.score("wine", "kept.parquet", resume=True)
    assert interrupted.kept() == before


def test_going_on_does_not_replace_what_another_run_has_written_meanwhile(
    interrupted: Scoring,
) -> None:
    interrupted.score("breast_cancer", "kept.parquet")
    theirs = interrupted.written("kept.parquet").read_bytes()
    with pytest.raises(UsageError, match="holds the predictions of run") as caught:
        interrupted.score("wine", "kept.parquet", resume=True)
    assert interrupted.runs["breast_cancer"] in str(caught.value)
    assert interrupted.written("kept.parquet").read_bytes() == theirs
