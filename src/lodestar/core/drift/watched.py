"""Rows of a part that are watched for drift: counted by whoever wants to know, or before they travel."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lodestar.core.drift.sketches import Reference, Window

__all__ = ["WHOLE", "Counted", "WatchedRows"]

# So many first rows of a batch are all counted, and of those behind them a quarter: more say no more,
# and counting them would take a seventh of a batch's time.
WHOLE = 131_072
# Multiples of the golden ratio's fraction of 2^64 (Knuth, TAOCP 6.4) fall evenly into its quarters, also
# those of every k-th row for any k: what comes back every k rows is counted as often as it comes.
GOLDEN, QUARTER = np.uint64(0x9E3779B97F4A7C15), np.uint64(62)


class Counted:
    """What was counted, as plain values (see `Window.to_json`)."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def counted(self) -> Mapping[str, Any]:
        """The counts."""
        return self._values


class WatchedRows:
    """Rows held until somebody asks for their counts: in this process that may be another thread.

    What goes to another process are the counts, which are small.
    """

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self.held: list[pa.RecordBatch] = []

    def add(
        self, rows: pa.RecordBatch, predictions: Mapping[str, pa.Array], *, first_row: int
    ) -> None:
        """Take augmented rows and what the model says of them; `first_row` numbers them in the batch."""
        columns = {**dict(zip(rows.schema.names, rows.columns, strict=True)), **predictions}
        watched = {name: columns[name] for name in self._reference.names if name in columns}
        taken = pa.RecordBatch.from_pydict(watched)
        if first_row + rows.num_rows > WHOLE:
            taken = taken.take(pa.array(_counted(first_row, rows.num_rows)))
        self.held.append(taken)

    @property
    def rows(self) -> int:
        """How many are held, to be counted."""
        return sum(rows.num_rows for rows in self.held)

    def join(self, later: "WatchedRows") -> None:
        """Hold the rows of a later part as well: many are counted sooner at once."""
        self.held += later.held

    def counted(self) -> Mapping[str, Any]:
        """Count them."""
        window = Window(self._reference)
        if self.held:
            rows = pa.Table.from_batches(self.held)
            columns = dict(zip(rows.schema.names, rows.columns, strict=True))
            window.add(columns, rows.num_rows)
        return window.to_json()

    def __reduce__(self) -> tuple[Any, ...]:
        return Counted, (self.counted(),)


def _counted(first_row: int, rows: int) -> NDArray[np.int64]:
    """Which of the rows are counted."""
    numbers = np.arange(first_row, first_row + rows).astype(np.uint64)
    return np.flatnonzero((numbers < WHOLE) | ((numbers * GOLDEN) >> QUARTER == 0))
