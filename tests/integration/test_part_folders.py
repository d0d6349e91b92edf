"""Results as a folder of files that those who score write themselves: a manifest says which count."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from tests.object_stores import Box, GcsBox, S3Box
from tests.parted import place_of_project
from tests.scoring_projects import Scoring, copied

from lodestar.adapters.files.folder import PartFolder
from lodestar.adapters.registry import URI_READERS, adapter
from lodestar.errors import DataError, IncompleteError, UsageError
from lodestar.settings.loading import ConfigPlace


@pytest.fixture
def scoring(scoring_template: Scoring, tmp_path: Path) -> Scoring:
    return copied(scoring_template, tmp_path / "project")


def rows(place: ConfigPlace, uri: str) -> pa.Table:
    scheme = uri.partition("://")[0] if "://" in uri else ""
    data = place.read({}).config.data
    reader = adapter(URI_READERS, scheme, what="the URI scheme")(data, place.project, uri)
    table: pa.Table = reader.read(chunk_rows=1_000).read_all()
    return table


def files(scoring: Scoring, name: str = "parts") -> set[str]:
    return {path.name for path in (scoring.project / "outbox" / name).iterdir()}


def read(scoring: Scoring, uri: str = "outbox/parts/") -> pa.Table:
    return rows(ConfigPlace(scoring.project, "local"), uri)


@pytest.mark.parametrize("recipe", ["wine", "breast_cancer"])
def test_a_folder_has_the_rows_of_the_one_file(scoring: Scoring, recipe: str) -> None:
    scoring.score(recipe, "one.parquet")
    scored = scoring.score(recipe, "parts/")
    manifest = json.loads(scoring.written("parts/_manifest.json").read_bytes())
    assert manifest["run_id"] == scoring.runs[recipe]
    assert manifest["rows"] == scored.rows
    assert {"_manifest.json"} | {file["name"] for file in manifest["files"]} == files(scoring)
    assert len(manifest["files"]) > 5
    assert read(scoring).equals(read(scoring, "outbox/one.parquet"))
    assert not list((scoring.project / ".lodestar/batches").iterdir())


def test_all_frames_have_folders(scoring: Scoring) -> None:
    saved = "output: {save: [predictions, augmented]}\nbatch: {chunk_rows: 64, part_rows: 500}\n"
    (scoring.project / "config/parts.yaml").write_text(saved, encoding="utf-8")
    scored = scoring.score("wine", "parts/")
    assert set(scored.outputs) == {"predictions", "augmented"}
    assert scored.outputs["augmented"].endswith("/parts.augmented/")
    assert len(read(scoring, "outbox/parts.augmented/")) == scored.rows == len(read(scoring))


def test_readers_see_the_old_files_until_the_new_ones_are_listed(scoring: Scoring) -> None:
    scoring.score("wine", "parts/")
    before, old = read(scoring), files(scoring)
    right = scoring.data("wine").read_bytes()
    scoring.spoil("wine", 777)
    with pytest.raises(IncompleteError):
        scoring.score("wine", "parts/")
    assert old < files(scoring)
    assert read(scoring).equals(before)
    assert read(scoring, "outbox/parts/*.parquet").equals(before)

    scoring.data("wine").write_bytes(right)
    kept = scoring.kept()
    gone = sorted(files(scoring) - old)[2]
    scoring.written(f"parts/{gone}").unlink()  # somebody cleared up meanwhile
    scoring.score("wine", "parts/", resume=True)
    assert kept
    assert read(scoring).equals(before)
    assert not files(scoring) & (old - {"_manifest.json"})


def test_a_folder_of_another_run_is_not_gone_on_with(scoring: Scoring) -> None:
    scoring.score("breast_cancer", "parts/")
    with pytest.raises(UsageError, match="holds the predictions of run") as caught:
        scoring.score("wine", "parts/", resume=True)
    assert scoring.runs["breast_cancer"] in str(caught.value)


def test_a_listed_file_that_is_gone_is_an_error(scoring: Scoring) -> None:
    scoring.score("wine", "parts/")
    listed = sorted(files(scoring) - {"_manifest.json"})
    scoring.written(f"parts/{listed[3]}").unlink()
    with pytest.raises(DataError, match=f"lists outbox/parts/{listed[3]}, which is not there"):
        read(scoring)
    scoring.written("parts/_manifest.json").write_text('{"format": 2, "files": []}')
    with pytest.raises(DataError, match="no manifest that this version reads"):
        read(scoring)


@pytest.mark.parametrize(("kind", "endpoint"), [(S3Box, "s3_endpoint"), (GcsBox, "gcs_endpoint")])
def test_a_prefix_of_a_store_is_such_a_folder(
    kind: type[Box], endpoint: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    box = kind(request.getfixturevalue(endpoint))
    box.make()
    place = place_of_project(tmp_path / "project", box.sections())
    uri = box.uri("deep/scores/")
    batches = pa.table({"n": range(30)}).to_batches(max_chunksize=10)
    first, second = (PartFolder(uri, mark, place) for mark in ("a", "b"))
    assert first.about() is None
    written = [first.write(number, [batch]) for number, batch in enumerate(batches)]
    first.publish(written, {"run_id": "r1"})
    assert rows(place, uri).column("n").to_pylist() == list(range(30))
    again = [second.write(number, [batch]) for number, batch in enumerate(batches[:2])]
    assert rows(place, uri).column("n").to_pylist() == list(range(30))
    second.publish(again, {"run_id": "r2"})
    assert rows(place, uri).column("n").to_pylist() == list(range(20))
    assert second.about() is not None
    assert sorted(box.names()) == sorted(
        f"deep/scores/{name}" for name in ("_manifest.json", *(file.name for file in again))
    )
    assert second.has(again[0].name)
    assert not second.has(written[0].name)
