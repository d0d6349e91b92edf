"""What writers of warehouses share: rows wait on this machine, then a session publishes all."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

import pyarrow as pa

from lodestar.adapters.table_rows import require_values
from lodestar.adapters.warehouse.spool import ParquetSpool
from lodestar.errors import ExternalError, LodestarError
from lodestar.schema import canonical

__all__ = ["SpooledSink", "probed_by_a_row"]


class SpooledSink(ABC):
    """Keeps the rows until the block ends well; a warehouse says how they get into its table.

    `names` are what the waiting files call the columns, where that is not what the table does.
    """

    def __init__(
        self,
        warehouse: str,
        schema: pa.Schema,
        replace: Mapping[str, str],
        *,
        names: Sequence[str] | None = None,
    ) -> None:
        self._warehouse = warehouse
        self._schema = schema
        self._replace = replace
        self._stack = ExitStack()
        self._waiting = pa.schema(list(zip(names or schema.names, schema.types, strict=True)))
        self._spool = ParquetSpool(self._waiting)

    @abstractmethod
    def _look(self) -> None:
        """See whether the table can take such rows, before there are any."""

    @abstractmethod
    def _load_and_publish(self) -> None:
        """Load the spool's files aside, then make them the table's in one step."""

    def __enter__(self) -> Self:
        self._look()
        self._stack.enter_context(self._spool)
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows.

        Raises:
            DataError: a value that `replace` would not find again.
        """
        rows = canonical(batch, self._schema)
        require_values(rows, self._replace)
        self._spool.write(rows.rename_columns(self._waiting.names))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if kind is None:
                self._load_and_publish()

    def _require_all(self, came: int) -> None:
        """Check that what was loaded aside is what waited."""
        if came != self._spool.rows:
            raise ExternalError(
                f"{self._warehouse} loaded {came:,} of {self._spool.rows:,} rows",
                hint="nothing was published; try again",
            )


def probed_by_a_row(
    sink: Callable[[pa.Schema], SpooledSink],
    *,
    read: Callable[[], Sequence[tuple[object, ...]]],
    remove: Callable[[], None],
) -> str:
    """Publish a row in a table of its own as results are published, read it by SQL, remove the table.

    Raises:
        LodestarError: one of them cannot be done; the table is removed where that can be.
    """
    row = pa.record_batch({"probe": ["lodestar check --online"]})
    try:
        with sink(row.schema) as opened:
            opened.write(row)
        found = [tuple(one) for one in read()]
    except LodestarError:
        with suppress(LodestarError):  # it may be there although no answer said so
            remove()
        raise
    remove()
    if found != [tuple(row.column(0).to_pylist())]:
        raise ExternalError(f"the table that was made does not give back its row, but {found}")
    return "a table was made, loaded, read and removed"
