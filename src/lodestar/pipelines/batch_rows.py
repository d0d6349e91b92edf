"""What a batch is to score, as parts: read here and handed on, or read where they are scored."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import pyarrow as pa

from lodestar.artifact.wrapper import PyfuncWrapper
from lodestar.core.fingerprint import fingerprint
from lodestar.core.preprocessor import SimpleScaler
from lodestar.factory.environment import EnvironmentFactory
from lodestar.interface.data import CodesText, SpineReader
from lodestar.interface.parts import (
    Batches,
    Divided,
    PartitionedReader,
    PartRows,
    PartTask,
    RowsAtHand,
)
from lodestar.settings.config import Batch

__all__ = ["BatchRows", "rows_in_parts", "with_codes"]


@dataclass(frozen=True)
class BatchRows:
    """The parts, in order, and what is known of them beforehand.

    `settles`: missing features are settled by whoever scores; else they were, and `filled` counts them.
    `moving`: kept parts whose rows are others by now are to be scored again, and are no error.
    `note`: what the user should know of how the rows are read.
    """

    tasks: Iterator[PartTask]
    settles: bool
    rows: int | None = None
    parts: int | None = None
    moving: bool = False
    note: str = ""
    filled: dict[str, int] = field(default_factory=dict)


def with_codes(
    reader: SpineReader, wrapper: PyfuncWrapper, outputs: Collection[str]
) -> SpineReader:
    """Text that nobody but a scaler and the counts of drift looks at may come in its dictionaries."""
    roles, schema = wrapper.contents.roles, wrapper.contents.feature_schema
    looked_at = (
        "augmented" in outputs
        or wrapper.trained_augmenter.selection
        or not isinstance(wrapper.trained_preprocessor, SimpleScaler)
    )
    if looked_at or not isinstance(reader, CodesText):
        return reader
    names = {column.name for column in schema.columns if column.type == "string"}
    return reader.coded(names.difference(roles.carried))


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

    Parts of files and of a server that divides them are read where they are scored. Rows of other
    queries, and rows that features are joined to, are read here.

    Raises:
        SchemaError: the columns are not those of training.
    """
    with _divided(reader, factory, wrapper, size, kept=kept) as divided:
        if divided.parts is not None:
            wrapper.check(reader.schema())
            rows, count = sum(part.rows for part in divided.parts), len(divided.parts)
            tasks = _numbered(divided.parts)
            moving, note = divided.moving, divided.why
            yield BatchRows(tasks, settles=True, rows=rows, parts=count, moving=moving, note=note)
            return
    filled: dict[str, int] = {}
    with (
        reader.read(chunk_rows=size.chunk_rows) as spine,
        factory.bound(wrapper).augment(spine, filled=filled) as augmented,
    ):
        wrapper.check(augmented.schema)
        if kept:
            tasks = _numbered(_gathered(augmented, size))
        else:
            tasks = _numbered(RowsAtHand(Batches([batch])) for batch in augmented)
        yield BatchRows(tasks, settles=False, note=divided.why, filled=filled)


def _divided(
    reader: SpineReader,
    factory: EnvironmentFactory,
    wrapper: PyfuncWrapper,
    size: Batch,
    *,
    kept: bool,
) -> AbstractContextManager[Divided]:
    joined = factory.feature_store is not None and wrapper.trained_augmenter.selection
    if not kept or joined or not isinstance(reader, PartitionedReader):
        return nullcontext(Divided(None))
    return reader.parts(factory.division(size, wrapper.contents.roles))


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
