"""What writers of warehouses share: rows wait on this machine, then a session publishes all."""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress

import pyarrow as pa

from lodestar.adapters.table_rows import TableSink, require_text_columns
from lodestar.adapters.warehouse.spool import ParquetSpool
from lodestar.errors import ExternalError, LodestarError
from lodestar.schema import canonical_schema

__all__ = ["SpooledSink", "WarehouseWriter"]


class SpooledSink(TableSink):
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
        super().__init__(schema, replace)
        self._warehouse = warehouse
        self._waiting = pa.schema(list(zip(names or schema.names, schema.types, strict=True)))
        self._spool = ParquetSpool(self._waiting)

    @abstractmethod
    def _look(self) -> None:
        """See whether the table can take such rows, before there are any."""

    def _begin(self, stack: ExitStack) -> None:
        self._look()
        stack.enter_context(self._spool)

    def _add(self, rows: pa.RecordBatch) -> None:
        self._spool.write(rows.rename_columns(self._waiting.names))

    def _require_all(self, came: int) -> None:
        """Check that what was loaded aside is what waited."""
        if came != self._spool.rows:
            raise ExternalError(
                f"{self._warehouse} loaded {came:,} of {self._spool.rows:,} rows",
                hint="nothing was published; try again",
            )


class WarehouseWriter(ABC):
    """Writes tables of a warehouse; it is made where there is none, and has no order."""

    @abstractmethod
    def _require_room(self, names: Sequence[str]) -> None:
        """Check that a table can have such columns.

        Raises:
            SchemaError: it cannot.
        """

    @abstractmethod
    def _sink(self, destination: str, schema: pa.Schema, replace: dict[str, str]) -> SpooledSink:
        """The sink of what was checked."""

    @abstractmethod
    def _read(self, destination: str) -> Sequence[tuple[object, ...]]:
        """What a table has in its column `probe`."""

    @abstractmethod
    def _remove(self, destination: str) -> None:
        """Remove a table, if it is there."""

    def sink(
        self, destination: str, schema: pa.Schema, *, replace: Mapping[str, str] | None = None
    ) -> SpooledSink:
        """Prepare to write to a table, in place of all its rows, or of those with `replace`'s values.

        Raises:
            UsageError: the destination is no table's name.
            SchemaError: a column that no table can have, or none for a value of `replace`.
        """
        target = canonical_schema(schema)
        require_text_columns(target, replace or ())
        self._require_room(target.names)
        return self._sink(destination, target, dict(replace or {}))

    def probe(self, place: str) -> str:
        """Publish a row in a table of its own as results are, read it by SQL, remove the table.

        Raises:
            LodestarError: one of them cannot be done; the table is removed where that can be.
        """
        destination = f"{place.rstrip('/')}.lodestar_check_{secrets.token_hex(8)}"
        row = pa.record_batch({"probe": ["lodestar check --online"]})
        try:
            with self.sink(destination, row.schema) as opened:
                opened.write(row)
            found = self._read(destination)
        except LodestarError:
            with suppress(LodestarError):  # it may be there although no answer said so
                self._remove(destination)
            raise
        self._remove(destination)
        if [tuple(one) for one in found] != [tuple(row.column(0).to_pylist())]:
            raise ExternalError(f"the table that was made does not give back its row, but {found}")
        return "a table was made, loaded, read and removed"
