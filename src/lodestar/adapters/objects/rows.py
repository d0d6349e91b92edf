"""Objects of a store as sources and destinations of rows, in the formats that files have."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from lodestar.adapters.files.formats import (
    BatchWriter,
    chunks,
    footer_of,
    new_writer,
    parquet_chunks,
    require_suffix,
    schema_of,
)
from lodestar.adapters.files.parquet_parts import rows_of_groups
from lodestar.adapters.objects.errors import MissingObjectError, StoreError, Trouble
from lodestar.adapters.objects.files import PartsFile
from lodestar.adapters.objects.parts import ObjectPart, RowGroups
from lodestar.adapters.objects.places import Place, folder_of, place_of
from lodestar.adapters.objects.ranges import ObjectRanges
from lodestar.adapters.objects.store import (
    Asking,
    LeavesParts,
    MultipartUpload,
    ObjectInfo,
    ObjectStore,
)
from lodestar.adapters.parts import grouped
from lodestar.errors import DataError, ExternalError, LodestarError, first_line
from lodestar.interface.parts import Divided, Division
from lodestar.schema import canonical, canonical_schema
from lodestar.settings.stores import Transfer

__all__ = ["ObjectReader", "ObjectWriter", "Stores"]

REMOVED_AT_ONCE = 32
_PROBE = b"lodestar check --online"


@dataclass(frozen=True)
class Stores:
    """How to make a store of one kind, and how patient to be with it."""

    made: Callable[[], ObjectStore]
    transfer: Transfer

    @contextmanager
    def opened(self, place: Place) -> Iterator[Asking]:
        """A store to be asked, closed at the end."""
        store = self.made()
        asking = Asking(store, self.transfer)
        try:
            asking.ask(place, store.open)
            yield asking
        finally:
            asking.ask(place, store.close)


class ObjectReader:
    """One parquet, csv or arrow object, read a chunk at a time.

    A read is of one version: where the object is replaced meanwhile, the read raises.
    """

    def __init__(self, stores: Stores, uri: str) -> None:
        self._stores = stores
        self._place = place_of(uri)
        name = self._place.key.rpartition("/")[2]
        require_suffix(self._place.suffix, f"{name}: not a kind of file that can be read")

    def schema(self) -> pa.Schema:
        """The columns, from the object's own metadata (csv: from its first block)."""
        return self._seen().schema

    def exists(self) -> bool:
        """Whether there is such an object.

        Raises:
            LodestarError: there is no telling.
        """
        with self._stores.opened(self._place) as asking:
            return _info(asking, self._place) is not None

    def read(self, *, chunk_rows: int) -> pa.RecordBatchReader:
        """Stream the rows; memory holds a few chunks and what was fetched for them."""
        seen, suffix = self._seen(), self._place.suffix

        def stream() -> Iterator[pa.RecordBatch]:
            with self._stores.opened(self._place) as asking:
                with (
                    _translated(self._place),
                    ObjectRanges(asking, self._place, seen.info) as ranges,
                ):
                    file = pa.PythonFile(ranges, "r")
                    yield from chunks(
                        file, suffix, seen.schema, chunk_rows, far=ranges, footer=seen.footer
                    )
                self._require_same(asking, seen.info)

        return pa.RecordBatchReader.from_batches(seen.schema, stream())

    @contextmanager
    def parts(self, division: Division) -> Iterator[Divided]:
        """A parquet object's row groups, several to a part; others are read from their beginning."""
        if self._place.suffix != ".parquet":
            yield Divided(None)
            return
        seen = self._seen()
        groups = grouped(rows_of_groups(seen.footer), division.part_rows)
        parts = [
            ObjectPart(self, self._place.uri, seen.info, RowGroups(*each), division)
            for each in groups
        ]
        yield Divided(parts, schema=seen.schema)

    def groups(
        self, info: ObjectInfo, groups: Sequence[int], chunk_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """The rows of some row groups of a version, a chunk at a time.

        Raises:
            ExternalError: the object is another one by now.
        """
        with self._stores.opened(self._place) as asking:
            with (
                _translated(self._place),
                ObjectRanges(asking, self._place, info) as ranges,
                parquet_chunks(pa.PythonFile(ranges, "r"), chunk_rows, groups, far=ranges) as found,
            ):
                target = canonical_schema(found.schema)
                for batch in found.batches:
                    yield canonical(batch, target)
            self._require_same(asking, info)

    def _require_same(self, asking: Asking, info: ObjectInfo) -> None:
        """Not every store can be asked for one version alone."""
        if asking.ask(self._place, asking.store.info, self._place) != info:
            raise asking.worded(self._place, StoreError(Trouble.CHANGED, "at the end"))

    def _seen(self) -> "_Seen":
        suffix = self._place.suffix
        with self._stores.opened(self._place) as asking:
            info = asking.ask(self._place, asking.store.info, self._place)
            with _translated(self._place), ObjectRanges(asking, self._place, info) as ranges:
                file = pa.PythonFile(ranges, "r")
                footer = footer_of(file, suffix)
                return _Seen(schema_of(file, suffix, footer=footer), info, footer)


@dataclass(frozen=True)
class _Seen:
    """The columns of one version of an object, and a parquet object's footer."""

    schema: pa.Schema
    info: ObjectInfo
    footer: pq.FileMetaData | None


class ObjectWriter:
    """Writes objects of one kind of store."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def sink(
        self, destination: str, schema: pa.Schema, *, replace: Mapping[str, str] | None = None
    ) -> "ObjectSink":
        """Prepare one object, replaced as a whole; its suffix says which kind."""
        del replace
        place = place_of(destination)
        name = place.key.rpartition("/")[2]
        require_suffix(place.suffix, f"cannot write {name}: unknown kind of file")
        return ObjectSink(self._stores, place, schema)

    def put(self, destination: str, content: bytes) -> None:
        """Upload a small object whole, in place of what is there."""
        place = place_of(destination)
        with self._stores.opened(place) as asking:
            _put(asking, place, content)

    def get(self, destination: str) -> bytes | None:
        """What an object holds; None where there is none."""
        place = place_of(destination)
        with self._stores.opened(place) as asking:
            info = _info(asking, place)
            if info is None:
                return None
            return asking.ask(place, asking.store.fetch, place, info, 0, info.size)

    def has(self, destination: str) -> bool:
        """Whether there is such an object."""
        place = place_of(destination)
        with self._stores.opened(place) as asking:
            return _info(asking, place) is not None

    def remove(self, destination: str) -> None:
        """Remove an object, where it is there."""
        place = place_of(destination)
        with self._stores.opened(place) as asking:
            if _info(asking, place) is not None:
                asking.ask(place, asking.store.remove, place)

    def clear(self, folder: str) -> None:
        """Remove all objects below a folder, whose URI ends with a slash.

        Raises:
            UsageError: it is no folder, or a whole bucket.
        """
        place = folder_of(folder)
        with self._stores.opened(place) as asking:
            keys = asking.ask(place, asking.store.keys, place)
            for at in range(0, len(keys), REMOVED_AT_ONCE):
                some = keys[at : at + REMOVED_AT_ONCE]
                _remove(asking, [replace(place, key=key) for key in some])

    def probe(self, place: str) -> str:
        """Upload an object in a folder as results are uploaded, read it, remove it.

        What killed writers have left there, and the store keeps, is removed too.
        """
        one = place_of(f"{place.rstrip('/')}/.lodestar-check-{secrets.token_hex(8)}")
        with self._stores.opened(one) as asking:
            store = asking.store
            upload = store.upload(one)
            asking.ask(one, upload.begin)
            try:
                left = _ended_below(one.folder, asking, upload)
                asking.ask(one, upload.add, 0, _PROBE, last=True)
                asking.ask(one, upload.complete)
            except LodestarError as error:
                _drop(upload, asking, one, error)
                raise
            try:
                info = asking.ask(one, store.info, one)
                found = asking.ask(one, store.fetch, one, info, 0, len(_PROBE))
            finally:
                asking.ask(one, store.remove, one)
        if found != _PROBE:
            raise ExternalError(f"{place} does not give back what was written there")
        return f"an object was written, read and removed{left}"


class ObjectSink:
    """An upload in parts: readers see the old object until the last request, then the whole new one."""

    def __init__(self, stores: Stores, place: Place, schema: pa.Schema) -> None:
        self._stores = stores
        self._place = place
        self._schema = schema
        self._stack = ExitStack()
        self._asking: Asking
        self._file: PartsFile
        self._writer: BatchWriter

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._asking = stack.enter_context(self._stores.opened(self._place))
            upload = self._upload = self._asking.store.upload(self._place)
            self._asking.ask(self._place, upload.begin)
            stack.push(self._abort)
            if isinstance(upload, LeavesParts):
                with suppress(StoreError):  # not everyone may list uploads, and this one is well
                    self._asking.tried(upload.end_abandoned)
            self._file = PartsFile(self._asking, self._place, upload)
            with _translated(self._place):
                self._writer = new_writer(self._file, self._place.suffix, self._schema)
            self._stack = stack.pop_all()
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        with _translated(self._place):
            self._writer.write_batch(batch)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if kind is not None:
                self._file.drop()
            with _translated(self._place):
                self._writer.close()
            if kind is not None:
                self._stack.pop_all().__exit__(kind, error, trace)
                return
            self._file.finish()
            self._asking.ask(self._place, self._upload.complete)

    def _abort(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drop the parts where the block failed; what made it fail is the error to be seen."""
        del trace
        if kind is not None and error is not None:
            _drop(self._upload, self._asking, self._place, error)


def _drop(upload: MultipartUpload, asking: Asking, place: Place, error: BaseException) -> None:
    """Drop an upload's parts because of an error, which is the one to be seen."""
    try:
        asking.tried(upload.abort)
    except StoreError as left:
        error.add_note(f"the parts of {place.uri} could not be dropped: {left.said}")


def _ended_below(folder: str, asking: Asking, upload: MultipartUpload) -> str:
    """End what killed writers have left in a folder, in words that go on a sentence, if any."""
    if not isinstance(upload, LeavesParts):
        return ""
    try:
        ended = asking.tried(upload.end_abandoned, below=folder)
    except StoreError as error:
        return f"; whether killed writers have left parts there cannot be seen: {error.said}"
    return f"; uploads of killed writers that were ended there: {ended}" if ended else ""


def _info(asking: Asking, place: Place) -> ObjectInfo | None:
    """The present version; None where there is none."""
    try:
        return asking.tried(asking.store.info, place)
    except StoreError as error:
        if error.trouble is Trouble.NO_OBJECT:
            return None
        raise asking.worded(place, error) from error.__cause__


def _put(asking: Asking, place: Place, content: bytes) -> None:
    upload = asking.store.upload(place)
    asking.ask(place, upload.begin)
    asking.ask(place, upload.add, 0, content, last=True)
    asking.ask(place, upload.complete)


def _remove(asking: Asking, places: Sequence[Place]) -> None:
    """Remove some objects side by side; one that is gone already is as it should be."""
    begun = [asking.begin(asking.store.remove, place) for place in places]
    try:
        for place, removal in zip(places, begun, strict=True):
            with suppress(MissingObjectError):
                asking.awaited(place, removal)
    finally:
        asking.leave()


@contextmanager
def _translated(place: Place) -> Iterator[None]:
    """Word what a reader or writer says as our errors; ours go through Arrow as they are."""
    try:
        yield
    except LodestarError:
        raise
    except (pa.ArrowException, OSError) as error:
        reason = first_line(error)
        raise DataError(f"{place.uri} cannot be read as {place.suffix[1:]}: {reason}") from error
