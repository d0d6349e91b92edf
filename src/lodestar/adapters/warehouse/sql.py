"""Feature tables in a warehouse's SQL: their rows as declared, and each entity's latest.

One tree for every dialect; within a statement keys, times and features have plain names of their own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import pyarrow as pa
from sqlglot import exp

from lodestar.core.clock_changes import Stretch, stretches
from lodestar.core.version_columns import VersionColumns
from lodestar.interface.features import TimeRange

__all__ = [
    "CREATED",
    "EVENT",
    "Dialect",
    "FoundColumn",
    "WarehouseTable",
    "column",
    "number",
    "table_at",
]

Dialect = Literal["bigquery", "snowflake"]
EVENT, CREATED, PLACE = "EVENT", "CREATED", "PLACE"
ZONELESS = pa.timestamp("us")
NO_TIME, FURTHEST = timedelta(0), timedelta(days=1)  # clocks were never further from UTC
SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class FoundColumn:
    """A column as the warehouse has it: its name there, and its type in Arrow's words."""

    stored: str
    type: pa.DataType

    @property
    def zoneless(self) -> bool:
        """Whether it holds times that are no moments until a zone is known."""
        return bool(pa.types.is_timestamp(self.type) and self.type.tz is None)


@dataclass(frozen=True)
class WarehouseTable:
    """A view's table that was held to its declaration; what stands in `columns` is in `declared`.

    Where nothing but `versions` is asked for, not all of the view's features need be there.
    """

    dialect: Dialect
    declared: VersionColumns
    source: exp.Table
    columns: Mapping[str, FoundColumn]

    @property
    def raw(self) -> pa.Schema:
        """What `versions` gives: as declared, but times without a zone have none yet."""
        return self._schema(self.columns[name].zoneless for name in self.declared.schema.names)

    @property
    def timed(self) -> pa.Schema:
        """What `latest` gives: event times and arrivals are moments, features are as in `raw`."""
        times, names = self.declared.view.source.times, self.declared.schema.names
        return self._schema(self.columns[name].zoneless and name not in times for name in names)

    @property
    def keys(self) -> list[str]:
        """What the keys are called within a statement."""
        return [f"K{at}" for at in range(len(self.declared.view.keys))]

    @property
    def moments(self) -> list[str]:
        """What the times are called there."""
        return [EVENT, CREATED][: len(self.declared.view.source.times)]

    @property
    def features(self) -> dict[str, str]:
        """What the features are called there."""
        return {name: f"F{at}" for at, name in enumerate(self.declared.view.features)}

    def versions(self, times: TimeRange) -> str:
        """All rows in the range, and around it where times have no zone."""
        columns = [self._plain(name).as_(name, quoted=True) for name in self.declared.schema.names]
        return self._selected(columns, times).sql(self.dialect)

    def latest(self, times: TimeRange, known_by: datetime) -> str:
        """Per entity the version that counts, times in UTC; all features."""
        place = exp.Window(
            this=exp.RowNumber(),
            partition_by=[column(key) for key in self.keys],
            order=self.order(),
        )
        rows = self.rows(times).subquery("V", copy=False)
        ranked = exp.select("*", place.as_(PLACE, quoted=True)).from_(rows)
        ranked.where(*self.whole(times, known_by), copy=False)
        wanted = [*self.keys, *self.moments, *self.features.values()]
        last = exp.select(*map(column, wanted)).from_(ranked.subquery("W", copy=False))
        return last.where(column(PLACE).eq(1)).sql(self.dialect)

    def rows(self, times: TimeRange) -> exp.Select:
        """Rows in the range and around it: keys, times in UTC, features."""
        view = self.declared.view
        columns = [
            *(self._plain(name) for name in view.keys),
            *(self._moment_of(name, times) for name in view.source.times),
            *(self._plain(name) for name in view.features),
        ]
        names = [*self.keys, *self.moments, *self.features.values()]
        named = [one.as_(short, quoted=True) for one, short in zip(columns, names, strict=True)]
        return self._selected(named, times)

    def whole(self, times: TimeRange, known_by: datetime) -> Iterator[exp.Expr]:
        """Of such rows: of an entity, with an event time in the range, and known to have arrived."""
        for key in self.keys:
            yield exp.not_(exp.Is(this=column(key), expression=exp.null()))
        yield exp.LTE(this=column(EVENT), expression=_moment(times.until))
        if times.since is not None:
            yield exp.GTE(this=column(EVENT), expression=_moment(times.since))
        if CREATED in self.moments:
            yield exp.LTE(this=column(CREATED), expression=_moment(known_by))

    def order(self) -> exp.Order:
        """First the version that counts: by its times, then its values; null least, NaN greatest."""
        view = self.declared.view
        keys: list[exp.Expr] = [column(name) for name in self.moments]
        for name, short in self.features.items():
            # Snowflake has NaN greatest by itself; BigQuery has it least.
            if self.dialect == "bigquery" and view.features[name].type == "float":
                keys.append(exp.IsNan(this=column(short)))
            keys.append(column(short))
        ordered = [exp.Ordered(this=key, desc=True, nulls_first=False) for key in keys]
        return exp.Order(expressions=ordered)

    def _schema(self, zoneless: Iterable[bool]) -> pa.Schema:
        fields = zip(self.declared.schema, zoneless, strict=True)
        return pa.schema([field.with_type(ZONELESS) if bare else field for field, bare in fields])

    def _selected(self, columns: Sequence[exp.Expr], times: TimeRange) -> exp.Select:
        """It is the bare column that is compared, so that partitions outside are not read."""
        event = self.columns[self.declared.view.source.timestamp_col]
        near = FURTHEST if event.zoneless else NO_TIME
        last = _moment(times.until, near, zoneless=event.zoneless)
        bounds: list[exp.Expr] = [exp.LTE(this=column(event.stored), expression=last)]
        if times.since is not None:
            first = _moment(times.since, -near, zoneless=event.zoneless)
            bounds.append(exp.GTE(this=column(event.stored), expression=first))
        return exp.select(*columns).from_(self.source.copy()).where(*bounds)

    def _plain(self, name: str) -> exp.Expr:
        """A column; decimals as floats, moments in UTC."""
        found = self.columns[name]
        if pa.types.is_decimal(found.type):
            return exp.cast(column(found.stored), exp.DType.DOUBLE)
        if pa.types.is_timestamp(found.type) and not found.zoneless:
            return exp.cast(column(found.stored), exp.DType.TIMESTAMPLTZ)
        return column(found.stored)

    def _moment_of(self, name: str, times: TimeRange) -> exp.Expr:
        """One of the times, in UTC; of one without a zone it is exact in the range and around it."""
        stored, zone = self.columns[name].stored, self.declared.view.source.timezone
        if not self.columns[name].zoneless or zone is None:
            return self._plain(name)
        *others, last = stretches(zone, times.since, times.until)
        if not others:
            return self._meant(stored, last)
        ifs = [
            exp.If(
                this=exp.LT(this=column(stored), expression=_local(part.before)),
                true=self._meant(stored, part),
            )
            for part in others
        ]
        return exp.Case(ifs=ifs, default=self._meant(stored, last))

    def _meant(self, stored: str, part: Stretch) -> exp.Expr:
        """The moment that a local time of a stretch means."""
        if isinstance(part.meaning, datetime):
            return _moment(part.meaning)
        seconds = part.meaning // SECOND
        shifted: exp.Expr = column(stored)
        if self.dialect == "bigquery":
            if seconds:
                unit = exp.var("SECOND")
                shifted = exp.DatetimeSub(this=shifted, expression=number(seconds), unit=unit)
            return exp.Timestamp(this=shifted)
        if seconds:
            unit = exp.var("SECOND")
            shifted = exp.DateAdd(this=shifted, expression=number(-seconds), unit=unit)
        return exp.cast(shifted, exp.DType.TIMESTAMPLTZ)  # sessions are in UTC


def column(name: str, table: str | None = None) -> exp.Column:
    """A column by its name as it is kept."""
    return exp.column(name, table=table, quoted=True)


def table_at(database: str, schema: str, name: str) -> exp.Table:
    """A table by its names as they are kept."""
    parts = [exp.to_identifier(part, quoted=True) for part in (database, schema, name)]
    return exp.Table(catalog=parts[0], db=parts[1], this=parts[2])


def number(value: int) -> exp.Expr:
    """A whole number."""
    return exp.Literal.number(value)


def _moment(at: datetime, further: timedelta = NO_TIME, *, zoneless: bool = False) -> exp.Expr:
    """A moment; where the calendar ends, none is further."""
    last = datetime.max.replace(tzinfo=UTC) - FURTHEST
    inside = datetime.min.replace(tzinfo=UTC) + FURTHEST <= at <= last
    moment = (at + further if inside else at).astimezone(UTC)
    if zoneless:
        return _local(moment.replace(tzinfo=None))
    text = moment.isoformat(timespec="microseconds")
    return exp.cast(exp.Literal.string(text), exp.DType.TIMESTAMPLTZ)


def _local(at: datetime) -> exp.Expr:
    """What a clock shows."""
    text = at.isoformat(timespec="microseconds")
    return exp.cast(exp.Literal.string(text), exp.DType.TIMESTAMPNTZ)
