"""What the driver makes of PostgreSQL's types, as the canonical types of `lodestar.schema`."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestar.errors import DataError, SchemaError
from lodestar.schema import canonical, canonical_schema

__all__ = [
    "canonical_rows",
    "canonical_types",
    "plain_rows",
    "plain_types",
    "refuse_unwritable",
]

# The driver gives these as integers: cents, and 32 bits with a sign where the server has none.
_MISLEADING = {"money": "numeric", "oid": "bigint"}
# It adds the years from 1970 to 2000 to "infinity", which then stands before all times that there are.
_EARLIEST = {"timestamp": -(2**58), "date": -(2**23)}
_DASHES = (8, 13, 18, 23)


def canonical_types(schema: pa.Schema) -> pa.Schema:
    """The columns as they will be read.

    Raises:
        SchemaError: a column stands twice, or has a type that no model takes.
    """
    return canonical_schema(plain_types(schema))


def canonical_rows(batch: pa.RecordBatch, target: pa.Schema) -> pa.RecordBatch:
    """Rows as the driver gives them, in those types.

    Raises:
        DataError: a value has no place in them, such as the timestamp "infinity".
    """
    return canonical(plain_rows(batch), target)


def plain_types(schema: pa.Schema) -> pa.Schema:
    """The columns in types of Arrow's own, not yet canonical: times without a zone stay so.

    Raises:
        SchemaError: a type of PostgreSQL's that has no place among them.
    """
    return pa.schema([(field.name, _plain_type(field)) for field in schema])


def plain_rows(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Rows as the driver gives them, in those types.

    Raises:
        DataError: a value has no place in them.
    """
    names = batch.schema.names
    columns = [_plain(column, name) for name, column in zip(names, batch.columns, strict=True)]
    return pa.record_batch(columns, names=names)


def refuse_unwritable(rows: pa.RecordBatch, *, first_row: int) -> None:
    """Check that the server can hold every text; `first_row` is the first one's number.

    Raises:
        DataError: naming the column, and the row where a text has a NUL.
    """
    for field, column in zip(rows.schema, rows.columns, strict=True):
        if pa.types.is_string(field.type):
            _refuse_other_encodings(column, field.name)
            row = pc.index(pc.match_substring(column, "\0"), True).as_py()
            if row >= 0:
                raise DataError(
                    f"column {field.name!r} has a text with a NUL in row {first_row + row}",
                    hint="PostgreSQL cannot hold that sign; remove it in the SQL",
                )


def _plain_type(field: pa.Field) -> pa.DataType:
    name = (field.metadata or {}).get(b"POSTGRESQL:type", b"").decode()
    if name in _MISLEADING:
        raise _unusable(field.name, name, _MISLEADING[name])
    if not isinstance(field.type, pa.BaseExtensionType):
        return field.type
    if _is_numeric(field.type):
        return pa.float64()
    if isinstance(field.type, (pa.UuidType, pa.JsonType)):
        return pa.string()
    raise _unusable(field.name, name, "text")


def _unusable(column: str, kind: str, better: str) -> SchemaError:
    return SchemaError(
        f"column {column!r} has the type {kind}, which no model takes",
        hint=f"select CAST({column} AS {better}) AS {column}, or leave it out",
    )


def _is_numeric(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.OpaqueType) and kind.type_name == "numeric"


def _plain(column: pa.Array, name: str) -> pa.Array:
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        _refuse_infinite(column, name)
    elif pa.types.is_string(kind):
        _refuse_other_encodings(column, name)
    elif _is_numeric(kind):
        return column.storage.cast(pa.float64())
    elif isinstance(kind, pa.UuidType):
        return _hyphenated(column.storage)
    elif isinstance(kind, pa.JsonType):
        return column.storage.cast(pa.string())
    return column


def _refuse_infinite(column: pa.Array, name: str) -> None:
    timestamp = pa.types.is_timestamp(column.type)
    numbers = column.cast(pa.int64() if timestamp else pa.int32())
    least = pc.min(numbers).as_py()
    if least is not None and least < _EARLIEST["timestamp" if timestamp else "date"]:
        raise DataError(
            f"column {name!r} has an infinite time", hint="filter it, or make it a null in the SQL"
        )


def _refuse_other_encodings(column: pa.Array, name: str) -> None:
    """A database without an encoding gives whatever bytes it was given."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"column {name!r} has a text that is not UTF-8", hint="correct it where it comes from"
        ) from error


def _hyphenated(storage: pa.Array) -> pa.Array:
    """16 bytes each, in the usual notation of 36 signs."""
    rows = len(storage)
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    whole = storage.fill_null(bytes(16))
    start = whole.offset * 16
    raw = np.frombuffer(whole.buffers()[1], np.uint8)[start : start + rows * 16].reshape(rows, 16)
    signs = np.full((rows, 36), ord("-"), np.uint8)
    places = np.delete(np.arange(36), _DASHES)
    signs[:, places[::2]] = digits[raw >> 4]
    signs[:, places[1::2]] = digits[raw & 15]
    text = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(36), rows, [None, pa.py_buffer(signs.tobytes())]
    )
    return pc.if_else(storage.is_valid(), text.cast(pa.binary()).cast(pa.string()), None)
