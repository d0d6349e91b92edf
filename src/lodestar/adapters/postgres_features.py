"""Feature tables in PostgreSQL: every version in a range of times, or each entity's latest one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, datetime, timedelta
from zoneinfo import available_timezones

import pyarrow as pa

from lodestar.adapters.postgres_catalog import columns_of, quoted, tables
from lodestar.adapters.postgres_session import PostgresConnection, Session, opened
from lodestar.adapters.postgres_values import canonical_rows, canonical_types
from lodestar.errors import SchemaError, choices
from lodestar.interface.features import TimeRange
from lodestar.schema import Column, FrameSchema
from lodestar.settings.features import FeatureView

__all__ = ["PostgresFeatureTables"]

# Clocks were never further from UTC: lets an index on times without a zone help.
_FURTHEST = timedelta(days=1)
# Whole numbers may stand for others; nothing else does.
_FITTING = {"float": ("float", "int")}


class PostgresFeatureTables:
    """Streams from the tables that `features/*.yaml` names, in sessions that can only read."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    def versions(
        self, view: FeatureView, features: Sequence[str], times: TimeRange
    ) -> pa.RecordBatchReader:
        """All versions whose event time lies in the range, in any order."""
        table = self._described(view, features)
        return self._stream(table, f"SELECT {table.columns} WHERE {table.within(times)}")

    def latest(
        self, view: FeatureView, times: TimeRange, *, known_by: datetime
    ) -> pa.RecordBatchReader:
        """Per entity the latest version; the server sorts, with an index on keys and times at once."""
        table = self._described(view, tuple(view.features))
        keys = [quoted(key) for key in view.keys]
        conditions = [table.within(times), *(f"{key} IS NOT NULL" for key in keys)]
        order = [*keys, table.moment(view.source.timestamp_col)]
        created = view.source.created_col
        if created is not None:
            conditions.append(f"{table.moment(created)} <= {_literal(known_by)}")
            order.append(table.moment(created))
        return self._stream(
            table,
            f"SELECT DISTINCT ON ({', '.join(keys)}) {table.columns} "
            f"WHERE {' AND '.join(conditions)} "
            f"ORDER BY {', '.join(f'{part} DESC' for part in order)}",
        )

    def _described(self, view: FeatureView, features: Sequence[str]) -> "_Table":
        with opened(self._connection) as session:
            return _describe(session, view, features)

    def _stream(self, table: "_Table", sql: str) -> pa.RecordBatchReader:
        def stream() -> Iterator[pa.RecordBatch]:
            with opened(self._connection) as session:
                for batch in session.stream(sql):
                    yield canonical_rows(batch, table.schema)

        return pa.RecordBatchReader.from_batches(table.schema, stream())


@dataclass(frozen=True)
class _Table:
    """A view's table as it was found: its columns as expressions, and what they will be."""

    name: str
    view: FeatureView
    schema: pa.Schema
    zoneless: frozenset[str]

    @property
    def columns(self) -> str:
        """What stands between SELECT and WHERE."""
        names = [f"{self.moment(name)} AS {quoted(name)}" for name in self.schema.names]
        return f"{', '.join(names)} FROM {self.name}"

    def moment(self, name: str) -> str:
        """A column, its times with their zone."""
        if name not in self.zoneless:
            return quoted(name)
        zone = str(self.view.source.timezone).replace("'", "''")
        return f"({quoted(name)} AT TIME ZONE '{zone}')"

    def within(self, times: TimeRange) -> str:
        """The condition that the event time lies in the range."""
        name = self.view.source.timestamp_col
        bounds = [(">=", times.since, -_FURTHEST), ("<=", times.until, _FURTHEST)]
        conditions = []
        for sign, bound, further in bounds:
            if bound is not None:
                conditions.append(f"{self.moment(name)} {sign} {_literal(bound)}")
            if bound is not None and name in self.zoneless and 1 < bound.year < MAXYEAR:
                outer = _literal(bound + further)
                conditions.append(f"{quoted(name)} {sign} ({outer} AT TIME ZONE 'UTC')")
        return " AND ".join(conditions)


def _describe(session: Session, view: FeatureView, features: Sequence[str]) -> _Table:
    """Hold the table to its declaration.

    Raises:
        SchemaError: the table or a column is missing, of another type, or without a zone.
    """
    source = view.source
    declared: dict[str, str] = {**view.entity_keys, source.timestamp_col: "timestamp"}
    if source.created_col is not None:
        declared[source.created_col] = "timestamp"
    declared |= {name: view.features[name].type for name in features}
    table = quoted(*source.table.split("."))
    known = columns_of(session, table)
    if not known:
        raise _differs(view, "there is no such table", choices(source.table, tables(session)))
    missing = [name for name in declared if name not in known]
    if missing:
        what = f"there is no column {', '.join(map(repr, missing))}"
        raise _differs(view, what, choices(missing[0], list(known)))
    names = ", ".join(map(quoted, declared))
    raw = session.schema(f"SELECT {names} FROM {table}")  # noqa: S608 -- quoted
    _require_types(view, raw, declared, known)
    zoneless = frozenset(
        field.name for field in raw if pa.types.is_timestamp(field.type) and field.type.tz is None
    )
    _require_zone(view, zoneless)
    columns = tuple(Column(name, kind, nullable=True) for name, kind in declared.items())
    return _Table(table, view, FrameSchema(columns).arrow(), zoneless)


def _require_types(
    view: FeatureView, raw: pa.Schema, declared: dict[str, str], known: dict[str, str]
) -> None:
    for field in raw:
        wanted = declared[field.name]
        try:
            found = FrameSchema.of(canonical_types(pa.schema([field])).empty_table())
            fits = found.columns[0].type in _FITTING.get(wanted, (wanted,))
        except SchemaError:
            fits = False
        if not fits:
            raise _differs(
                view,
                f"column {field.name!r} is declared as {wanted}, but is {known[field.name]}",
                "correct the declaration, or name a view of the database that casts the column",
            )


def _require_zone(view: FeatureView, zoneless: frozenset[str]) -> None:
    zone = view.source.timezone
    if zoneless and zone is None:
        raise _differs(
            view,
            f"the times of {', '.join(sorted(zoneless))} have no zone",
            "say which one they are in: source: {timezone: Asia/Seoul}, or UTC",
        )
    if zone is not None and zone not in available_timezones():
        raise _differs(
            view,
            f"there is no time zone {zone!r}",
            choices(zone, sorted(available_timezones()), most=3),
        )


def _differs(view: FeatureView, what: str, hint: str) -> SchemaError:
    return SchemaError(
        f"namespace {view.namespace!r}, table {view.source.table!r}: {what}", hint=hint
    )


def _literal(moment: datetime) -> str:
    return f"TIMESTAMPTZ '{moment.astimezone(UTC).isoformat()}'"
