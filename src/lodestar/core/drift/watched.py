"""Rows of a part that are watched for drift: counted by whoever wants to know, or before they travel."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from lodestar.core.drift.sketches import Reference, Window

__all__ = ["Counted", "WatchedRows"]


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
        self._rows: list[pa.RecordBatch] = []

    def add(self, rows: pa.RecordBatch, predictions: Mapping[str, pa.Array]) -> None:
        """Take augmented rows and what the model says of them."""
        columns = {**dict(zip(rows.schema.names, rows.columns, strict=True)), **predictions}
        watched = {name: columns[name] for name in self._reference.names if name in columns}
        self._rows.append(pa.RecordBatch.from_pydict(watched))

    def counted(self) -> Mapping[str, Any]:
        """Count them."""
        window = Window(self._reference)
        for rows in self._rows:
            columns = dict(zip(rows.schema.names, rows.columns, strict=True))
            window.add(columns, rows.num_rows)
        return window.to_json()

    def __reduce__(self) -> tuple[Any, ...]:
        return Counted, (self.counted(),)
