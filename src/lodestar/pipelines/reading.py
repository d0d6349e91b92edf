"""Reads a whole spine for learning or judging; scoring streams instead."""

from collections.abc import Callable

import pyarrow as pa

from lodestar.core.augmenter import Augmenter
from lodestar.errors import DataError
from lodestar.interface.data import SpineReader
from lodestar.interface.progress import Progress

__all__ = ["read_rows"]

CHUNK_ROWS = 262_144


def read_rows(
    reader: SpineReader,
    augmenter: Augmenter,
    tell: Progress,
    *,
    check: Callable[[pa.Schema], None] | None = None,
) -> pa.Table:
    """All rows with their features; `check` looks at the columns before any is kept.

    Raises:
        DataError: there are no rows.
    """
    batches, rows = [], 0
    filled: dict[str, int] = {}
    with (
        reader.read(chunk_rows=CHUNK_ROWS) as spine,
        augmenter.augment(spine, filled=filled) as stream,
    ):
        if check is not None:
            check(stream.schema)
        for batch in stream:
            batches.append(batch)
            rows += batch.num_rows
            tell.rows(rows, None)
    if not rows:
        raise DataError(
            "the loader returned no rows", hint="check its filter and the context parameters"
        )
    for name, count in filled.items():
        tell.note(f"{name} is missing in {count:,} rows; the recipe's on_missing stands in")
    return pa.Table.from_batches(batches).combine_chunks()
