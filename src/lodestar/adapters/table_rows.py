"""What writers of tables ask of rows and of tables that are there, whatever the database."""

from collections.abc import Iterable, Mapping

import pyarrow as pa

from lodestar.errors import DataError, SchemaError
from lodestar.schema import FrameSchema

__all__ = ["kinds_of", "refuse_other_columns", "require_text_columns", "require_values"]


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


def require_values(rows: pa.RecordBatch, replace: Mapping[str, str]) -> None:
    """Check that the next go at the same work would find these rows.

    Raises:
        DataError: a row has another value.
    """
    for name, value in replace.items():
        if not rows.column(name).equals(pa.repeat(value, rows.num_rows)):
            raise DataError(f"a row to write has another {name} than {value!r}")


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
