"""Files as sources and destinations: parquet, csv and arrow, streamed in, published atomically."""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from lodestar.adapters.file_errors import translated
from lodestar.adapters.parquet_parts import ParquetPart, group_batches, parquet_parts
from lodestar.errors import DataError, UsageError, choices
from lodestar.schema import canonical, canonical_schema
from lodestar.settings.config import Data

__all__ = ["SUFFIXES", "FileReader", "FileWriter", "path_of", "sync_directory", "translated"]

SUFFIXES = (".parquet", ".csv", ".arrow")


class FileReader:
    """One parquet, csv or arrow file, read a chunk at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.suffix not in SUFFIXES:
            raise UsageError(f"{path.name}: not a kind of file that can be read", hint=_kinds())
        if not path.is_file():
            folder = path.parent
            names = (
                [p.name for p in folder.iterdir() if p.suffix in SUFFIXES]
                if folder.is_dir()
                else []
            )
            raise DataError(f"there is no file {path}", hint=choices(path.name, names))

    @classmethod
    def from_uri(cls, uri: str, project: Path) -> "FileReader":
        """Read a `file:` URI or a path; relative ones are below the project."""
        return cls(path_of(uri, project))

    def schema(self) -> pa.Schema:
        """The columns, from the file's own metadata (csv: from its first block)."""
        with translated(self._path), self._batches(1) as (schema, _):
            return canonical_schema(schema)

    def read(self, *, chunk_rows: int) -> pa.RecordBatchReader:
        """Stream the rows; memory holds a few chunks, however long the file."""
        with translated(self._path), self._batches(1) as (schema, _):
            target = canonical_schema(schema)

        def stream() -> Iterator[pa.RecordBatch]:
            with translated(self._path), self._batches(chunk_rows) as (_, batches):
                for batch in batches:
                    for start in range(0, batch.num_rows, chunk_rows):
                        yield canonical(batch.slice(start, chunk_rows), target)

        return pa.RecordBatchReader.from_batches(target, stream())

    def parts(self, *, chunk_rows: int, part_rows: int) -> list[ParquetPart] | None:
        """A parquet file's row groups, several to a part; other files are read from their beginning."""
        if self._path.suffix != ".parquet":
            return None
        return parquet_parts(self._path, chunk_rows=chunk_rows, part_rows=part_rows)

    @contextmanager
    def _batches(self, chunk_rows: int) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        openers: dict[str, Callable[[int], Any]] = {
            ".parquet": self._parquet,
            ".csv": self._csv,
            ".arrow": self._arrow,
        }
        with openers[self._path.suffix](chunk_rows) as opened:
            yield opened

    @contextmanager
    def _parquet(self, chunk_rows: int) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        with group_batches(self._path, chunk_rows) as found:
            yield found

    @contextmanager
    def _csv(self, chunk_rows: int) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        del chunk_rows  # csv comes in blocks of bytes
        with pacsv.open_csv(self._path) as reader:
            yield reader.schema, map(_without_empty_text, reader)

    @contextmanager
    def _arrow(self, chunk_rows: int) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        del chunk_rows  # a file's batches are as they were written
        with pa.memory_map(str(self._path)) as source, pa.ipc.open_file(source) as reader:
            count = reader.num_record_batches
            yield reader.schema, (reader.get_batch(position) for position in range(count))


class FileWriter:
    """Writes files below a root directory, or at absolute paths."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @classmethod
    def from_config(cls, data: Data, project: Path) -> "FileWriter":
        """Write below the project."""
        del data
        return cls(project)

    def sink(
        self, destination: str, schema: pa.Schema, *, replace: Mapping[str, str] | None = None
    ) -> "FileSink":
        """Prepare one file, replaced as a whole; its suffix says which kind."""
        del replace
        path = path_of(destination, self._root)
        if path.suffix not in SUFFIXES:
            raise UsageError(f"cannot write {path.name}: unknown kind of file", hint=_kinds())
        return FileSink(path, schema)


class FileSink:
    """Writes beside the destination, then renames: readers see the old file or the whole new one."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._schema = schema
        self._aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        self._writer: Any = None

    def __enter__(self) -> Self:
        with translated(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _remove_orphans(self._path)
            self._writer = self._open()
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        with translated(self._path):
            self._writer.write_batch(batch)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with translated(self._path):
                self._writer.close()
                if kind is None:
                    _sync(self._aside)
                    self._aside.replace(self._path)
                    sync_directory(self._path.parent)
        finally:
            self._aside.unlink(missing_ok=True)

    def _open(self) -> Any:  # noqa: ANN401 -- one of three pyarrow writers, all with write_batch
        match self._path.suffix:
            case ".parquet":
                # Dictionaries pay for text alone: numbers that rarely repeat take twice the time
                # and more room with them.
                texts = [field.name for field in self._schema if _is_text(field.type)]
                return pq.ParquetWriter(self._aside, self._schema, use_dictionary=texts or False)
            case ".csv":
                return _CsvWriter(self._aside, self._schema)
            case _:
                return pa.ipc.new_file(str(self._aside), self._schema)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind) or pa.types.is_string(kind))


class _CsvWriter:
    """pyarrow's csv writer takes `write_batch` only without dictionaries; this decodes them."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._plain = pa.schema(
            [
                (
                    field.name,
                    field.type.value_type if pa.types.is_dictionary(field.type) else field.type,
                )
                for field in schema
            ]
        )
        self._writer = pacsv.CSVWriter(path, self._plain)

    def write_batch(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch.cast(self._plain))

    def close(self) -> None:
        self._writer.close()


def path_of(uri: str, root: Path) -> Path:
    """The file a URI or path names; relative ones are below `root`."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return root / uri


def _without_empty_text(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A csv file writes null and empty text alike: both are null, as they are to DuckDB."""
    columns = [
        pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)
        if pa.types.is_string(column.type)
        else column
        for column in batch.columns
    ]
    return pa.record_batch(columns, schema=batch.schema)


def _kinds() -> str:
    return f"valid suffixes: {', '.join(SUFFIXES)}"


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Make renames in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_orphans(path: Path) -> None:
    """Remove what writers of this file left behind when they were killed."""
    for orphan in path.parent.glob(f".{path.name}.*.tmp"):
        owner = orphan.name.removeprefix(f".{path.name}.").split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            with contextlib.suppress(FileNotFoundError):  # another writer cleaned up first
                orphan.unlink()
