"""What writers of tables share, whatever the database: what they ask of rows and of tables there."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import pyarrow as pa

from lodestar.errors import DataError, SchemaError
from lodestar.schema import FrameSchema, canonical

__all__ = ["TableSink", "kinds_of", "refuse_other_columns", "require_text_columns"]


class TableSink(ABC):
    """Takes the rows of one table, which has all of them once the block has ended well, or none."""

    def __init__(self, schema: pa.Schema, replace: Mapping[str, str]) -> None:
        self._schema = schema
        self._replace = replace
        self._stack = ExitStack()

    @abstractmethod
    def _begin(self, stack: ExitStack) -> None:
        """See whether the table can take such rows, and make the place where they wait."""

    @abstractmethod
    def _add(self, rows: pa.RecordBatch) -> None:
        """Have rows of canonical types wait."""

    @abstractmethod
    def _publish(self) -> None:
        """Make all of them the table's, in one step."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._begin(stack)
            self._stack = stack.pop_all()
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows.

        Raises:
            DataError: a value that the table cannot hold, or that `replace` would not find again.
        """
        rows = canonical(batch, self._schema)
        _require_values(rows, self._replace)
        self._add(rows)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if kind is None:
                self._publish()


def kinds_of(schema: pa.Schema) -> dict[str, str]:
    """The columns with the names of their canonical types."""
    return {column.name: column.type for column in FrameSchema.of(schema.empty_table()).columns}


def require_text_columns(schema: pa.Schema, replace: Iterable[str]) -> None:
    """Check that rows can be found again by these columns.

    Raises:
        SchemaError: one is missing, or is no text.
    """
    for name in replace:
        if name not in schema.names or schema.field(name).type != pa.string():
            raise SchemaError(f"there is no text column {name!r} to replace rows by")


def refuse_other_columns(
    table: str, found: Mapping[str, str], ours: Mapping[str, tuple[str, ...]]
) -> None:
    """Compare a table's columns with those to write; of the types that fit, we would make the first.

    Raises:
        SchemaError: with every difference.
    """
    differences = [
        *(f"- {name}: missing" for name in ours if name not in found),
        *(f"+ {name}: not written" for name in found if name not in ours),
        *(
            f"~ {name}: {found[name]} there, {types[0]} here"
            for name, types in ours.items()
            if name in found and found[name] not in types
        ),
    ]
    if differences:
        raise SchemaError(
            f"the table {table} has other columns than the rows:\n  " + "\n  ".join(differences),
            hint="write to another table, or rename this one",
        )


def _require_values(rows: pa.RecordBatch, replace: Mapping[str, str]) -> None:
    """Check that the next go at the same work would find these rows."""
    for name, value in replace.items():
        if not rows.column(name).equals(pa.repeat(value, rows.num_rows)):
            raise DataError(f"a row to write has another {name} than {value!r}")
