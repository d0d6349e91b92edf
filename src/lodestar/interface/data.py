"""Ports to where rows come from and go to."""

from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import pyarrow as pa

__all__ = ["CodesText", "FrameSink", "FrameWriter", "MayBeMissing", "SaysCost", "SpineReader"]


class SpineReader(Protocol):
    """One query or file, ready to be read, as often as asked.

    Columns have canonical types (see `lodestar.schema`), in the order of the query; an empty result
    keeps its columns. A read that fails half way raises and never ends early as if it were whole.
    """

    def schema(self) -> pa.Schema:
        """The columns, without reading the rows."""
        ...

    def read(self, *, chunk_rows: int) -> pa.RecordBatchReader:
        """Stream the rows in batches of at most `chunk_rows`, in bounded memory."""
        ...


@runtime_checkable
class CodesText(Protocol):
    """A reader of rows whose text may lie in dictionaries already."""

    def coded(self, names: Collection[str]) -> SpineReader:
        """The same rows; those of the named columns that lie in small dictionaries come as such.

        Its schema says which: their type is a dictionary of strings.
        """
        ...


@runtime_checkable
class MayBeMissing(Protocol):
    """A reader that can say whether what it would read is there."""

    def exists(self) -> bool:
        """Whether it is; raises where there is no telling."""
        ...


@runtime_checkable
class SaysCost(Protocol):
    """A reader whose rows cost money by the bytes that are read for them."""

    def bytes_read(self) -> int:
        """The most bytes that the query reads; it is not run, and its parameters need no values."""
        ...


class FrameSink(Protocol):
    """Takes batches; what they were written to appears only when the `with` block ends well.

    When it ends in an exception, whatever stood at the destination before stands there unchanged.
    """

    def __enter__(self) -> Self:
        """Start writing aside."""
        ...

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows, in order."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Publish, or clean up."""
        ...


class FrameWriter(Protocol):
    """Opens sinks. Two writers of one destination never mix: each publishes all or nothing."""

    def sink(
        self, destination: str, schema: pa.Schema, *, replace: Mapping[str, str] | None = None
    ) -> FrameSink:
        """Prepare to write rows of this schema to a destination, in place of what is there.

        A destination that holds rows of several runs keeps the others': only its rows with the values
        of `replace` (column → value) make room, and every row written has them.
        """
        ...
