"""A parquet file in parts that several processes read, each its own row groups."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lodestar.adapters.files.errors import translated
from lodestar.adapters.files.formats import coded_schema, parquet_chunks
from lodestar.adapters.parts import grouped
from lodestar.errors import ExternalError
from lodestar.schema import canonical, canonical_schema

__all__ = ["ParquetPart", "parquet_parts", "rows_of_groups"]

HASH_BYTES = 1 << 20
TAIL = 8  # bytes: how long the footer is, and the format's name


@dataclass(frozen=True)
class ParquetPart:
    """Some row groups of a file, `stop` not among them; their bytes lie between `begin` and `end`.

    `footer` is the digest of the file's own description of itself, by which another machine sees that
    it has the same file under that path. Text columns that are `coded` come as dictionaries.
    """

    path: Path
    start: int
    stop: int
    rows: int
    begin: int
    end: int
    footer: str
    chunk_rows: int
    coded: tuple[str, ...] = ()

    def digest(self) -> str:
        """The digest of the row groups' bytes.

        Raises:
            ExternalError: there is no such file on this machine, or another one.
        """
        self._require_same()
        digest = hashlib.sha256(f"{self.rows}\0{self.chunk_rows}\0".encode())
        with translated(self.path), self.path.open("rb") as file:
            file.seek(self.begin)
            left = self.end - self.begin
            while left > 0 and (block := file.read(min(left, HASH_BYTES))):
                digest.update(block)
                left -= len(block)
        return digest.hexdigest()

    def read(self) -> Iterator[pa.RecordBatch]:
        """The rows, a chunk at a time.

        Raises:
            ExternalError: there is no such file on this machine, or another one.
        """
        self._require_same()
        groups = range(self.start, self.stop)
        with (
            translated(self.path),
            pa.OSFile(str(self.path)) as source,
            parquet_chunks(source, self.chunk_rows, groups, coded=self.coded) as found,
        ):
            target = coded_schema(canonical_schema(found.schema), self.coded)
            for batch in found.batches:
                yield canonical(batch, target)

    def _require_same(self) -> None:
        if not self.path.is_file():
            raise ExternalError(
                f"there is no file {self.path} where this part is to be scored",
                hint="all nodes must see the project's files under the same path (shared storage)",
            )
        if _footer(self.path) != self.footer:
            raise ExternalError(
                f"{self.path} is another file where this part is to be scored, or was written anew",
                hint="all nodes must see the same file, and it must not change meanwhile",
            )


def parquet_parts(
    path: Path, *, chunk_rows: int, part_rows: int, coded: tuple[str, ...] = ()
) -> list[ParquetPart]:
    """All rows, in order; a part has at least one whole row group."""
    with translated(path):
        footer = _footer(path)
        described = pq.read_metadata(path)
    parts: list[ParquetPart] = []
    for start, stop, rows in grouped(rows_of_groups(described), part_rows):
        places = [_place(described.row_group(at)) for at in range(start, stop)]
        begin, end = min(place[0] for place in places), max(place[1] for place in places)
        size = (start, stop, rows, begin, end)
        parts.append(ParquetPart(path, *size, footer, chunk_rows, coded))
    return parts


def rows_of_groups(described: pq.FileMetaData) -> list[int]:
    """How many rows each row group has."""
    return [described.row_group(at).num_rows for at in range(described.num_row_groups)]


def _place(group: pq.RowGroupMetaData) -> tuple[int, int]:
    """Where a row group's bytes lie."""
    columns = [group.column(at) for at in range(group.num_columns)]
    begins = [
        column.data_page_offset
        if column.dictionary_page_offset is None
        else min(column.dictionary_page_offset, column.data_page_offset)
        for column in columns
    ]
    ends = [
        begin + column.total_compressed_size for begin, column in zip(begins, columns, strict=True)
    ]
    return min(begins), max(ends)


def _footer(path: Path) -> str:
    """The digest of the file's description of itself: sizes, places and bounds of all it has."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - TAIL, 0))
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(size - TAIL - length, 0))
        return hashlib.sha256(f"{size}\0".encode() + file.read()).hexdigest()
