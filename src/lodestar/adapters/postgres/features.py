"""Feature tables in PostgreSQL: every version in a range of times, or each entity's latest one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, datetime, timedelta

import pyarrow as pa

from lodestar.adapters.postgres.catalog import columns_of, quoted, tables
from lodestar.adapters.postgres.errors import UnknownColumnError, UnknownTableError
from lodestar.adapters.postgres.session import PostgresConnection, Session, opened
from lodestar.adapters.postgres.values import plain_rows, plain_types
from lodestar.core.known_versions import latest_versions
from lodestar.core.version_columns import VersionColumns
from lodestar.errors import SchemaError, choices
from lodestar.interface.features import TimeRange
from lodestar.settings.features import FeatureView

__all__ = ["PostgresFeatureTables"]

READ_ROWS = 65_536
_ZONELESS = "timestamp without time zone"
# Clocks were never further from UTC.
_FURTHEST = timedelta(days=1)


class PostgresFeatureTables:
    """Streams from the tables that `features/*.yaml` names, in sessions that can only read.

    Where a `query` is given, its rows are the table of every view.
    """

    def __init__(self, connection: PostgresConnection, query: str | None = None) -> None:
        self._connection = connection
        self._query = query

    def versions(
        self, view: FeatureView, features: Sequence[str], times: TimeRange
    ) -> pa.RecordBatchReader:
        """All versions whose event time lies in the range, in any order."""
        return self._versions(self._described(view, features), times)

    def latest(
        self, view: FeatureView, times: TimeRange, *, known_by: datetime
    ) -> pa.RecordBatchReader:
        """Per entity the latest version; the server sorts, helped by an index on keys and times.

        Times without a zone do not sort as the moments that they mean: of their tables all versions
        come, and memory grows with the entities.
        """
        table = self._described(view, tuple(view.features))
        if table.zoneless.intersection(view.source.times):
            with self._versions(table, times) as versions:
                return latest_versions(view, versions, known_by=known_by).to_reader(READ_ROWS)
        conditions = [table.within(times), *(f"{quoted(key)} IS NOT NULL" for key in view.keys)]
        if view.source.created_col is not None:
            conditions.append(f"{quoted(view.source.created_col)} <= {_literal(known_by)}")
        return self._stream(
            table,
            f"SELECT DISTINCT ON ({', '.join(map(quoted, view.keys))}) {table.columns} "
            f"WHERE {' AND '.join(conditions)} ORDER BY {table.order}",
        )

    def _versions(self, table: "_Table", times: TimeRange) -> pa.RecordBatchReader:
        sql = f"SELECT {table.columns} WHERE {table.within(times)}"
        reader = self._stream(table, sql)
        if not table.zoneless:
            return reader
        inside = (table.declared.within(batch, times) for batch in reader)
        return pa.RecordBatchReader.from_batches(reader.schema, inside)

    def _described(self, view: FeatureView, features: Sequence[str]) -> "_Table":
        with opened(self._connection) as session:
            if self._query is not None:
                return _describe_query(session, self._query, view, features)
            return _describe(session, view, features)

    def _stream(self, table: "_Table", sql: str) -> pa.RecordBatchReader:
        def stream() -> Iterator[pa.RecordBatch]:
            with opened(self._connection) as session:
                for batch in session.stream(sql):
                    yield table.declared.made_canonical(plain_rows(batch))

        return pa.RecordBatchReader.from_batches(table.declared.schema, stream())


@dataclass(frozen=True)
class _Table:
    """A view's table as it was found: its name and its columns' types as SQL says them."""

    name: str
    declared: VersionColumns
    types: dict[str, str]

    @property
    def zoneless(self) -> set[str]:
        """The columns whose times have no zone."""
        return {name for name, kind in self.types.items() if kind == _ZONELESS}

    @property
    def columns(self) -> str:
        """What stands between SELECT and WHERE."""
        names = [f"{self._value(name)} AS {quoted(name)}" for name in self.declared.schema.names]
        return f"{', '.join(names)} FROM {self.name}"

    @property
    def order(self) -> str:
        """Entities, and of each one first the version that counts: by its times, then its values."""
        view = self.declared.view
        parts = [f"{quoted(name)} DESC" for name in (*view.keys, *view.source.times)]
        for name in view.features:
            match self.declared.schema.field(name).type:
                case kind if kind == pa.string():
                    parts.append(f'{quoted(name)}::text COLLATE "C" DESC NULLS LAST')
                case kind if kind == pa.float64():
                    value = f"{quoted(name)}::double precision"
                    # The second tells 0.0 from -0.0, which counts as less.
                    parts += [f"{value} DESC NULLS LAST", f"float8send({value})"]
                case _:
                    parts.append(f"{quoted(name)} DESC NULLS LAST")
        return ", ".join(parts)

    def within(self, times: TimeRange) -> str:
        """The condition that the event time lies in the range, or near it where it has no zone."""
        name = self.declared.view.source.timestamp_col
        near = _FURTHEST if name in self.zoneless else timedelta(0)
        conditions = [f"{quoted(name)} <= {_literal(times.until, near)}"]
        if times.since is not None:
            conditions.append(f"{quoted(name)} >= {_literal(times.since, -near)}")
        return " AND ".join(conditions)

    def _value(self, name: str) -> str:
        # Decimals would come as text, which takes twice the time.
        decimal = self.types[name] == "numeric"
        return f"CAST({quoted(name)} AS double precision)" if decimal else quoted(name)


def _describe(session: Session, view: FeatureView, features: Sequence[str]) -> _Table:
    """Hold the table to its declaration.

    Raises:
        SchemaError: the table or a column is missing, of another type, or without a zone.
    """
    declared = VersionColumns.of(view, features)
    name = quoted(*view.source.table.split("."))
    what = f"the table {view.source.table!r} of the feature namespace {view.namespace!r}"
    types = columns_of(session, name)
    if not types:
        hint = choices(view.source.table, tables(session))
        raise SchemaError(f"{what} is not in the database", hint=hint)
    asked = [column for column in declared.schema.names if column in types]
    raw = session.schema(f"SELECT {', '.join(map(quoted, asked))} FROM {name}")  # noqa: S608 -- quoted
    _check(declared, raw, what, [column for column in types if column not in asked])
    return _Table(name, declared, {column: types[column] for column in asked})


def _describe_query(
    session: Session, query: str, view: FeatureView, features: Sequence[str]
) -> _Table:
    """The same for a query of a Feast repository.

    Raises:
        SchemaError: it fails, or its columns are not those declared.
    """
    declared = VersionColumns.of(view, features)
    what = f"the query of the feature namespace {view.namespace!r}"
    name = f"({query}) AS source"  # the team's own, in a session that can only read
    try:
        every = session.schema(f"SELECT * FROM {name}").names  # noqa: S608 -- as above
    except (UnknownTableError, UnknownColumnError) as error:
        raise SchemaError(f"{what} fails: {error.what}") from error
    asked = [column for column in declared.schema.names if column in every]
    raw = session.schema(f"SELECT {', '.join(map(quoted, asked))} FROM {name}")  # noqa: S608 -- as above
    _check(declared, raw, what, [column for column in every if column not in asked])
    types = {field.name: _ZONELESS if _is_zoneless(field) else _plain_name(field) for field in raw}
    return _Table(name, declared, types)


def _check(declared: VersionColumns, raw: pa.Schema, what: str, others: Sequence[str]) -> None:
    try:
        plain = plain_types(raw)
    except SchemaError as error:
        raise SchemaError(f"{what}: {error.what}", hint=error.hint) from error
    declared.check(pa.schema([*plain, *(pa.field(column, pa.null()) for column in others)]))


def _is_zoneless(field: pa.Field) -> bool:
    return bool(pa.types.is_timestamp(field.type) and field.type.tz is None)


def _plain_name(field: pa.Field) -> str:
    numeric = isinstance(field.type, pa.OpaqueType) and field.type.type_name == "numeric"
    return "numeric" if numeric else str(field.type)


def _literal(moment: datetime, further: timedelta = timedelta(0)) -> str:
    """A moment in SQL; where the calendar ends, none is further."""
    inside = 1 < moment.year < MAXYEAR
    at = (moment + further if inside else moment).astimezone(UTC)
    return f"TIMESTAMPTZ '{at.isoformat()}'"
