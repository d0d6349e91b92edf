"""Formats of rows in a file, wherever it lies: parquet, csv and arrow, read in chunks and written."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from lodestar.adapters.files.reading_ahead import Ahead, expect_all, fetching_of
from lodestar.errors import UsageError
from lodestar.schema import canonical, canonical_schema

__all__ = [
    "SUFFIXES",
    "BatchWriter",
    "Chunks",
    "chunks",
    "coded_schema",
    "footer_of",
    "new_writer",
    "parquet_chunks",
    "require_suffix",
    "schema_of",
    "small_dictionaries",
]

SUFFIXES = (".parquet", ".csv", ".arrow")
READ_BUFFER = 1 << 16  # bytes per column
# Of a column with a larger one in a row group, text would be looked up more often than it is used.
SMALL_DICTIONARY = 1 << 14  # bytes
CODED = pa.dictionary(pa.int32(), pa.string())


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


def footer_of(source: pa.NativeFile, suffix: str) -> pq.FileMetaData | None:
    """What a parquet file says of itself at its end; other formats have nothing that can be kept."""
    return pq.read_metadata(source) if suffix == ".parquet" else None


def schema_of(
    source: pa.NativeFile, suffix: str, *, footer: pq.FileMetaData | None = None
) -> pa.Schema:
    """The canonical columns, from the file's own metadata (csv: from its first block)."""
    with _opened(source, suffix, 1, footer=footer) as found:
        return canonical_schema(found.schema)


def small_dictionaries(footer: pq.FileMetaData, names: Collection[str]) -> tuple[str, ...]:
    """Those of the text columns that lie in small dictionaries, in each row group of a parquet file."""
    schema = footer.schema
    texts = [
        at
        for at in range(len(schema))
        if schema.column(at).path in names and schema.column(at).logical_type.type == "STRING"
    ]
    groups = [footer.row_group(at) for at in range(footer.num_row_groups)]
    return tuple(
        schema.column(at).path
        for at in texts
        if all(_dictionary_size(group.column(at)) <= SMALL_DICTIONARY for group in groups)
    )


def coded_schema(schema: pa.Schema, names: Collection[str]) -> pa.Schema:
    """The same with dictionaries in place of these text columns."""
    return pa.schema([field.with_type(CODED) if field.name in names else field for field in schema])


def chunks(
    source: pa.NativeFile,
    suffix: str,
    target: pa.Schema,
    chunk_rows: int,
    *,
    coded: Collection[str] = (),
    far: Ahead | None = None,
    footer: pq.FileMetaData | None = None,
) -> Iterator[pa.RecordBatch]:
    """Rows in the types of `target`; memory holds a few chunks, however long the file.

    Text columns of a parquet file that are `coded` come as dictionaries.

    A file that is `far` away is told what is read next. A `footer` that is known is not read again.
    """
    with _opened(source, suffix, chunk_rows, coded=coded, far=far, footer=footer) as found:
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
    source: pa.NativeFile,
    suffix: str,
    chunk_rows: int,
    *,
    coded: Collection[str] = (),
    far: Ahead | None = None,
    footer: pq.FileMetaData | None = None,
) -> AbstractContextManager[Chunks]:
    match suffix:
        case ".parquet":
            return parquet_chunks(source, chunk_rows, coded=coded, far=far, footer=footer)
        case ".csv":
            return _csv(source, far)
        case _:
            return _arrow(source, far)


@contextmanager
def parquet_chunks(
    source: pa.NativeFile,
    chunk_rows: int,
    groups: Sequence[int] | None = None,
    *,
    coded: Collection[str] = (),
    far: Ahead | None = None,
    footer: pq.FileMetaData | None = None,
) -> Iterator[Chunks]:
    """The chunks of some row groups, or of all; none reaches from one group into the next."""
    # One row group at a time: otherwise the reader keeps every column chunk of the file until the
    # end. One thread: decoding is quick beside what is done with the rows, and every decoding thread
    # keeps buffers of its own.
    footer = pq.read_metadata(source) if footer is None else footer
    fetching = None if far is None else fetching_of(footer)
    buffer_size = READ_BUFFER if fetching is None else fetching.buffer_size
    with pq.ParquetFile(
        source,
        metadata=footer,
        read_dictionary=list(coded),
        pre_buffer=False,
        buffer_size=buffer_size,
    ) as file:

        def batches() -> Iterator[pa.RecordBatch]:
            for group in range(file.num_row_groups) if groups is None else groups:
                if fetching is not None and far is not None:
                    fetching.tell(far, group)
                yield from file.iter_batches(
                    batch_size=chunk_rows, row_groups=[group], use_threads=False
                )

        yield Chunks(file.schema_arrow, batches())


@contextmanager
def _csv(source: pa.NativeFile, far: Ahead | None) -> Iterator[Chunks]:
    """Csv comes in blocks of bytes, not in rows."""
    if far is not None:
        expect_all(far, source.size())
    with pacsv.open_csv(source) as reader:
        yield Chunks(reader.schema, map(_without_empty_text, reader))


@contextmanager
def _arrow(source: pa.NativeFile, far: Ahead | None) -> Iterator[Chunks]:
    """A file's batches are as they were written."""
    with pa.ipc.open_file(source) as reader:
        if far is not None:
            expect_all(far, source.size())
        count = reader.num_record_batches
        yield Chunks(reader.schema, (reader.get_batch(position) for position in range(count)))


def _dictionary_size(column: pq.ColumnChunkMetaData) -> float:
    """Bytes in the file; infinite where there is none."""
    begin = column.dictionary_page_offset
    return np.inf if begin is None else column.data_page_offset - begin


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
