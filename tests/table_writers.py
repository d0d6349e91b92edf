"""The contract of writers whose destinations are tables, whichever database they are in."""

from pathlib import Path
from typing import Protocol

import pyarrow as pa

from lodestar.interface.data import SpineReader
from lodestar.testing.data import FrameWriterContract

__all__ = ["TableWriterContract"]


class TablePlace(Protocol):
    """A schema or dataset of a test's own."""

    def tables(self) -> list[str]:
        """The names of its tables."""
        ...

    def reader(self, sql: str) -> SpineReader:
        """Read by a query."""
        ...


class TableWriterContract(FrameWriterContract):
    """Writes `predictions` in a place that a subclass gives."""

    def place(self) -> TablePlace:
        raise NotImplementedError

    def probed(self) -> str:
        return self.destination().rpartition(".")[0]

    def content(self) -> pa.Table | None:
        if "predictions" not in self.place().tables():
            return None
        return self.place().reader("SELECT * FROM predictions").read(chunk_rows=1_000).read_all()

    def leftovers(self) -> list[Path]:
        """Tables, which are no files; a test prints their names alike."""
        return [Path(name) for name in self.place().tables() if name != "predictions"]
