"""Rows in temporary parquet files, until all of them are there and a warehouse loads them at once."""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Self

import pyarrow as pa
import pyarrow.parquet as pq

from lodestar.errors import ExternalError

__all__ = ["ParquetSpool"]

PART_BYTES = 128 << 20  # of a file; a warehouse loads several of about this size side by side


class ParquetSpool:
    """Takes batches of one schema; what it holds in memory is a batch. Its files have no names.

    Use it in a `with` block; the files go with it, or with the process.
    """

    def __init__(self, schema: pa.Schema, *, part_bytes: int = PART_BYTES) -> None:
        self._schema = schema
        self._part_bytes = part_bytes
        self._files: list[IO[bytes]] = []
        self._writer: pq.ParquetWriter | None = None
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # on a full disk it says again what it could not write
            self._end()
        for file in self._files:
            file.close()

    def write(self, rows: pa.RecordBatch) -> None:
        """Add rows.

        Raises:
            ExternalError: the disk is full.
        """
        try:
            writer = self._writer or self._begin()
            writer.write_batch(rows)
            if self._files[-1].tell() > self._part_bytes:
                self._end()
        except OSError as error:
            raise _unwritable(error) from error
        self.rows += rows.num_rows

    def parts(self) -> Iterator[IO[bytes]]:
        """Each file from its beginning; one without rows if there were none."""
        try:
            if not self._files:
                self._begin()
            self._end()
        except OSError as error:
            raise _unwritable(error) from error
        for file in self._files:
            file.seek(0)
            yield file

    def _begin(self) -> pq.ParquetWriter:
        self._files.append(tempfile.TemporaryFile())  # noqa: SIM115 -- closed with the block
        self._writer = pq.ParquetWriter(self._files[-1], self._schema, coerce_timestamps="us")
        return self._writer

    def _end(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


def _unwritable(error: OSError) -> ExternalError:
    return ExternalError(
        f"{tempfile.gettempdir()} cannot hold the rows that wait for the warehouse: "
        f"{error.strerror or error}",
        hint="free some space, or set TMPDIR",
    )
