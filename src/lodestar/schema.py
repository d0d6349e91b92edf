"""What columns a frame has, in the few types that all engines share, and how to hold rows to that."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestar.errors import DataError, SchemaError, choices

__all__ = [
    "ARROW_TYPES",
    "TIMESTAMP",
    "Column",
    "FrameSchema",
    "canonical",
    "canonical_schema",
    "refuse_infinite",
    "require_columns",
]

TIMESTAMP = pa.timestamp("us", tz="UTC")
ARROW_TYPES: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "string": pa.string(),
    "date": pa.date32(),
    "timestamp": TIMESTAMP,
}


@dataclass(frozen=True)
class Column:
    """One column: bool, int (64 bit), float (64 bit), string, date or timestamp (µs, UTC).

    `nullable`: training saw nulls in it.
    """

    name: str
    type: str
    nullable: bool


@dataclass(frozen=True)
class FrameSchema:
    """The columns of a frame, in order."""

    columns: tuple[Column, ...]

    @classmethod
    def of(cls, table: pa.Table) -> "FrameSchema":
        """Read it off a canonical table; NaN counts as null."""
        columns = []
        for field, column in zip(table.schema, table.columns, strict=True):
            nullable = column.null_count > 0
            if not nullable and pa.types.is_floating(field.type):
                nullable = bool(pc.any(pc.is_nan(column)).as_py())
            columns.append(Column(field.name, _type_name(field), nullable))
        return cls(tuple(columns))

    @classmethod
    def from_json(cls, value: Sequence[Mapping[str, Any]]) -> "FrameSchema":
        """Read what `to_json` wrote."""
        return cls(tuple(Column(**item) for item in value))

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values for a JSON file."""
        return [
            {"name": column.name, "type": column.type, "nullable": column.nullable}
            for column in self.columns
        ]

    @property
    def names(self) -> tuple[str, ...]:
        """Column names, in order."""
        return tuple(column.name for column in self.columns)

    def arrow(self) -> pa.Schema:
        """The same as an Arrow schema."""
        return pa.schema([(column.name, ARROW_TYPES[column.type]) for column in self.columns])

    def select(self, names: Iterable[str]) -> "FrameSchema":
        """Only these columns, in the given order."""
        known = {column.name: column for column in self.columns}
        return FrameSchema(tuple(known[name] for name in names))

    def check(self, given: pa.Schema, *, optional: Iterable[str] = ()) -> None:
        """Compare another frame's columns with these; their order does not matter.

        Raises:
            SchemaError: with every difference. `optional` columns may be missing.
        """
        lenient = set(optional)
        types = {field.name: field.type for field in canonical_schema(given)}
        # Nothing but nulls: a frame of one row may say no more of a column than that.
        untyped = {field.name for field in given if pa.types.is_null(field.type)}
        known = {column.name for column in self.columns}
        gone = [name for name in self.names if name not in types and name not in lenient]
        new = [name for name in types if name not in known]
        changed = [
            f"~ {column.name}: {_name_of(types[column.name])}, was {column.type} in training"
            for column in self.columns
            if column.name in types
            and column.name not in untyped
            and not _fits(types[column.name], column.type)
        ]
        if gone or new or changed:
            lines = [f"- {name}: missing" for name in gone]
            lines += [f"+ {_on_one_line(name)}: unknown" for name in new]
            raise SchemaError(
                "the columns are not those of the training data:\n  "
                + "\n  ".join(lines + changed),
                hint="select exactly the training columns; their order does not matter",
            )

    def conform(self, batch: pa.RecordBatch, *, first_row: int = 0) -> pa.RecordBatch:
        """Cast to these types, in this order, and refuse what training never saw.

        Text that comes in a dictionary stays there.

        Raises:
            DataError: a null or NaN where training saw none, an infinite number, a lossy cast.
        """
        arrays = []
        for column in self.columns:
            array = batch.column(column.name)
            wanted = ARROW_TYPES[column.type]
            try:
                empty = array.null_count == len(array)
                array = pa.nulls(len(array), wanted) if empty else _cast(array, wanted)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise DataError(
                    f"column {column.name!r} does not fit the type {column.type} of training",
                    hint="numbers must be whole and in range where training had whole ones",
                ) from error
            _refuse_unseen(array, column, first_row)
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, names=list(self.names))


def canonical_schema(schema: pa.Schema) -> pa.Schema:
    """The shared type of each column.

    Raises:
        SchemaError: a column stands twice, or has a type that is no feature (list, struct, …).
    """
    names = schema.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SchemaError(
            f"column {twice[0]!r} stands twice", hint="give one of them another name in the SQL"
        )
    return pa.schema([(field.name, ARROW_TYPES[_type_name(field)]) for field in schema])


def canonical(batch: pa.RecordBatch, target: pa.Schema) -> pa.RecordBatch:
    """Cast to the shared types.

    Raises:
        DataError: a value does not fit (an unsigned integer above 2⁶³, a date out of range).
    """
    if batch.schema.equals(target):
        return batch
    try:
        columns = [
            column.cast(field.type, safe=not pa.types.is_decimal(column.type))
            for column, field in zip(batch.columns, target, strict=True)
        ]
    except pa.ArrowInvalid as error:
        raise DataError(f"a value does not fit: {error}") from error
    return pa.record_batch(columns, schema=target)


def require_columns(schema: pa.Schema, names: Iterable[tuple[str, str]]) -> None:
    """Check that the `(column, which part it plays)` pairs are all there.

    Raises:
        SchemaError: naming every missing one, with the near names.
    """
    missing = [(name, part) for name, part in names if name not in schema.names]
    if missing:
        raise SchemaError(
            "; ".join(f"there is no column {name!r} ({part})" for name, part in missing),
            hint=choices(missing[0][0], schema.names),
        )


def refuse_infinite(table: pa.Table, names: Iterable[str]) -> None:
    """Check that no number in these columns is infinite.

    Raises:
        DataError: naming the column and the first such row.
    """
    for name in names:
        column = table.column(name)
        if pa.types.is_floating(column.type):
            found = np.flatnonzero(np.isinf(column.to_numpy()))
            if found.size:
                raise _infinite(name, int(found[0]))


def _infinite(name: str, row: int) -> DataError:
    return DataError(
        f"column {name!r} has an infinite value in row {row}",
        hint="filter or clip it in the SQL",
    )


def _type_name(field: pa.Field) -> str:
    name = _name_of(field.type)
    if name not in ARROW_TYPES:
        raise SchemaError(
            f"column {field.name!r} has the type {field.type}, which no model takes",
            hint="leave it out of the SELECT, or derive numbers, text or times from it",
        )
    return name


def _name_of(kind: pa.DataType) -> str:
    tests = (
        ("bool", pa.types.is_boolean),
        ("int", pa.types.is_integer),
        ("float", pa.types.is_floating),
        ("float", pa.types.is_decimal),
        ("date", pa.types.is_date),
        ("timestamp", pa.types.is_timestamp),
    )
    for name, test in tests:
        if test(kind):
            return name
    if pa.types.is_dictionary(kind):
        return _name_of(kind.value_type)
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if any(test(kind) for test in text):
        return "string"
    # A column of nothing but nulls has no type of its own; readers call it "null".
    return "float" if pa.types.is_null(kind) else str(kind)


def _cast(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    coded = pa.types.is_dictionary(array.type) and array.type.value_type == pa.string()
    return array if coded and wanted == pa.string() else array.cast(wanted)


def _on_one_line(name: str) -> str:
    """A column's name may hold a line break, which would look like a line of ours."""
    return name if name.isprintable() else repr(name)


def _fits(given: pa.DataType, wanted: str) -> bool:
    name = _name_of(given)
    numbers = {"int", "float", "bool"}
    return name == wanted or (name in numbers and wanted in {"int", "float"})


def _refuse_unseen(array: pa.Array, column: Column, first_row: int) -> None:
    if array.null_count and not column.nullable:
        row = first_row + int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        raise _unseen(column.name, "a null", row)
    if column.type != "float" or array.null_count == len(array):
        return
    values = array.to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):  # the quicker question; large numbers' sum may say no as well
            return
    finite = np.isfinite(values)
    if finite.all():
        return
    infinite = np.flatnonzero(np.isinf(values))
    if infinite.size:
        raise _infinite(column.name, first_row + int(infinite[0]))
    if not column.nullable:
        raise _unseen(column.name, "a NaN", first_row + int(np.flatnonzero(~finite)[0]))


def _unseen(name: str, what: str, row: int) -> DataError:
    return DataError(
        f"column {name!r} has {what} in row {row}, and training saw none in it",
        hint="fill it in the SQL, or train again on data that has such rows",
    )
