"""Files as sources and destinations: parquet, csv and arrow, streamed in, published atomically."""

import contextlib
import os
import secrets
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

import psutil
import pyarrow as pa

from lodestar.adapters.files.errors import translated
from lodestar.adapters.files.formats import (
    SUFFIXES,
    BatchWriter,
    chunks,
    coded_schema,
    footer_of,
    new_writer,
    require_suffix,
    schema_of,
    small_dictionaries,
)
from lodestar.adapters.files.parquet_parts import parquet_parts
from lodestar.errors import DataError, ExternalError, choices
from lodestar.interface.parts import Divided, Division
from lodestar.settings.config import Data

__all__ = ["FileReader", "FileWriter", "path_of", "sync_directory", "translated"]

_PROBE = b"lodestar check --online"


class FileReader:
    """One parquet, csv or arrow file, read a chunk at a time."""

    def __init__(self, path: Path, *, coded: tuple[str, ...] = ()) -> None:
        """`coded`: which text columns come as dictionaries."""
        self._path, self._coded = path, coded
        require_suffix(path.suffix, f"{path.name}: not a kind of file that can be read")
        if not path.is_file():
            folder = path.parent
            names = (
                [p.name for p in folder.iterdir() if p.suffix in SUFFIXES]
                if folder.is_dir()
                else []
            )
            raise DataError(f"there is no file {path}", hint=choices(path.name, names))

    @classmethod
    def from_config(cls, data: Data, project: Path, uri: str) -> "FileReader":
        """Read a `file:` URI or a path; relative ones are below the project."""
        del data
        return cls(path_of(uri, project))

    def schema(self) -> pa.Schema:
        """The columns, from the file's own metadata (csv: from its first block)."""
        with translated(self._path), self._source() as source:
            return coded_schema(schema_of(source, self._path.suffix), self._coded)

    def coded(self, names: Collection[str]) -> "FileReader":
        """Of a parquet file; other kinds are read as ever."""
        with translated(self._path), self._source() as source:
            footer = footer_of(source, self._path.suffix)
        coded = () if footer is None else small_dictionaries(footer, names)
        return FileReader(self._path, coded=coded)

    def read(self, *, chunk_rows: int) -> pa.RecordBatchReader:
        """Stream the rows; memory holds a few chunks, however long the file."""
        target = self.schema()

        def stream() -> Iterator[pa.RecordBatch]:
            with translated(self._path), self._source() as source:
                suffix = self._path.suffix
                yield from chunks(source, suffix, target, chunk_rows, coded=self._coded)

        return pa.RecordBatchReader.from_batches(target, stream())

    def _source(self) -> pa.NativeFile:
        """Arrow's own format needs no buffers of its own where the file is mapped."""
        opened = pa.memory_map if self._path.suffix == ".arrow" else pa.OSFile
        return opened(str(self._path))

    @contextlib.contextmanager
    def parts(self, division: Division) -> Iterator[Divided]:
        """A parquet file's row groups, several to a part; other files are read from their beginning."""
        if self._path.suffix != ".parquet":
            yield Divided(None)
            return
        size = {"chunk_rows": division.chunk_rows, "part_rows": division.part_rows}
        yield Divided(parquet_parts(self._path, coded=self._coded, **size))


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
        require_suffix(path.suffix, f"cannot write {path.name}: unknown kind of file")
        return FileSink(path, schema)

    def put(self, destination: str, content: bytes) -> None:
        """Write a small file whole, in place of what is there."""
        path = path_of(destination, self._root)
        aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        with translated(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                aside.write_bytes(content)
                _sync(aside)
                aside.replace(path)
                sync_directory(path.parent)
            finally:
                aside.unlink(missing_ok=True)

    def get(self, destination: str) -> bytes | None:
        """What a file holds; None where there is none."""
        path = path_of(destination, self._root)
        with translated(path):
            return path.read_bytes() if path.is_file() else None

    def has(self, destination: str) -> bool:
        """Whether there is such a file."""
        return path_of(destination, self._root).is_file()

    def remove(self, destination: str) -> None:
        """Remove a file, where it is there."""
        path = path_of(destination, self._root)
        with translated(path):
            path.unlink(missing_ok=True)

    def probe(self, place: str) -> str:
        """Write, read and remove a file in a folder, which is made for it and goes with it."""
        folder = path_of(place, self._root)
        path = folder / f".lodestar-check-{secrets.token_hex(8)}"
        with contextlib.ExitStack() as stack, translated(path):
            for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
                missing.mkdir()
                stack.callback(_remove_if_empty, missing)
            stack.callback(path.unlink, missing_ok=True)
            path.write_bytes(_PROBE)
            if path.read_bytes() != _PROBE:
                raise ExternalError(f"{folder} does not give back what was written there")
        return "a file was written, read and removed"


class FileSink:
    """Writes beside the destination, then renames: readers see the old file or the whole new one."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._schema = schema
        self._aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        self._writer: BatchWriter

    def __enter__(self) -> Self:
        with translated(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _remove_orphans(self._path)
            self._writer = new_writer(self._aside, self._path.suffix, self._schema)
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


def path_of(uri: str, root: Path) -> Path:
    """The file a URI or path names; relative ones are below `root`."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return root / uri


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


def _remove_if_empty(folder: Path) -> None:
    """Somebody else may have put something there meanwhile."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _remove_orphans(path: Path) -> None:
    """Remove what writers of this file left behind when they were killed."""
    for orphan in path.parent.glob(f".{path.name}.*.tmp"):
        owner = orphan.name.removeprefix(f".{path.name}.").split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            with contextlib.suppress(FileNotFoundError):  # another writer cleaned up first
                orphan.unlink()
