"""A feature table's columns as declared: checked against what a source has, and made canonical."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from lodestar.errors import SchemaError, choices
from lodestar.interface.features import TimeRange
from lodestar.schema import TIMESTAMP, Column, FrameSchema, canonical, canonical_schema
from lodestar.settings.features import FeatureView

__all__ = ["VersionColumns"]


@dataclass(frozen=True)
class VersionColumns:
    """The columns of a table to read: keys, times, then features. `schema` is what they become."""

    view: FeatureView
    schema: pa.Schema

    @classmethod
    def of(cls, view: FeatureView, features: Sequence[str]) -> "VersionColumns":
        """Take the view's keys and times, and these of its features."""
        source = view.source
        times = source.times
        kinds = {
            **view.entity_keys,
            **dict.fromkeys(times, "timestamp"),
            **{name: view.features[name].type for name in features},
        }
        columns = tuple(Column(name, kind, nullable=True) for name, kind in kinds.items())
        return cls(view, FrameSchema(columns).arrow())

    def check(self, found: pa.Schema) -> None:
        """Compare with what the table has; columns that were not asked for may be anything.

        Raises:
            SchemaError: columns are missing, stand twice, have another type than declared, or hold
                timestamps without a zone where the view declares none; all of them are named.
        """
        wrong = [problem for field in self.schema for problem in self._problems(field, found)]
        if wrong:
            view = self.view
            raise SchemaError(
                f"the table {view.source.table!r} of the feature namespace {view.namespace!r}: "
                + "; ".join(what for what, _ in wrong),
                hint="; ".join(dict.fromkeys(hint for _, hint in wrong)),
            )

    def made_canonical(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The columns in their canonical types, in order; `check` has passed.

        Timestamps without a zone are in the view's. Of a local time that the clock shows twice, and of
        one that it skips, the later moment is taken: no version counts before it was there.
        """
        columns = [self._zoned(batch.column(name)) for name in self.schema.names]
        return canonical(pa.record_batch(columns, names=self.schema.names), self.schema)

    def within(self, batch: pa.RecordBatch, times: TimeRange) -> pa.RecordBatch:
        """Only versions whose event time lies in the range; those without one lie in none."""
        events = batch.column(self.view.source.timestamp_col)
        inside = pc.less_equal(events, pa.scalar(times.until, TIMESTAMP))
        if times.since is not None:
            since = pa.scalar(times.since, TIMESTAMP)
            inside = pc.and_(inside, pc.greater_equal(events, since))
        return batch if inside.true_count == len(batch) else batch.filter(inside)

    def _zoned(self, column: pa.Array) -> pa.Array:
        if not (pa.types.is_timestamp(column.type) and column.type.tz is None):
            return column
        zone = self.view.source.timezone
        return pc.assume_timezone(column, zone, ambiguous="latest", nonexistent="latest")

    def _problems(self, wanted: pa.Field, found: pa.Schema) -> Iterator[tuple[str, str]]:
        """What is wrong with one column, and what would be right."""
        name = wanted.name
        count = found.names.count(name)
        if count == 0:
            yield f"there is no column {name!r}", choices(name, found.names)
            return
        if count > 1:
            yield f"the column {name!r} stands twice", "give one of them another name"
            return
        given = found.field(name)
        if not _is_declared(given, wanted.type):
            declared = self._declared(name)
            yield (
                f"the column {name!r} is declared {declared}, and the table has {given.type}",
                f"correct features/{self.view.namespace}.yaml, or cast it in the table",
            )
        elif _has_no_zone(given) and self.view.source.timezone is None:
            yield (
                f"the timestamps in {name!r} have no time zone, and none is declared",
                "say which they are in: source: {timezone: Europe/Berlin} (or UTC)",
            )

    def _declared(self, name: str) -> str:
        kinds = {**self.view.entity_keys, **{n: f.type for n, f in self.view.features.items()}}
        return kinds.get(name, "timestamp")


def _is_declared(given: pa.Field, wanted: pa.DataType) -> bool:
    if pa.types.is_null(given.type):  # nothing but nulls: of any type
        return True
    try:
        (own,) = canonical_schema(pa.schema([given]))
    except SchemaError:  # a list, a struct: nothing that could be declared
        return False
    return bool(own.type == wanted)


def _has_no_zone(field: pa.Field) -> bool:
    return pa.types.is_timestamp(field.type) and field.type.tz is None
