"""A query's rows of one moment in parts, each read by whichever session scores it.

The session of the command exports its snapshot and keeps its transaction open until all parts are
scored; the others import it, so that together they read exactly what one session would have.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from lodestar.adapters.parts import MovingPart
from lodestar.adapters.postgres.plan import cost_of, unsure
from lodestar.adapters.postgres.query import bound, rows_of
from lodestar.adapters.postgres.ranges import (
    Key,
    Range,
    block_ranges,
    blocks_of,
    key_ranges,
    ordered_by,
)
from lodestar.adapters.postgres.session import PostgresConnection, Session, opened
from lodestar.errors import DataError, ExternalError, first_line
from lodestar.interface.parts import Divided, Division
from lodestar.sql import Query

__all__ = ["PostgresPart", "postgres_parts"]

_SNAPSHOT = re.compile(r"^[0-9A-Fa-f-]+$")
# How much more than one reading all ranges together may cost the server, by its own estimate.
MOST_COST = 4.0
LEAST = 100.0  # of its unit: what costs less is not worth a thought
# A session whose client is gone shall not go on computing for nobody; servers before 14 cannot tell.
_NOTICE = """
SELECT set_config(name, '5000', false) FROM pg_settings
WHERE name = 'client_connection_check_interval' AND context = 'user'
"""


class PostgresPart(MovingPart):
    """One range of the rows of a snapshot."""

    def __init__(
        self,
        connection: PostgresConnection,
        snapshot: str,
        range_: Range,
        first_row: int,
        division: Division,
    ) -> None:
        super().__init__(range_.rows, first_row, division)
        self._connection: PostgresConnection | None = connection
        self._application = connection.application
        self._snapshot = snapshot
        self._range = range_

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_connection": None}

    def _fetched(self) -> Iterator[pa.RecordBatch]:
        with _seeing(self._connected(), self._snapshot) as session:
            sql = bound(session, self._range.query, self._range.params)
            yield from rows_of(session, sql, None, self._chunk_rows)

    def _miscounted(self, count: int) -> DataError:
        return DataError(
            f"the SQL gives other rows each time: {count:,} where {self.rows:,} were counted",
            hint="see which of its functions or views depend on more than the tables",
        )

    def _connected(self) -> PostgresConnection:
        """The server as this process's own config and variables have it."""
        if self._connection is None:
            data = self._environment().config.data
            self._connection = PostgresConnection.from_config(data, application=self._application)
        return self._connection


@contextmanager
def postgres_parts(
    connection: PostgresConnection,
    query: Query,
    params: Mapping[str, str],
    columns: list[str],
    division: Division,
) -> Iterator[Divided]:
    """Divide the rows that there are now; they can be read until the block ends.

    Raises:
        LodestarError: the query fails, or the server has no snapshot to give.
    """
    with opened(connection, repeats=True) as session:
        ranges = _ranges(session, query, params, columns, division)
        if isinstance(ranges, str):
            yield Divided(None, f"the rows are read by one session: {ranges}")
            return
        ((snapshot,),) = session.rows("SELECT pg_export_snapshot()")
        parts, first = [], 0
        for one in ranges:
            parts.append(PostgresPart(connection, str(snapshot), one, first, division))
            first += one.rows
        yield Divided(parts, moving=True)


def _ranges(
    session: Session,
    query: Query,
    params: Mapping[str, str],
    columns: list[str],
    division: Division,
) -> list[Range] | str:
    """The ranges, in order, or the words of why there are none."""
    plan = session.plan(bound(session, query, params))
    reason = unsure(session, plan)
    if reason is not None:
        return reason
    key = _key(query, columns, division)
    if isinstance(key, str):
        return key
    blocks = blocks_of(session, query) if key is None else None
    ranges = None
    if blocks is not None:
        ranges = block_ranges(session, query, params, blocks, division.part_rows)
    if ranges is None:
        key = key or _first(division.keys, columns)
        if key is None:
            return "no table's blocks divide them, and there is no entity key among the columns"
        ranges = key_ranges(session, query, params, key, division.part_rows)
    return _affordable(session, ranges, cost_of(plan))


def _key(query: Query, columns: list[str], division: Division) -> Key | str | None:
    """The column whose values must divide the rows; None where none must."""
    order = ordered_by(query)
    if isinstance(order, str) or (order is not None and order.name not in columns):
        said = order if isinstance(order, str) else order.name
        return f"they are ordered by {said}, which is no column of the query"
    return order or _first(division.by, columns)


def _first(wanted: tuple[str, ...], columns: list[str]) -> Key | None:
    return next((Key(name) for name in wanted if name in columns), None)


def _affordable(session: Session, ranges: list[Range], whole: float) -> list[Range] | str:
    """The ranges, unless the server would do most of its work once for each of them."""
    if len(ranges) < 2:  # noqa: PLR2004 -- one range is the whole query
        return ranges
    middle = ranges[len(ranges) // 2]
    each = cost_of(session.plan(bound(session, middle.query, middle.params)))
    times = each * len(ranges) / max(whole, LEAST)
    if times > MOST_COST:
        return (
            f"in {len(ranges):,} ranges they would cost the server {times:,.0f} × as much; an index "
            "that begins with the column which divides them, or a larger batch.part_rows, helps"
        )
    return ranges


@contextmanager
def _seeing(connection: PostgresConnection, snapshot: str) -> Iterator[Session]:
    """A session that sees what the one that exported the snapshot does."""
    if not _SNAPSHOT.match(snapshot):
        raise ExternalError(f"PostgreSQL calls a snapshot {snapshot!r}, which is none")
    with opened(connection, repeats=True) as session:
        try:
            session.rows(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
        except DataError as error:
            raise ExternalError(
                f"the rows of that moment are gone: {first_line(error)}",
                hint="the command that keeps them must run on, and all nodes must mean the same "
                "server and database",
            ) from error
        session.rows(_NOTICE)
        yield session
