"""BigQuery's types as the canonical types of `lodestar.schema`, and how its names are written."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from lodestar.errors import SchemaError
from lodestar.schema import TIMESTAMP, canonical_schema

__all__ = ["COLUMN_TYPES", "canonical_types", "found_types", "quoted"]

# The API has two names for some: those of its first SQL, and those of its present one.
_TYPES = {
    "BOOLEAN": pa.bool_(),
    "BOOL": pa.bool_(),
    "INTEGER": pa.int64(),
    "INT64": pa.int64(),
    "FLOAT": pa.float64(),
    "FLOAT64": pa.float64(),
    "NUMERIC": pa.float64(),
    "BIGNUMERIC": pa.float64(),
    "STRING": pa.string(),
    "DATE": pa.date32(),
    "DATETIME": TIMESTAMP,
    "TIMESTAMP": TIMESTAMP,
}
# Kind of a column → the types of a table's that hold it; the first is the one that we make.
COLUMN_TYPES = {
    "bool": ("BOOLEAN", "BOOL"),
    "int": ("INTEGER", "INT64"),
    "float": ("FLOAT", "FLOAT64"),
    "string": ("STRING",),
    "date": ("DATE",),
    "timestamp": ("TIMESTAMP",),
}


def canonical_types(fields: Sequence[Any]) -> pa.Schema:
    """The columns of a result or a table, which the client describes so.

    Raises:
        SchemaError: a column stands twice, or has a type that no model takes.
    """
    return canonical_schema(pa.schema([(field.name, _type_of(field)) for field in fields]))


def found_types(fields: Sequence[Any]) -> dict[str, str]:
    """Column → type of a table, `REPEATED` where a row has several."""
    return {
        field.name: field.mode if field.mode == "REPEATED" else field.field_type for field in fields
    }


def quoted(*parts: str) -> str:
    """A table's or column's name in SQL; none of its parts has a backtick."""
    return "`" + ".".join(parts) + "`"


def _type_of(field: Any) -> pa.DataType:  # noqa: ANN401 -- the client's description of a column
    found = None if field.mode == "REPEATED" else _TYPES.get(field.field_type)
    if found is None:
        kind = f"{field.mode} {field.field_type}" if field.mode == "REPEATED" else field.field_type
        raise SchemaError(
            f"column {field.name!r} has the type {kind}, which no model takes",
            hint=f"select TO_JSON_STRING({field.name}) AS {field.name} in a recipe of "
            "BigQuery's dialect, or leave it out",
        )
    return found
