"""What parts share wherever their rows lie: pieces put together, and rows known by their content."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from lodestar.core.fingerprint import fingerprint
from lodestar.errors import ExternalError, LodestarError, UsageError
from lodestar.interface.parts import Division
from lodestar.settings.loading import Environment

__all__ = ["MovingPart", "grouped"]


def grouped(counts: Sequence[int], part_rows: int) -> Iterator[tuple[int, int, int]]:
    """Neighbouring pieces of about `part_rows` rows together, given how many each has.

    Of each group the first piece, the one after the last, and the rows.
    """
    rows, start = 0, 0
    for at, count in enumerate(counts):
        rows += count
        last = at + 1 == len(counts)
        if rows and (last or rows + counts[at + 1] > part_rows):
            yield start, at + 1, rows
            rows, start = 0, at + 1


class MovingPart(ABC):
    """Rows that may be others at the next go, so that their digest is that of their content.

    It is of the rows in their order, and of how many come before them where that matters. What a
    subclass connects with must not be pickled: who reads the part elsewhere connects by `_environment`.
    """

    def __init__(self, rows: int, first_row: int, division: Division) -> None:
        self._rows = rows
        self._first_row = first_row if division.numbered else 0
        self._chunk_rows = division.chunk_rows
        self._place = division.place
        self._digest = ""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_digest": ""}

    @property
    def rows(self) -> int:
        """How many the server has counted."""
        return self._rows

    def digest(self) -> str:
        """The digest of what was read, which is read for it where it was not yet."""
        if not self._digest:
            for _ in self.read():
                pass
        return self._digest

    def read(self) -> Iterator[pa.RecordBatch]:
        """The rows, a chunk at a time.

        Raises:
            LodestarError: they cannot be read, or there are more or fewer than were counted.
        """
        digest = hashlib.sha256(f"{self._first_row}\0{self._chunk_rows}\0".encode())
        count = 0
        for rows in self._fetched():
            digest.update(fingerprint(pa.Table.from_batches([rows])).encode())
            count += rows.num_rows
            yield rows
        if count != self._rows:
            raise self._miscounted(count)
        self._digest = digest.hexdigest()

    @abstractmethod
    def _fetched(self) -> Iterator[pa.RecordBatch]:
        """Fetch the rows in canonical types, at most a chunk at a time."""

    def _miscounted(self, count: int) -> LodestarError:
        return ExternalError(
            f"{count:,} of {self._rows:,} rows came", hint="nothing was kept of them; try again"
        )

    def _environment(self) -> Environment:
        """The config as this process's own files and variables have it.

        Raises:
            UsageError: nobody said where it lies.
        """
        if self._place is None:
            raise UsageError("a part of a query can only be read where its config is known")
        return self._place.read(os.environ)
