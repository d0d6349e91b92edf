"""Formats of rows in a file, wherever it lies: parquet, csv and arrow, read in chunks and written."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from lodestar.errors import UsageError
from lodestar.schema import canonical, canonical_schema

__all__ = [
    "SUFFIXES",
    "BatchWriter",
    "Chunks",
    "chunks",
    "new_writer",
    "parquet_chunks",
    "require_suffix",
    "schema_of",
]

SUFFIXES = (".parquet", ".csv", ".arrow")
READ_BUFFER = 1 << 16  # bytes per column
FAR_BUDGET = 1 << 26  # bytes of a file far away that are held at a time


class BatchWriter(Protocol):
    """Writes rows in one format."""

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        ...

    def close(self) -> None:
        """Write what stands at the end; the file itself stays open."""
        ...


@dataclass(frozen=True)
class Chunks:
    """The columns of an open file as they are in it, and its rows."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


def require_suffix(suffix: str, complaint: str) -> None:
    """Check that a suffix names a format.

    Raises:
        UsageError: the complaint, with the valid ones.
    """
    if suffix not in SUFFIXES:
        raise UsageError(complaint, hint=f"valid suffixes: {', '.join(SUFFIXES)}")


def schema_of(source: pa.NativeFile, suffix: str, *, far: bool = False) -> pa.Schema:
    """The canonical columns, from the file's own metadata (csv: from its first block)."""
    with _opened(source, suffix, 1, far=far) as found:
        return canonical_schema(found.schema)


def chunks(
    source: pa.NativeFile, suffix: str, target: pa.Schema, chunk_rows: int, *, far: bool = False
) -> Iterator[pa.RecordBatch]:
    """Rows in the types of `target`; memory holds a few chunks, however long the file.

    Where the file is `far`, few large requests are better than many small ones.
    """
    with _opened(source, suffix, chunk_rows, far=far) as found:
        for batch in found.batches:
            for start in range(0, batch.num_rows, chunk_rows):
                yield canonical(batch.slice(start, chunk_rows), target)


def new_writer(sink: Any, suffix: str, schema: pa.Schema) -> BatchWriter:  # noqa: ANN401 -- a path or file
    """Begin a file of this format."""
    match suffix:
        case ".parquet":
            # Dictionaries pay for text alone: numbers that rarely repeat take twice the time
            # and more room with them.
            texts = [field.name for field in schema if _is_text(field.type)]
            parquet: BatchWriter = pq.ParquetWriter(sink, schema, use_dictionary=texts or False)
            return parquet
        case ".csv":
            return _CsvWriter(sink, schema)
        case _:
            arrow: BatchWriter = pa.ipc.new_file(sink, schema)
            return arrow


def _opened(
    source: pa.NativeFile, suffix: str, chunk_rows: int, *, far: bool
) -> AbstractContextManager[Chunks]:
    match suffix:
        case ".parquet":
            return parquet_chunks(source, chunk_rows, far=far)
        case ".csv":
            return _csv(source)
        case _:
            return _arrow(source)


@dataclass(frozen=True)
class _Fetching:
    """How parquet's bytes are fetched: so many per column at a time, or a row group's all at once."""

    budget: int | None

    def options(self, metadata: pq.FileMetaData) -> dict[str, Any]:
        if self.budget is None:
            return {"pre_buffer": False, "buffer_size": READ_BUFFER}
        if _largest_group(metadata) <= self.budget:
            return {"pre_buffer": True}
        share = max(self.budget // max(metadata.num_columns, 1), READ_BUFFER)
        return {"pre_buffer": False, "buffer_size": share}


_NEAR = _Fetching(None)
_FAR = _Fetching(FAR_BUDGET)


def _largest_group(metadata: pq.FileMetaData) -> int:
    """The most bytes that a row group takes in the file."""
    sizes = (
        sum(
            metadata.row_group(group).column(column).total_compressed_size
            for column in range(metadata.num_columns)
        )
        for group in range(metadata.num_row_groups)
    )
    return max(sizes, default=0)


@contextmanager
def parquet_chunks(
    source: pa.NativeFile,
    chunk_rows: int,
    groups: Sequence[int] | None = None,
    *,
    far: bool = False,
) -> Iterator[Chunks]:
    """The chunks of some row groups, or of all; none reaches from one group into the next."""
    # One row group at a time: otherwise the reader keeps every column chunk of the file until the
    # end. One thread: decoding is quick beside what is done with the rows, and every decoding thread
    # keeps buffers of its own.
    metadata = pq.read_metadata(source)
    options = (_FAR if far else _NEAR).options(metadata)
    with pq.ParquetFile(source, metadata=metadata, **options) as file:
        batches = (
            batch
            for group in (range(file.num_row_groups) if groups is None else groups)
            for batch in file.iter_batches(
                batch_size=chunk_rows, row_groups=[group], use_threads=False
            )
        )
        yield Chunks(file.schema_arrow, batches)


@contextmanager
def _csv(source: pa.NativeFile) -> Iterator[Chunks]:
    """Csv comes in blocks of bytes, not in rows."""
    with pacsv.open_csv(source) as reader:
        yield Chunks(reader.schema, map(_without_empty_text, reader))


@contextmanager
def _arrow(source: pa.NativeFile) -> Iterator[Chunks]:
    """A file's batches are as they were written."""
    with pa.ipc.open_file(source) as reader:
        count = reader.num_record_batches
        yield Chunks(reader.schema, (reader.get_batch(position) for position in range(count)))


def _without_empty_text(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A csv file writes null and empty text alike: both are null, as they are to DuckDB."""
    columns = [
        pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)
        if pa.types.is_string(column.type)
        else column
        for column in batch.columns
    ]
    return pa.record_batch(columns, schema=batch.schema)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind) or pa.types.is_string(kind))


class _CsvWriter:
    """pyarrow's csv writer takes `write_batch` only without dictionaries; this decodes them."""

    def __init__(self, sink: Any, schema: pa.Schema) -> None:  # noqa: ANN401 -- a path or file
        self._plain = pa.schema(
            [
                (
                    field.name,
                    field.type.value_type if pa.types.is_dictionary(field.type) else field.type,
                )
                for field in schema
            ]
        )
        self._writer = pacsv.CSVWriter(sink, self._plain)

    def write_batch(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch.cast(self._plain))

    def close(self) -> None:
        self._writer.close()
