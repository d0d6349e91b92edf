"""Snowflake's names and types as ours: what it folds to capitals is lower case here.

`user_id` and `USER_ID` in SQL are one name there, which it keeps in capitals. Recipes, models and files
have it in lower case. A name with small letters in it was written in quotes, and is the same here.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from sqlglot import exp

from lodestar.errors import DataError, SchemaError
from lodestar.schema import TIMESTAMP, canonical

__all__ = [
    "COLUMN_TYPES",
    "canonical_chunks",
    "canonical_rows",
    "canonical_types",
    "folded",
    "given_name",
    "quoted",
    "stored_name",
]

_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")
_FOLDED = re.compile(r"[A-Z_][A-Z0-9_$]*")
_LOWER_FOLDING = {"postgres", "redshift", "duckdb"}
# A result's type codes, as PEP 249 has them; 0 is NUMBER, whose scale decides.
_TYPES = {
    1: pa.float64(),
    2: pa.string(),
    3: pa.date32(),
    4: TIMESTAMP,
    6: TIMESTAMP,
    7: TIMESTAMP,
    8: TIMESTAMP,
    13: pa.bool_(),
}
_NUMBER = 0
# Kind of a column → the types of a table's that hold it; the first is the one that we make.
COLUMN_TYPES = {
    "bool": ("BOOLEAN",),
    "int": ("NUMBER(38,0)",),
    "float": ("FLOAT",),
    "string": ("TEXT",),
    "date": ("DATE",),
    "timestamp": ("TIMESTAMP_LTZ", "TIMESTAMP_TZ"),
}


def stored_name(name: str) -> str:
    """What Snowflake keeps a name of ours as."""
    return name.upper() if _PLAIN.fullmatch(name) else name


def given_name(stored: str) -> str:
    """A name of Snowflake's as ours."""
    return stored.lower() if _FOLDED.fullmatch(stored) else stored


def quoted(*parts: str) -> str:
    """Names as Snowflake keeps them, that nothing in them can end."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def folded(tree: exp.Query, dialect: str) -> exp.Query:
    """A query's quoted names as Snowflake keeps them, if its dialect folds plain ones to lower case."""
    if dialect not in _LOWER_FOLDING:
        return tree
    tree = tree.copy()
    for name in tree.find_all(exp.Identifier):
        if name.args.get("quoted"):
            name.set("this", stored_name(name.name))
    return tree


def canonical_types(described: Sequence[Any], names: tuple[str, ...] | None) -> pa.Schema:
    """The columns of a result; `names` are those that the query gives, where it gives them.

    Raises:
        SchemaError: a type that no model takes.
    """
    given = [given_name(column.name) for column in described]
    if names is not None and len(names) == len(described):
        pairs = zip(described, given, names, strict=True)
        given = [
            wanted if column.name.lower() == wanted.lower() else name
            for column, name, wanted in pairs
        ]
    twice = sorted({name for name in given if given.count(name) > 1})
    if twice:
        raise SchemaError(
            f"column {twice[0]!r} stands twice", hint="give one of them another name in the SQL"
        )
    return pa.schema(
        [(name, _type_of(column)) for name, column in zip(given, described, strict=True)]
    )


def canonical_rows(batch: pa.RecordBatch, target: pa.Schema) -> pa.RecordBatch:
    """Rows as the driver gives them, whose numbers are as wide as the batch needs, in those types.

    Raises:
        DataError: a whole number beyond 64 bits.
    """
    columns = []
    for column, field in zip(batch.columns, target, strict=True):
        if pa.types.is_decimal(column.type) and pa.types.is_integer(field.type):
            columns.append(_whole(column, field.name))
        else:
            columns.append(column)
    return canonical(pa.record_batch(columns, names=target.names), target)


def canonical_chunks(
    batches: Iterable[pa.RecordBatch], target: pa.Schema, chunk_rows: int
) -> Iterator[pa.RecordBatch]:
    """All rows as `canonical_rows` gives them, at most so many at a time.

    Raises:
        SchemaError: there are more or fewer columns than were described.
    """
    for batch in batches:
        if batch.num_columns != len(target):
            raise SchemaError(
                "the columns changed while they were being read",
                hint="nothing was used; try again",
            )
        rows = canonical_rows(batch, target)
        for start in range(0, rows.num_rows, chunk_rows):
            yield rows.slice(start, chunk_rows)


def _whole(column: pa.Array, name: str) -> pa.Array:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise DataError(
            f"column {name!r} has a whole number beyond 64 bits",
            hint=f"select CAST({name} AS double precision) AS {name}, or leave it out",
        ) from error


def _type_of(column: Any) -> pa.DataType:  # noqa: ANN401 -- the driver's description of a column
    if column.type_code == _NUMBER:
        return pa.float64() if column.scale else pa.int64()
    found = _TYPES.get(column.type_code)
    if found is None:
        name = given_name(column.name)
        raise SchemaError(
            f"column {name!r} has a type of Snowflake's that no model takes",
            hint=f"select CAST({name} AS text) AS {name}, or leave it out",
        )
    return found
