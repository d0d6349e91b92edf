"""Several files as one source of rows: which are meant, in which order, and what makes them refuse."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from tests.conftest import SMALL, Lodestar, copy_of
from tests.parted import place_of_project

from lodestar.adapters.registry import URI_READERS, adapter
from lodestar.errors import DataError, LodestarError, SchemaError
from lodestar.interface.data import SpineReader
from lodestar.interface.parts import Division, PartitionedReader


@pytest.fixture
def project(tmp_path: Path) -> Path:
    place_of_project(tmp_path / "project")
    return tmp_path / "project"


def put(project: Path, name: str, /, **columns: list[Any]) -> None:
    path = project / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if path.suffix == ".csv":
        pacsv.write_csv(table, path)
    elif path.suffix == ".arrow":
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    else:
        pq.write_table(table, path)


def reader(project: Path, uri: str) -> SpineReader:
    found: SpineReader = adapter(URI_READERS, "", what="the URI scheme")(None, project, uri)
    return found


def rows(project: Path, uri: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = reader(project, uri).read(chunk_rows=2).read_all().to_pydict()
    return found


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".arrow"])
def test_a_folders_files_are_read_in_the_order_of_their_names(project: Path, suffix: str) -> None:
    for number in (10, 2, 1, 30):
        put(project, f"rows/part-{number:03}{suffix}", n=[number, number + 1, number + 2])
    put(project, f"rows/_old{suffix}", n=[-1])
    put(project, f"rows/.hidden/part{suffix}", n=[-2])
    (project / "data/rows/_SUCCESS").touch()
    expected = [1, 2, 3, 2, 3, 4, 10, 11, 12, 30, 31, 32]
    for uri in ("data/rows", "data/rows/", f"data/rows/*{suffix}", f"data/**/part-*{suffix}"):
        assert rows(project, uri) == {"n": expected}, uri
    assert rows(project, f"data/rows/part-0[13]?{suffix}")["n"] == [10, 11, 12, 30, 31, 32]
    assert (
        rows(project, f"{(project / 'data/rows').as_uri()}/part-00*{suffix}")["n"] == expected[:6]
    )


def test_folders_that_are_named_for_columns_are_columns(project: Path) -> None:
    put(project, "events/day=2/shop=a%20b/x.parquet", n=[1, 2])
    put(project, "events/day=2/shop=c/x.parquet", n=[3])
    put(project, "events/day=10/shop=__HIVE_DEFAULT_PARTITION__/x.parquet", n=[4])
    assert reader(project, "data/events").schema().types == [pa.int64(), pa.int64(), pa.string()]
    expected = {"n": [4, 1, 2, 3], "day": [10, 2, 2, 2], "shop": [None, "a b", "a b", "c"]}
    assert rows(project, "data/events") == expected
    found = reader(project, "data/events")
    assert isinstance(found, PartitionedReader)
    with found.parts(Division(chunk_rows=10, part_rows=3)) as divided:
        assert divided.parts is not None
        together = [pa.Table.from_batches(part.read()).to_pydict() for part in divided.parts]
        assert [part.rows for part in divided.parts] == [3, 1]
        assert len({part.digest() for part in divided.parts}) == 2
    assert {name: together[0][name] + together[1][name] for name in expected} == expected
    # A day's own folder is below what the pattern fixes, or is no column.
    assert rows(project, "data/events/day=2/")["shop"] == ["a b", "a b", "c"]
    assert "day" not in rows(project, "data/events/day=2/")


def test_columns_may_come_in_another_order_but_not_be_others(project: Path) -> None:
    put(project, "rows/a.parquet", n=[1], name=["x"])
    put(project, "rows/b.parquet", name=["y"], n=[2])
    assert rows(project, "data/rows") == {"n": [1, 2], "name": ["x", "y"]}
    put(project, "rows/c.parquet", n=[1.5], other=["z"])
    with pytest.raises(SchemaError) as caught:
        rows(project, "data/rows")
    said = str(caught.value)
    assert "the columns of data/rows/c.parquet are not those of data/rows/a.parquet" in said
    assert "- name: missing" in said
    assert "+ other: not in data/rows/a.parquet" in said
    assert "~ n: double, int64 in data/rows/a.parquet" in said
    found = reader(project, "data/rows")
    assert isinstance(found, PartitionedReader)
    with (
        pytest.raises(SchemaError, match=r"the columns of data/rows/c\.parquet"),
        found.parts(Division(10, 10)),
    ):
        pass


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("data/none/*.parquet", "there is no folder"),
        ("data/rows/x*.parquet", "no file is meant by data/rows/x"),
        ("data/empty", "no file is meant by data/empty/"),
        ("data/mixed", "means files of several kinds: data/mixed/a.parquet and data/mixed/b.csv"),
        ("data/notes", "data/notes/read.me, which data/notes/ means, is no data file"),
        ("data/hive", "lies in folders of the columns month, and data/hive/day=1/x.parquet in"),
        ("data/twice", "column 'n' stands in data/twice/n=1/x.parquet and in the name of its fold"),
        ("data/links", "is a link that leads out of"),
    ],
)
def test_what_cannot_be_read_as_one_says_why(project: Path, uri: str, words: str) -> None:
    (project / "data/empty").mkdir()
    put(project, "rows/a.parquet", n=[1])
    put(project, "mixed/a.parquet", n=[1])
    put(project, "mixed/b.csv", n=[1])
    put(project, "notes/a.parquet", n=[1])
    (project / "data/notes/read.me").touch()
    put(project, "hive/day=1/x.parquet", n=[1])
    put(project, "hive/month=1/x.parquet", n=[1])
    put(project, "twice/n=1/x.parquet", n=[1])
    (project / "data/links").mkdir()
    (project / "data/links/a.parquet").symlink_to(project / "data/rows/a.parquet")
    with pytest.raises(DataError) as caught:
        rows(project, uri)
    assert words in str(caught.value)


def test_which_file_is_damaged_is_said(project: Path) -> None:
    put(project, "rows/a.parquet", n=[1])
    put(project, "rows/b.parquet", n=[1])
    whole = (project / "data/rows/b.parquet").read_bytes()
    (project / "data/rows/b.parquet").write_bytes(whole[:-20])
    with pytest.raises(LodestarError, match=r"rows/b\.parquet"):
        rows(project, "data/rows")


def test_a_project_may_lie_in_a_folder_that_looks_like_a_pattern(tmp_path: Path) -> None:
    project = place_of_project(tmp_path / "[x] * ?").project
    put(project, "rows/a.parquet", n=[1])
    put(project, "rows/b[1].parquet", n=[2])
    assert rows(project, "data/rows")["n"] == [1, 2]
    assert rows(project, "data/rows/*")["n"] == [1, 2]
    assert rows(project, "data/rows/b[1].parquet")["n"] == [2]  # a file of that name


def test_a_folder_is_trained_on_scored_and_gone_on_with_like_one_file(
    lodestar: Lodestar, sample_project: Path, tmp_path: Path
) -> None:
    project = lodestar.stocked(copy_of(sample_project, tmp_path / "project"))
    table = pq.read_table(project / "data/wine.parquet")
    (project / "data/wine").mkdir()
    for number in range(0, len(table), 40):
        pq.write_table(table.slice(number, 40), project / f"data/wine/part-{number:03}.parquet")
    recipe = (project / "recipes/wine.yaml").read_text(encoding="utf-8")
    several = recipe.replace("data/wine.parquet", "data/wine/part-*.parquet")
    assert several != recipe
    (project / "recipes/several.yaml").write_text(several, encoding="utf-8")
    runs = {
        name: lodestar("train", "-r", name, *SMALL, "--json", cwd=project).succeeded().json
        for name in ("wine", "several")
    }
    assert runs["several"]["metrics"] == runs["wine"]["metrics"]
    words = ("batch-inference", "--run-id", runs["several"]["run_id"], "--output")
    lodestar(*words, "outputs/streamed.parquet", cwd=project).succeeded()
    (project / "config/parts.yaml").write_text("batch: {part_rows: 60}\n", encoding="utf-8")
    parts = ("--env", "parts", "--resume")
    lodestar(*words, "outputs/kept.parquet", *parts, cwd=project).succeeded()
    streamed = (project / "outputs/streamed.parquet").read_bytes()
    assert (project / "outputs/kept.parquet").read_bytes() == streamed
    assert pq.read_metadata(project / "outputs/kept.parquet").num_rows == len(table)
