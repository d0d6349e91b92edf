"""Reads a whole spine for learning or judging; scoring streams instead."""

from collections.abc import Callable

import pyarrow as pa

from lodestar.errors import DataError
from lodestar.interface.data import SpineReader
from lodestar.interface.progress import Progress

__all__ = ["read_rows"]

CHUNK_ROWS = 262_144


def read_rows(
    reader: SpineReader, tell: Progress, *, check: Callable[[pa.Schema], None]
) -> pa.Table:
    """All rows, as they come; `check` looks at the columns before any is read.

    Raises:
        DataError: there are no rows.
    """
    check(reader.schema())
    batches, rows = [], 0
    with reader.read(chunk_rows=CHUNK_ROWS) as stream:
        for batch in stream:
            batches.append(batch)
            rows += batch.num_rows
            tell.rows(rows, None)
    if not rows:
        raise DataError(
            "the loader returned no rows", hint="check its filter and the context parameters"
        )
    return pa.Table.from_batches(batches).combine_chunks()
