"""What a batch is to score, as parts: read here and handed on, or read where they are scored."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa

from lodestar.artifact.wrapper import PyfuncWrapper
from lodestar.core.fingerprint import fingerprint
from lodestar.factory.environment import EnvironmentFactory
from lodestar.interface.data import SpineReader
from lodestar.interface.parts import Batches, PartitionedReader, PartRows, PartTask, RowsAtHand
from lodestar.settings.config import Batch

__all__ = ["BatchRows", "rows_in_parts"]


@dataclass(frozen=True)
class BatchRows:
    """The parts, in order, and what is known of them beforehand.

    `settles`: missing features are settled by whoever scores; else they were, and `filled` counts them.
    """

    tasks: Iterator[PartTask]
    settles: bool
    rows: int | None = None
    parts: int | None = None
    filled: dict[str, int] = field(default_factory=dict)


@contextmanager
def rows_in_parts(
    reader: SpineReader,
    factory: EnvironmentFactory,
    wrapper: PyfuncWrapper,
    size: Batch,
    *,
    kept: bool,
) -> Iterator[BatchRows]:
    """Check the columns and begin; only parts that are `kept` are large, and have digests.

    A file's parts are read where they are scored. Rows of a query, and rows that features are joined
    to, are read here.

    Raises:
        SchemaError: the columns are not those of training.
    """
    parts = _parts(reader, factory, wrapper, size) if kept else None
    if parts is not None:
        wrapper.check(reader.schema())
        rows = sum(part.rows for part in parts)
        yield BatchRows(_numbered(parts), settles=True, rows=rows, parts=len(parts))
        return
    filled: dict[str, int] = {}
    with (
        reader.read(chunk_rows=size.chunk_rows) as spine,
        factory.bound(wrapper).augment(spine, filled=filled) as augmented,
    ):
        wrapper.check(augmented.schema)
        if kept:
            yield BatchRows(_numbered(_gathered(augmented, size)), settles=False, filled=filled)
        else:
            chunks = (RowsAtHand(Batches([batch])) for batch in augmented)
            yield BatchRows(_numbered(chunks), settles=False, filled=filled)


def _parts(
    reader: SpineReader, factory: EnvironmentFactory, wrapper: PyfuncWrapper, size: Batch
) -> Sequence[PartRows] | None:
    joined = factory.feature_store is not None and wrapper.trained_augmenter.selection
    if joined or not isinstance(reader, PartitionedReader):
        return None
    return reader.parts(chunk_rows=size.chunk_rows, part_rows=size.part_rows)


def _numbered(parts: Iterator[PartRows] | Sequence[PartRows]) -> Iterator[PartTask]:
    first = 0
    for number, rows in enumerate(parts):
        yield PartTask(number, first, rows)
        first += rows.rows


def _gathered(batches: pa.RecordBatchReader, size: Batch) -> Iterator[PartRows]:
    """Whole batches until there are `part_rows` of rows, or the last one came."""
    gathered: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        gathered.append(batch)
        rows += batch.num_rows
        if rows >= size.part_rows:
            yield _at_hand(gathered)
            gathered, rows = [], 0
    if rows:
        yield _at_hand(gathered)


def _at_hand(batches: list[pa.RecordBatch]) -> RowsAtHand:
    return RowsAtHand(Batches(batches), fingerprint(pa.Table.from_batches(batches)))
