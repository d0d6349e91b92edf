"""The spine's rows in a temporary file, while they wait for the features of their window of times."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc

from lodestar.errors import DataError, ExternalError
from lodestar.interface.features import TimeRange

__all__ = ["StagedSpine", "stage"]

PIECE_ROWS = 4_096  # whoever scans the file reads up to 32 pieces ahead
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class StagedSpine:
    """Rows to be read again, and between which times they lie."""

    rows: int
    first: datetime
    last: datetime
    _file: IO[bytes]

    def window(self, ttl: timedelta | None) -> TimeRange:
        """The event times that can matter to any row."""
        since = None
        if ttl is not None and self.first - datetime.min.replace(tzinfo=UTC) >= ttl:
            since = self.first - ttl
        return TimeRange(since, self.last)

    def read(self) -> pa.RecordBatchReader:
        """Read the rows from the first, in order, a piece at a time; one reading at a time."""
        self._file.seek(0)
        return pa.ipc.open_stream(pa.PythonFile(self._file, "r"))


@contextmanager
def stage(
    spine: pa.RecordBatchReader, timestamp: str, *, folder: Path | None
) -> Iterator[StagedSpine]:
    """Write all rows to a file without a name, which goes with the process, however it ends.

    Raises:
        DataError: rows have no timestamp, or one outside of the years 1 to 9999.
        ExternalError: the file cannot be written.
    """
    with _file(folder) as file:
        sink = pa.ipc.new_stream(pa.PythonFile(file, "w"), spine.schema)
        seen = _Times()
        for batch in spine:
            seen.add(batch.column(timestamp))
            with _worded(folder):
                for start in range(0, batch.num_rows, PIECE_ROWS):
                    sink.write_batch(batch.slice(start, PIECE_ROWS))
        with _worded(folder):
            sink.close()
            file.flush()
        seen.refuse_nulls(timestamp)
        yield StagedSpine(seen.rows, _moment(seen.first), _moment(seen.last), file)


class _Times:
    """Which times the rows have, seen batch by batch; µs."""

    def __init__(self) -> None:
        self.rows = self.nulls = 0
        self.first, self.last = 2**63 - 1, -(2**63)

    def add(self, times: pa.Array) -> None:
        self.rows += len(times)
        self.nulls += times.null_count
        if times.null_count < len(times):
            ends = pc.min_max(times.cast(pa.int64()))
            self.first = min(self.first, ends["min"].as_py())
            self.last = max(self.last, ends["max"].as_py())

    def refuse_nulls(self, timestamp: str) -> None:
        if self.nulls:
            raise DataError(
                f"{self.nulls:,} of {self.rows:,} rows have no {timestamp!r}, so it is not known "
                "which features they had",
                hint="leave such rows out in the loader's SQL",
            )
        if not self.rows:
            self.first = self.last = 0


def _moment(micros: int) -> datetime:
    try:
        return EPOCH + micros * MICROSECOND
    except OverflowError as error:
        raise DataError(
            "a timestamp of the rows lies outside of the years 1 to 9999",
            hint="leave such rows out in the loader's SQL",
        ) from error


@contextmanager
def _file(folder: Path | None) -> Iterator[IO[bytes]]:
    with _worded(folder):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 -- closed below, whatever it says
    try:
        yield file
    finally:
        with suppress(OSError):  # on a full disk it says again what it could not write
            file.close()


@contextmanager
def _worded(folder: Path | None) -> Iterator[None]:
    place = folder or tempfile.gettempdir()
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise ExternalError(
                f"no space left in {place} for the rows that wait for their features",
                hint="free some space, or have the temporary file elsewhere",
            ) from error
        raise ExternalError(
            f"{place}: {error.strerror or error}", hint="the folder must be writable"
        ) from error
