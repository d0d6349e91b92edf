"""A package of somebody else's adds a scheme and an engine: really installed, and found by name."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from lodestar.adapters.duckdb import DuckDBReader
from lodestar.adapters.objects.s3 import ADAPTERS
from lodestar.adapters.registry import SQL_READERS, URI_READERS, WRITERS, adapter, keeps_files
from lodestar.errors import ExternalError, UsageError
from lodestar.factory.environment import EnvironmentFactory, Loader
from lodestar.interface.data import FrameWriter, SpineReader
from lodestar.interface.progress import Silent
from lodestar.pipelines.check_online import check_online
from lodestar.settings.config import Data
from lodestar.settings.loading import load_config
from lodestar.sql import parse_query
from lodestar.testing.data import FrameWriterContract, SpineReaderContract

PACKAGE = Path(__file__).resolve().parents[1] / "fixtures" / "memory-adapter"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The example, installed where only this file's tests look."""
    target = tmp_path_factory.mktemp("site")
    uv = str(Path(sys.executable).with_name("uv"))
    command: list[str] = [uv, "pip", "install", "--quiet", "--offline", "--no-deps"]
    command += ["--no-build-isolation", "--python", sys.executable, "--target", str(target)]
    subprocess.run([*command, str(PACKAGE)], check=True)
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(target)
    yield target
    patch.undo()
    for name in [name for name in sys.modules if name.partition(".")[0] == "memory_adapter"]:
        del sys.modules[name]


@pytest.fixture
def data(tmp_path: Path) -> Data:
    options: dict[str, dict[str, Any]] = {
        "shelf": {"folder": str(tmp_path / "shelf")},
        "squares": {"rows": 5},
    }
    return Data(adapter="squares", root="data", snapshots="data/snapshots", options=options)


class OnAShelf:
    """The contracts that Lodestar ships are how such a package proves itself."""

    uri: ClassVar[str] = "shelf://deep/rows"

    @pytest.fixture(autouse=True)
    def _shelf(self, installed: Path, data: Data, tmp_path: Path) -> None:
        self.data = data
        self.path = tmp_path / "shelf" / "deep_rows"

    def made(self) -> FrameWriter:
        found: FrameWriter = adapter(WRITERS, "shelf", what="x")(self.data, Path())
        return found

    def found(self) -> SpineReader:
        found: SpineReader = adapter(URI_READERS, "shelf", what="x")(self.data, Path(), self.uri)
        return found


class TestShelfReader(OnAShelf, SpineReaderContract):
    def reader(self, table: pa.Table) -> SpineReader:
        with self.made().sink(self.uri, table.schema) as sink:
            for batch in table.to_batches():
                sink.write(batch)
        return self.found()

    def broken(self, table: pa.Table) -> SpineReader:
        self.reader(table)
        self.path.write_bytes(self.path.read_bytes()[:5_000])
        return self.found()


class TestShelfWriter(OnAShelf, FrameWriterContract):
    def writer(self) -> FrameWriter:
        return self.made()

    def destination(self) -> str:
        return self.uri

    def content(self) -> pa.Table | None:
        return self.found().read(chunk_rows=1_000).read_all() if self.path.is_file() else None

    def leftovers(self) -> list[Path]:
        return [path for path in self.path.parent.iterdir() if path != self.path]


def configured(tmp_path: Path, sample_project: Path, theirs: str) -> Path:
    """A project with the sample's base.yaml, and this in theirs.yaml."""
    project = tmp_path / "project"
    (project / "config").mkdir(parents=True)
    base = (sample_project / "config/base.yaml").read_text(encoding="utf-8")
    (project / "config/base.yaml").write_text(base, encoding="utf-8")
    (project / "config/theirs.yaml").write_text(theirs, encoding="utf-8")
    return project


def test_an_engine_of_a_package_runs_the_recipes_sql(
    installed: Path, tmp_path: Path, sample_project: Path
) -> None:
    project = configured(
        tmp_path,
        sample_project,
        "data: {adapter: squares, options: {squares: {rows: '${ROWS}', more: 5}}}\n",
    )
    environment = load_config(project, "theirs", variables={"ROWS": "4"})
    # What a variable holds may be a secret, so that it is one until the adapter opens it.
    assert "4" not in repr(environment.config.data.options)
    (project / "config/theirs.yaml").write_text(
        "data: {adapter: squares, options: {squares: {rows: 4}}}\n", encoding="utf-8"
    )
    factory = EnvironmentFactory(load_config(project, "theirs", variables={}))
    query = parse_query("SELECT n, square FROM numbers ORDER BY n", "postgres", where="x.sql")
    rows = factory.spine(Loader("r", query, None), {}).reader.read(chunk_rows=2).read_all()
    assert rows.column("square").to_pylist() == [0, 1, 4, 9]


def test_check_online_says_what_of_a_package_cannot_be_checked(
    installed: Path, tmp_path: Path, sample_project: Path
) -> None:
    project = configured(
        tmp_path,
        sample_project,
        "data: {adapter: squares, options: {squares: {rows: 4}, shelf: {folder: shelf}}}\n"
        "output: {root: shelf://results}\n",
    )
    environment = load_config(project, "theirs", variables={})
    checked = check_online(environment, None, within=60.0, tell=Silent())
    found = {piece.name: piece for piece in checked.pieces}
    assert found["data in squares"].state == "fine"
    assert found["results"].state == "cannot be checked"
    assert "ShelfWriter" in found["results"].said
    assert checked.exit_code == 0


def test_a_built_in_name_cannot_be_taken(installed: Path) -> None:
    assert adapter(URI_READERS, "s3", what="the URI scheme") == ADAPTERS.reader
    assert adapter(SQL_READERS, "duckdb", what="data.adapter").__self__ is DuckDBReader


def test_what_a_file_writer_writes_is_one_runs_file(installed: Path) -> None:
    assert keeps_files("shelf://x/rows")
    assert keeps_files("s3://bucket/rows.parquet")
    assert keeps_files("outputs/rows.parquet")
    assert not keeps_files("postgres://schema.table")
    assert not keeps_files("nobodys://x")


def test_a_package_that_does_not_import_is_named(installed: Path) -> None:
    with pytest.raises(ExternalError, match="comes from the package memory-adapter") as caught:
        adapter(URI_READERS, "broken", what="the URI scheme")
    assert "memory_adapter.does_not_import:reader" in str(caught.value)
    assert "RuntimeError: its own library is too old" in str(caught.value)


def test_an_unknown_scheme_is_told_with_those_of_packages(installed: Path) -> None:
    with pytest.raises(UsageError, match="'shelve' is not supported") as caught:
        adapter(URI_READERS, "shelve", what="the URI scheme")
    assert "did you mean 'shelf'?" in str(caught.value)


def test_two_packages_with_one_name_are_both_told(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other_adapter-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other-adapter\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[lodestar.uri_readers]\nshelf = other:reader\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="more than one package: memory-adapter, other-adapter"):
        adapter(URI_READERS, "shelf", what="the URI scheme")
