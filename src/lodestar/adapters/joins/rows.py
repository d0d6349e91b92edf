"""What every point-in-time join gives: the spine's columns and the features', all rows of them."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from lodestar.errors import LodestarError, SchemaError
from lodestar.interface.features import SelectedFeatures
from lodestar.schema import TIMESTAMP, Column, FrameSchema, require_columns

__all__ = ["all_of", "gathered", "joined_schema"]


def gathered(pieces: Iterator[pa.RecordBatch], rows: int) -> Iterator[Sequence[pa.RecordBatch]]:
    """Cut and gather pieces to slices of so many rows; the last may be shorter."""
    part: list[pa.RecordBatch] = []
    room = rows
    for piece in pieces:
        rest = piece
        while rest.num_rows >= room:
            yield [*part, rest.slice(0, room)]
            part, rest, room = [], rest.slice(room), rows
        if rest.num_rows:
            part.append(rest)
            room -= rest.num_rows
    if part:
        yield part


def all_of(slices: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Pass the slices on; end only when all rows have come.

    Raises:
        LodestarError: they were fewer.
    """
    passed = 0
    for batch in slices:
        passed += batch.num_rows
        yield batch
    if passed != rows:
        raise LodestarError(
            f"the point-in-time join was closed after {passed} of {rows} rows",
            hint="read the rows inside of the with block",
        )


def joined_schema(
    spine: pa.Schema, selection: Sequence[SelectedFeatures], timestamp: str
) -> pa.Schema:
    """The spine's columns, then the features'.

    Raises:
        SchemaError: the spine lacks a key or the timestamp, has it of another type, or has a column that
            a feature would add.
    """
    wanted = [(timestamp, "timestamp", "data_interface.event_timestamp_col")]
    added = []
    for selected in selection:
        view = selected.view
        wanted += [
            (key, kind, f"a key of {view.namespace!r}") for key, kind in view.entity_keys.items()
        ]
        added += [
            Column(name, view.features[name].type, nullable=True) for name in selected.features
        ]
    require_columns(spine, [(name, part) for name, _, part in wanted])
    for name, kind, part in wanted:
        _require_type(spine.field(name), kind, part)
    names = [*spine.names, *(column.name for column in added)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SchemaError(
            f"the column {twice[0]!r} would stand twice beside the features",
            hint="leave it out of the loader's SQL, or out of augmenter.features",
        )
    return pa.schema([*spine, *FrameSchema(tuple(added)).arrow()])


def _require_type(field: pa.Field, kind: str, part: str) -> None:
    (wanted,) = FrameSchema((Column(field.name, kind, nullable=True),)).arrow()
    if field.type != wanted.type:
        hint = (
            "cast it to a timestamp in the loader's SQL"
            if wanted.type == TIMESTAMP
            else "cast it in the loader's SQL, or declare the key as it is in features/"
        )
        raise SchemaError(
            f"the column {field.name!r} ({part}) must be {kind}, and the loader's rows have "
            f"{field.type}",
            hint=hint,
        )
