"""Rows on their way into and out of an online store: whose they are, how new, and of what type."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import Any

import pyarrow as pa

from lodestar.errors import DataError, SchemaError
from lodestar.interface.features import OnlineRows, SelectedFeatures
from lodestar.schema import ARROW_TYPES, TIMESTAMP, require_columns
from lodestar.settings.features import FeatureView

__all__ = [
    "EVENT",
    "Entity",
    "Parsers",
    "Questions",
    "Version",
    "newest_by_chunk",
    "watermark_of",
    "watermark_text",
]

EVENT = "event time"
ROWS_AT_ONCE = 1_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# An entity's key values, in the order that its view declares them.
Entity = tuple[int | str, ...]
# How what is stored (bytes in Redis, an attribute in DynamoDB) becomes bool, int, float, str, or µs
# since 1970, by a feature's type, and by EVENT.
Parsers = Mapping[str, Callable[[Any], Any]]


@dataclass(frozen=True, slots=True)
class Version:
    """One entity's values (bool, int, float, str, or µs since 1970) at one event time (µs)."""

    entity: Entity
    event: int
    created: int | None
    values: tuple[Any, ...]

    def is_older_than(self, event: int, created: int | None) -> bool:
        """Whether another version of the entity must stay; of equal event times the last created."""
        if self.event != event or self.created is None or created is None:
            return self.event < event
        return self.created < created


class Questions:
    """A selection, worked out once and asked many times: one row is answered in tens of µs.

    A row's values stand one behind the other: per namespace its event time, then its features.
    """

    def __init__(self, selection: Sequence[SelectedFeatures], parsers: Parsers) -> None:
        self.asked = tuple(selection)
        self._places: list[list[int]] = []  # of each namespace's keys among the columns
        self._checked: pa.Schema | None = None
        self._spans: list[slice] = []
        self._parsers: list[Callable[[Any], Any]] = []
        fields: list[pa.Field] = []
        for one in self.asked:
            kinds = [one.view.features[name].type for name in one.features]
            fields += [
                pa.field(name, ARROW_TYPES[kind])
                for name, kind in zip(one.features, kinds, strict=True)
            ]
            start = len(self._parsers)
            self._parsers += [parsers[EVENT], *[parsers[kind] for kind in kinds]]
            self._spans.append(slice(start, len(self._parsers)))
        self.width = len(self._parsers)
        self._schema = pa.schema(fields)
        # Arrow is slow to make timestamps inside of structs.
        quick = [
            field.with_type(pa.int64()) if field.type == TIMESTAMP else field for field in fields
        ]
        self._row = pa.struct(quick)
        self._as_is = quick == fields
        self._times = [span.start for span in self._spans]
        self._features = [at for at in range(self.width) if at not in set(self._times)]

    def same(self, selection: Sequence[SelectedFeatures]) -> bool:
        """Whether these are the questions of a selection too."""
        return len(selection) == len(self.asked) and all(
            one is other or (one.view is other.view and one.features == other.features)
            for one, other in zip(selection, self.asked, strict=True)
        )

    def entities(self, keys: pa.RecordBatch) -> list[tuple[Entity | None, ...]]:
        """Each row's entity per namespace; None where one of its keys is null.

        Raises:
            SchemaError: a key column is missing or has another type than declared.
        """
        schema = keys.schema
        if self._checked is None or not self._checked.equals(schema):
            for one in self.asked:
                _check_keys(keys, one.view)
            self._places = [
                [schema.get_field_index(name) for name in one.view.keys] for one in self.asked
            ]
            self._checked = schema
        if not self.asked:
            return [()] * keys.num_rows
        values = {at: keys.column(at).to_pylist() for at in {*chain.from_iterable(self._places)}}
        whose = [_tuples([values[at] for at in places]) for places in self._places]
        return list(zip(*whose, strict=True))

    def parsed(self, values: list[Any]) -> tuple[Any, ...]:
        """A row's stored values, parsed; a namespace of which one was not found is unknown.

        Raises:
            DataError: a value is not of the declared type.
        """
        if None in values:
            for span in self._spans:
                if None in values[span]:
                    values[span] = [None] * (span.stop - span.start)
        try:
            return tuple(
                [
                    None if value is None else parse(value)
                    for parse, value in zip(self._parsers, values, strict=True)
                ]
            )
        except ValueError as error:
            raise self.strange() from error

    def answered(self, rows: Sequence[tuple[Any, ...]]) -> OnlineRows:
        """Make columns of rows as `parsed` gave them.

        Raises:
            DataError: a value is not of the declared type.
        """
        features = [tuple([row[at] for at in self._features]) for row in rows]
        try:
            batch = pa.RecordBatch.from_struct_array(pa.array(features, self._row))
            times = pa.array([row[at] for at in self._times for row in rows], TIMESTAMP)
        except (ValueError, OverflowError, pa.ArrowException) as error:
            raise self.strange() from error
        if not self._as_is:
            batch = batch.cast(self._schema)
        count = len(rows)
        return OnlineRows(
            batch,
            {
                one.view.namespace: times.slice(position * count, count)
                for position, one in enumerate(self.asked)
            },
        )

    def strange(self) -> DataError:
        """The error of a value that is not of the declared type."""
        return DataError(
            "the online store holds a value that is not of the declared type, in one of "
            + ", ".join(one.view.namespace for one in self.asked),
            hint="materialise again: a declaration has changed, or something else wrote the value",
        )


def newest_by_chunk(view: FeatureView, rows: Iterator[pa.RecordBatch]) -> Iterator[list[Version]]:
    """Batches as `FeatureTables.latest` gives them, in chunks with one version per entity.

    Rows without a key are nobody's.

    Raises:
        SchemaError: a column is missing or of another type than declared.
        DataError: an event time is null.
    """
    every = chain.from_iterable(_versions(view, batch) for batch in rows)
    while chunk := list(islice(every, ROWS_AT_ONCE)):
        yield _newest(chunk)


def _versions(view: FeatureView, batch: pa.RecordBatch) -> Iterator[Version]:
    source = view.source
    _check_keys(batch, view)
    whose = _tuples([batch.column(name).to_pylist() for name in view.keys])
    events = _plain(batch, source.timestamp_col, TIMESTAMP, view)
    created: Sequence[int | None] = [None] * batch.num_rows
    if source.created_col is not None:
        created = _plain(batch, source.created_col, TIMESTAMP, view)
    columns = [
        _plain(batch, name, ARROW_TYPES[feature.type], view)
        for name, feature in view.features.items()
    ]
    for entity, event, arrived, *values in zip(whose, events, created, *columns, strict=True):
        if event is None:
            raise DataError(f"{view.namespace}: an event time is null")
        if entity is not None:
            yield Version(entity, event, arrived, tuple(values))


def _newest(rows: Sequence[Version]) -> list[Version]:
    """One version per entity."""
    best: dict[Entity, Version] = {}
    for row in rows:
        other = best.get(row.entity)
        if other is None or not row.is_older_than(other.event, other.created):
            best[row.entity] = row
    return list(best.values())


def watermark_text(view: FeatureView, until: datetime) -> str:
    """A watermark as it is stored: µs since 1970, and the declaration that it holds for."""
    return f"{(until - EPOCH) // timedelta(microseconds=1)} {_declared(view)}"


def watermark_of(view: FeatureView, stored: bytes | None) -> datetime | None:
    """Read it back; None also where the declaration has changed and rows lack what is new."""
    micros, _, declared = (stored or b"").decode(errors="replace").partition(" ")
    if declared != _declared(view):
        return None
    return EPOCH + timedelta(microseconds=int(micros))


def _declared(view: FeatureView) -> str:
    features = {name: feature.type for name, feature in view.features.items()}
    return " ".join(
        f"{name}:{kind}" for name, kind in sorted({**view.entity_keys, **features}.items())
    )


def _tuples(columns: Sequence[Sequence[Any]]) -> list[Entity | None]:
    return [None if None in row else row for row in zip(*columns, strict=True)]


def _check_keys(keys: pa.RecordBatch, view: FeatureView) -> None:
    require_columns(keys.schema, [(name, f"a key of {view.namespace}") for name in view.keys])
    for name, declared in view.entity_keys.items():
        kind = keys.schema.field(name).type
        fits = pa.types.is_integer if declared == "int" else pa.types.is_string
        if not fits(kind):
            raise SchemaError(
                f"column {name!r} has the type {kind}, and {view.namespace} declares it as {declared}",
                hint="cast it in the SQL, or correct features/",
            )


def _plain(batch: pa.RecordBatch, name: str, wanted: pa.DataType, view: FeatureView) -> list[Any]:
    require_columns(batch.schema, [(name, f"of {view.namespace}")])
    column = batch.column(name)
    if column.type != wanted:
        raise SchemaError(
            f"{view.namespace}: column {name!r} has the type {column.type} and not {wanted}"
        )
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return list(column.to_pylist())
