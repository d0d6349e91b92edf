"""The point-in-time join: each row of the spine gets its features as they were known at its time.

The spine goes to a temporary file first, which tells the window of times that the feature tables are
needed for. Each table is then read once and held compactly (see `lodestar.core.known_versions`), and
the spine comes back slice by slice, in its order: memory holds the versions in the window and a few
slices, however long the spine.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lodestar.adapters.joins.rows import all_of, gathered, joined_schema
from lodestar.adapters.joins.staging import StagedSpine, stage
from lodestar.core.entity_codes import EntityCodes
from lodestar.core.known_versions import KnownVersions
from lodestar.core.version_order import micros, whole_versions
from lodestar.interface.features import FeatureTables, SelectedFeatures

__all__ = ["PointInTimeJoin"]

SLICE_ROWS = 32_768
THREADS = 2
FEW_ROWS = 1 << 17
AT_ONCE = 1 << 18  # versions whose entities are looked up at once: each time hashes those asked for


class PointInTimeJoin:
    """Joins any feature tables; `historical` is that of `FeatureStoreAdapter`.

    `scratch` is the folder of the temporary file, by default the system's. For a spine of at most
    `few_rows`, only the versions of its own entities are held.
    """

    def __init__(
        self,
        tables: FeatureTables,
        scratch: Path | None = None,
        slice_rows: int = SLICE_ROWS,
        *,
        few_rows: int = FEW_ROWS,
    ) -> None:
        self._tables = tables
        self._scratch = scratch
        self._slice_rows = slice_rows
        self._few_rows = few_rows

    @contextmanager
    def historical(
        self, spine: pa.RecordBatchReader, selection: Sequence[SelectedFeatures], *, timestamp: str
    ) -> Iterator[pa.RecordBatchReader]:
        """Join `slice_rows` at a time, to be read until the `with` block ends.

        Raises:
            SchemaError: and DataError, as the port has them.
            ExternalError: there is no space for the temporary file.
        """
        schema = joined_schema(spine.schema, selection, timestamp)
        with stage(spine, timestamp, folder=self._scratch) as staged:
            known = tuple(self._known(selection, staged))
            join = _Join(schema, timestamp, tuple(selection), known)
            with closing(join.slices(staged, self._slice_rows)) as slices:
                yield pa.RecordBatchReader.from_batches(schema, all_of(slices, staged.rows))

    def _known(
        self, selection: Sequence[SelectedFeatures], staged: StagedSpine
    ) -> Iterator[KnownVersions]:
        """Read each table, in a thread, while the one before is sorted: two are held at most."""
        with ThreadPoolExecutor(1, thread_name_prefix="feature-tables") as reader:

            def read(selected: SelectedFeatures, columns: Sequence[str]) -> Future[pa.Table]:
                return reader.submit(self._read, selected, columns, staged)

            waiting = iter(selection)
            coming = deque(read(each, each.features) for each in islice(waiting, 1))
            for selected in selection:
                table = coming.popleft().result()
                coming.extend(read(each, each.features) for each in islice(waiting, 1))
                known = KnownVersions.of(selected.view, selected.features, table)
                if known.ambiguous:  # which version comes last does not depend on what is selected
                    table = read(selected, tuple(selected.view.features)).result()
                    known = KnownVersions.of(selected.view, selected.features, table)
                del table
                pa.default_memory_pool().release_unused()
                yield known

    def _read(
        self, selected: SelectedFeatures, columns: Sequence[str], staged: StagedSpine
    ) -> pa.Table:
        view = selected.view
        with self._tables.versions(view, columns, staged.window(view.ttl)) as versions:
            batches = whole_versions(view, versions)
            if staged.rows <= self._few_rows:
                batches = _of_entities(view.keys, staged, batches)
            return pa.Table.from_batches(batches, versions.schema)


def _of_entities(
    keys: Sequence[str], staged: StagedSpine, versions: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Leave out versions of entities that no row asks for: few rows need little of a large table."""
    with staged.read() as pieces:
        schema = pa.schema([pieces.schema.field(key) for key in keys])
        asked = pa.Table.from_batches((piece.select(keys) for piece in pieces), schema)
    entities, _ = EntityCodes.number(asked.drop_null().columns)
    for part in gathered(versions, AT_ONCE):
        table = pa.Table.from_batches(part)
        found = entities.lookup([table.column(key) for key in keys])
        yield from table.filter(found.is_valid()).to_batches()


@dataclass(frozen=True)
class _Join:
    """What it takes to join a slice: the versions known, per namespace."""

    schema: pa.Schema
    timestamp: str
    selection: tuple[SelectedFeatures, ...]
    known: tuple[KnownVersions, ...]

    def slices(self, staged: StagedSpine, rows: int) -> Generator[pa.RecordBatch, None, None]:
        """Join slice by slice in threads, a few ahead, and give them in order."""
        with (
            ThreadPoolExecutor(THREADS, thread_name_prefix="point-in-time") as pool,
            staged.read() as pieces,
        ):
            coming: deque[Future[pa.RecordBatch]] = deque()
            for part in gathered(self._with_entities(pieces), rows):
                coming.append(pool.submit(self._slice, part))
                if len(coming) > THREADS:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()

    def _with_entities(self, pieces: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        """Put the entities' numbers, one column per namespace, behind the spine's columns."""
        import pyarrow.dataset as ds  # brings pandas

        names = pieces.schema.names
        new = "_" * (max(map(len, names)) + 1)  # longer than any, so none of them
        columns = {name: pc.field(name) for name in names}
        for place, (selected, known) in enumerate(zip(self.selection, self.known, strict=True)):
            columns[f"{new}{place}"] = known.entities.lookup(
                [pc.field(key) for key in selected.view.keys]
            )
        # One thread keeps the order.
        scanner = ds.Scanner.from_batches(pieces, columns=columns, use_threads=False)
        return iter(scanner.to_reader())

    def _slice(self, part: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
        batch = pa.concat_batches(part)
        width = batch.num_columns - len(self.known)
        times = micros(batch.column(self.timestamp))
        joined = list(batch.columns[:width])
        for entities, known in zip(batch.columns[width:], self.known, strict=True):
            joined += known.at(entities, times)
        return pa.record_batch(joined, schema=self.schema)
