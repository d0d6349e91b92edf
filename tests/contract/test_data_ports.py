# ruff: noqa: S608 -- hostile SQL text is what some of these tests are about
"""The file and DuckDB adapters under the data ports' contracts."""

from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from lodestar.adapters.duckdb import DuckDBReader
from lodestar.adapters.files.rows import FileReader, FileWriter
from lodestar.errors import DataError, LodestarError, UsageError
from lodestar.settings.config import Data
from lodestar.sql import parse_query
from lodestar.testing.data import FrameWriterContract, SpineReaderContract, every_kind_of_value

DATA = Data(adapter="duckdb", root="data", snapshots="data/snapshots")


def put(table: pa.Table, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".parquet":
            pq.write_table(table, path, row_group_size=10_000)
        case ".csv":
            pacsv.write_csv(table, path)
        case _:
            with pa.ipc.new_file(str(path), table.schema) as writer:
                writer.write_table(table, max_chunksize=10_000)
    return path


def damage(path: Path) -> None:
    """Cut the file where a copy that was interrupted would have cut it."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2].rsplit(b",", 1)[0])


class InTemporaryDirectory:
    suffix: ClassVar[str]

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.place = tmp_path

    @property
    def path(self) -> Path:
        return self.place / f"spine{self.suffix}"


class FileReaderContract(InTemporaryDirectory, SpineReaderContract):
    def reader(self, table: pa.Table) -> FileReader:
        return FileReader(put(table, self.path))

    def broken(self, table: pa.Table) -> FileReader:
        damage(put(table, self.path))
        return FileReader(self.path)


class DuckDBContract(InTemporaryDirectory, SpineReaderContract):
    def reader(self, table: pa.Table) -> DuckDBReader:
        put(table, self.path)
        return self.query("SELECT * FROM spine")

    def broken(self, table: pa.Table) -> DuckDBReader:
        damage(put(table, self.path))
        return self.query("SELECT * FROM spine")

    def query(self, sql: str) -> DuckDBReader:
        return DuckDBReader(self.place, parse_query(sql, "postgres", where="spine.sql"), {})


class KnowsNoTypes(SpineReaderContract):
    """A csv file without rows says only what its columns are called."""

    def test_an_empty_result_keeps_its_columns(self) -> None:
        reader = self.reader(every_kind_of_value().slice(0, 0))
        assert reader.schema().names == every_kind_of_value().column_names
        assert reader.read(chunk_rows=10).read_all().num_rows == 0


class TestParquetFileReader(FileReaderContract):
    suffix = ".parquet"


class TestCsvFileReader(KnowsNoTypes, FileReaderContract):
    suffix = ".csv"


class TestArrowFileReader(FileReaderContract):
    suffix = ".arrow"


class TestDuckDBOverParquet(DuckDBContract):
    suffix = ".parquet"


class TestDuckDBOverCsv(KnowsNoTypes, DuckDBContract):
    suffix = ".csv"


class TestDuckDBOverArrow(DuckDBContract):
    suffix = ".arrow"


class FileWriterContract(InTemporaryDirectory, FrameWriterContract):
    def writer(self) -> FileWriter:
        return FileWriter(self.place)

    def destination(self) -> str:
        return f"deep/down/out{self.suffix}"

    def content(self) -> pa.Table | None:
        path = self.place / self.destination()
        return FileReader(path).read(chunk_rows=1_000).read_all() if path.is_file() else None

    def leftovers(self) -> list[Path]:
        files = [path for path in self.place.rglob("*") if path.is_file()]
        return [path for path in files if path != self.place / self.destination()]

    def test_whoever_has_the_old_file_open_reads_it_to_the_end(self) -> None:
        self.write(pa.table({"row": [1], "name": ["old"]}))
        path = self.place / self.destination()
        old = path.read_bytes()
        with path.open("rb") as file:
            self.write(every_kind_of_value())
            assert file.read() == old
        assert path.read_bytes() != old


class TestParquetFileWriter(FileWriterContract):
    suffix = ".parquet"


class TestCsvFileWriter(FileWriterContract):
    suffix = ".csv"


class TestArrowFileWriter(FileWriterContract):
    suffix = ".arrow"


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".arrow"])
def test_a_table_in_a_folder_is_a_schema_and_a_table(tmp_path: Path, suffix: str) -> None:
    put(pa.table({"a": [1, 2]}), tmp_path / "shop" / f"sales{suffix}")
    query = parse_query("SELECT a FROM shop.sales WHERE a > 1", "postgres", where="x.sql")
    read = DuckDBReader(tmp_path, query, {}).read(chunk_rows=10).read_all()
    assert read.to_pylist() == [{"a": 2}]


@pytest.mark.parametrize("text", ["a,b\nx,1\ny,2,3\n", "a,b\n1,2\n3\n", "a,b\n1,2,3\n4,5\n"])
def test_lines_of_unequal_length_are_an_error_for_either_reader(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    query = parse_query("SELECT * FROM t", "postgres", where="x.sql")
    for make in (lambda: FileReader(tmp_path / "t.csv"), lambda: DuckDBReader(tmp_path, query, {})):
        with pytest.raises(DataError):
            make().read(chunk_rows=10).read_all()


def test_either_reader_takes_an_empty_field_of_a_csv_file_as_null(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n1,x\n,\n2,""\n')
    query = parse_query("SELECT * FROM t", "postgres", where="x.sql")
    for reader in (FileReader(tmp_path / "t.csv"), DuckDBReader(tmp_path, query, {})):
        read = reader.read(chunk_rows=10).read_all()
        assert read.column("a").to_pylist() == [1, None, 2]
        assert read.column("b").to_pylist() == ["x", None, None]


def test_a_column_that_changes_its_type_after_the_first_block_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a\n" + "1\n" * 1_000_000 + "x\n")
    query = parse_query("SELECT * FROM t", "postgres", where="x.sql")
    for reader in (FileReader(tmp_path / "t.csv"), DuckDBReader(tmp_path, query, {})):
        with pytest.raises(DataError):
            reader.read(chunk_rows=100_000).read_all()


def test_a_file_that_is_not_there_is_named_with_its_neighbours(tmp_path: Path) -> None:
    put(pa.table({"a": [1]}), tmp_path / "sales.parquet")
    with pytest.raises(DataError, match=r"no file .*sale\.parquet") as caught:
        FileReader(tmp_path / "sale.parquet")
    assert "'sales.parquet'" in str(caught.value)
    query = parse_query("SELECT * FROM sale", "postgres", where="x.sql")
    with pytest.raises(DataError, match="did you mean 'sales'"):
        DuckDBReader(tmp_path, query, {})


@pytest.mark.parametrize("name", ["t.xlsx", "t", "t.parquet.zip", "t.CSV"])
def test_other_kinds_of_files_are_refused_with_the_valid_ones(tmp_path: Path, name: str) -> None:
    for use in (
        lambda: FileReader(tmp_path / name),
        lambda: FileWriter(tmp_path).sink(name, pa.schema([("a", pa.int64())])),
    ):
        with pytest.raises(UsageError, match=r"\.parquet, \.csv, \.arrow"):
            use()


def test_a_file_uri_and_a_path_name_the_same_file(tmp_path: Path) -> None:
    put(pa.table({"a": [1]}), tmp_path / "with space.parquet")
    uri = (tmp_path / "with space.parquet").as_uri()
    assert "%20" in uri
    for name in (uri, "with space.parquet", str(tmp_path / "with space.parquet")):
        assert FileReader.from_config(DATA, tmp_path, name).schema().names == ["a"]


def test_a_directory_that_cannot_be_written_to_is_an_error_of_the_outside(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    sink = FileWriter(tmp_path).sink("file/out.csv", pa.schema([("a", pa.int64())]))
    with pytest.raises(LodestarError) as caught, sink:
        pass
    assert caught.value.exit_code == 4


def test_a_query_cannot_read_files_outside_its_directory(tmp_path: Path) -> None:
    put(pa.table({"a": [1]}), tmp_path / "outside.csv")
    put(pa.table({"a": [1]}), tmp_path / "data" / "inside.csv")
    outside = tmp_path / "outside.csv"
    for sql in (
        f"SELECT * FROM read_csv('{outside}')",
        f"SELECT * FROM inside, read_text('{outside}')",
        f"SELECT * FROM inside, glob('{tmp_path}/*')",
        f"SELECT * FROM '{outside}'",
    ):
        with pytest.raises(LodestarError):
            DuckDBReader(tmp_path / "data", parse_query(sql, "duckdb", where="x.sql"), {}).schema()


@pytest.mark.parametrize("table", ['"../outside"', '"a b"', '"a"";--"', '"/etc/passwd"'])
def test_a_table_name_is_never_a_path(tmp_path: Path, table: str) -> None:
    put(pa.table({"a": [1]}), tmp_path / "outside.csv")
    query = parse_query(f"SELECT * FROM {table}", "postgres", where="x.sql")
    with pytest.raises(DataError, match="is no table name"):
        DuckDBReader(tmp_path / "data", query, {})


@pytest.mark.parametrize(
    "sql", ["SELECT t.*, u.* FROM t JOIN t AS u ON t.a = u.a", "SELECT *, a FROM t"]
)
def test_a_column_that_stands_twice_behind_a_star_is_refused(tmp_path: Path, sql: str) -> None:
    put(pa.table({"a": [1]}), tmp_path / "t.parquet")
    reader = DuckDBReader(tmp_path, parse_query(sql, "postgres", where="x.sql"), {})
    with pytest.raises(DataError, match="'a' stands twice"):
        reader.read(chunk_rows=10)


def test_a_failure_in_the_middle_of_a_query_is_our_error(tmp_path: Path) -> None:
    values = ["1"] * 300_000 + ["x"]
    put(pa.table({"a": values}), tmp_path / "t.parquet")
    query = parse_query("SELECT CAST(a AS INTEGER) AS a FROM t", "postgres", where="x.sql")
    reader = DuckDBReader(tmp_path, query, {}).read(chunk_rows=1_000)
    with pytest.raises(DataError, match="fails on the data"):
        reader.read_all()
