"""Versioned feature tables as files below a directory: parquet, csv or arrow, found by table name."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from lodestar.adapters.files.formats import SUFFIXES
from lodestar.adapters.files.rows import translated
from lodestar.core.known_versions import latest_versions
from lodestar.core.version_columns import VersionColumns
from lodestar.errors import DataError, choices
from lodestar.interface.features import TimeRange
from lodestar.schema import TIMESTAMP
from lodestar.settings.config import Data
from lodestar.settings.features import FeatureView

__all__ = ["FileFeatureTables"]

READ_ROWS = 65_536
READ_BUFFER = 1 << 16  # bytes per column
DAY = 86_400.0  # seconds, more than any zone is off UTC
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_ZONE = re.compile(r"\d[ T]\S*(Z|[+-]\d\d(:?\d\d)?)$")

Opened = AbstractContextManager[tuple[pa.Schema, Iterator[pa.RecordBatch]]]


class FileFeatureTables:
    """The table `users` is `users.parquet`, `.csv` or `.arrow` below `root`, `a.users` is in `a/`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @classmethod
    def from_config(cls, data: Data, project: Path) -> "FileFeatureTables":
        """The files of the config's data directory."""
        return cls(project / data.root)

    def versions(
        self, view: FeatureView, features: Sequence[str], times: TimeRange
    ) -> pa.RecordBatchReader:
        """Stream the versions in the range; memory holds a batch, however long the file."""
        columns = VersionColumns.of(view, features)
        path = self._file(view)
        with translated(path), _opened(path, columns, times) as (schema, _):
            columns.check(schema)

        def stream() -> Iterator[pa.RecordBatch]:
            with translated(path), _opened(path, columns, times) as (_, batches):
                for batch in batches:
                    yield columns.within(columns.made_canonical(batch), times)

        return pa.RecordBatchReader.from_batches(columns.schema, stream())

    def latest(
        self, view: FeatureView, times: TimeRange, *, known_by: datetime
    ) -> pa.RecordBatchReader:
        """The latest version per entity; memory grows with the entities, not with the versions."""
        with self.versions(view, tuple(view.features), times) as versions:
            return latest_versions(view, versions, known_by=known_by).to_reader(READ_ROWS)

    def _file(self, view: FeatureView) -> Path:
        table = view.source.table
        stem = self._root / table.replace(".", "/")
        for suffix in SUFFIXES:
            path = stem.with_suffix(suffix)
            if path.is_file():
                return path
        folder = stem.parent
        there = sorted(path.stem for path in folder.glob("*") if path.suffix in SUFFIXES)
        raise DataError(
            f"the feature namespace {view.namespace!r} is in the table {table!r}, but there is no "
            f"{stem.name}.parquet, .csv or .arrow in {folder}",
            hint=choices(stem.name, there),
        )


def _opened(path: Path, columns: VersionColumns, times: TimeRange) -> Opened:
    openers: dict[str, Callable[[Path, VersionColumns, TimeRange], Opened]] = {
        ".parquet": _parquet,
        ".csv": _csv,
        ".arrow": _arrow,
    }
    return openers[path.suffix](path, columns, times)


@contextmanager
def _parquet(
    path: Path, columns: VersionColumns, times: TimeRange
) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    # A small buffer and one row group at a time, or the reader keeps all column chunks to the end.
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=READ_BUFFER) as file:
        event = columns.view.source.timestamp_col
        batches = (
            batch
            for group in range(file.num_row_groups)
            if _may_hold(file, group, event, times)
            for batch in file.iter_batches(
                READ_ROWS, row_groups=[group], columns=columns.schema.names, use_threads=False
            )
        )
        yield file.schema_arrow, batches


def _may_hold(file: pq.ParquetFile, group: int, event: str, times: TimeRange) -> bool:
    """Whether a row group's own statistics leave room for event times in the range."""
    per_second = _PER_SECOND[file.schema_arrow.field(event).type.unit]
    metadata = file.metadata.row_group(group)
    for column in map(metadata.column, range(metadata.num_columns)):
        seen = column.statistics if column.path_in_schema == event else None
        if seen is not None and seen.has_min_max:
            late = seen.min_raw / per_second > times.until.timestamp() + DAY
            since = times.since
            early = since is not None and seen.max_raw / per_second < since.timestamp() - DAY
            return not bool(late or early)
    return True


@contextmanager
def _arrow(
    path: Path, columns: VersionColumns, times: TimeRange
) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    del times
    with pa.OSFile(str(path)) as source:
        schema = pa.ipc.open_file(source).schema
        wanted = [place for place, name in enumerate(schema.names) if name in columns.schema.names]
        options = pa.ipc.IpcReadOptions(included_fields=wanted)
        with pa.ipc.open_file(source, options=options) as reader:
            yield schema, map(reader.get_batch, range(reader.num_record_batches))


@contextmanager
def _csv(
    path: Path, columns: VersionColumns, times: TimeRange
) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    del times
    found = _csv_schema(path, columns)
    wanted = [name for name in columns.schema.names if name in found.names]
    types = {name: found.field(name).type for name in wanted if found.names.count(name) == 1}
    options = _csv_options(column_types=types, include_columns=wanted)
    with pacsv.open_csv(path, convert_options=options) as reader:
        yield found, iter(reader)


def _csv_schema(path: Path, columns: VersionColumns) -> pa.Schema:
    """What the columns' text can be read as: as declared where it can, else as it looks."""
    moments = [field.name for field in columns.schema if pa.types.is_timestamp(field.type)]
    as_text = _csv_options(column_types=dict.fromkeys(moments, pa.string()))
    with pacsv.open_csv(path, convert_options=as_text) as reader:
        looks = reader.schema
        first = next(iter(reader), None)
    fields = []
    for field in looks:
        kind = field.type
        if field.name in moments:
            kind = _kind_of_moments(first.column(field.name)) if first else TIMESTAMP
        elif field.name in columns.schema.names:
            declared = columns.schema.field(field.name).type
            kind = declared if _reads_as(kind, declared) else kind
        fields.append(pa.field(field.name, kind))
    return pa.schema(fields)


def _reads_as(looks: pa.DataType, declared: pa.DataType) -> bool:
    """Digits can be text (an id) or a float; anything can be text."""
    digits = pa.types.is_integer(looks) and pa.types.is_floating(declared)
    return bool(digits or pa.types.is_string(declared) or pa.types.is_null(looks))


def _kind_of_moments(texts: pa.Array) -> pa.DataType:
    """Timestamps with or without a zone, as the first one says, or plain text."""
    first = next((text for text in texts.to_pylist() if text is not None), None)
    if first is None:
        return TIMESTAMP
    kind = TIMESTAMP if _ZONE.search(first) else pa.timestamp("us")
    try:
        pa.scalar(first).cast(kind)
    except pa.ArrowInvalid:
        return pa.string()
    return kind


def _csv_options(**more: Any) -> pacsv.ConvertOptions:  # noqa: ANN401 -- pyarrow's own keywords
    # An empty field is null, as for the spine; NA and NULL are text like any other.
    return pacsv.ConvertOptions(null_values=[""], strings_can_be_null=True, **more)
