"""The point-in-time join as one statement, the same for every warehouse.

It is `lodestar.core.known_versions` in SQL. Of an entity's versions those stay that no later one meets
or precedes in visibility; each of them is the answer from when it is visible until the next one is. So a
row meets one of them at most: no row is lost, none is doubled, and nothing has to be ranked per row.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import pyarrow as pa
from sqlglot import exp

from lodestar.adapters.warehouse.sql import CREATED, EVENT, Dialect, WarehouseTable, column, number
from lodestar.interface.features import TimeRange
from lodestar.schema import TIMESTAMP
from lodestar.settings.features import FeatureView

__all__ = ["AskedRows", "Joined", "join_sql"]

ASKED, ROW, TIME = "ASKED", "R", "T"
VISIBLE, SOONEST, FOLLOWING = "VISIBLE", "SOONEST", "FOLLOWING"
FOREVER = timedelta(days=4_000_000)  # more than lies between any two times
MICROSECOND = timedelta(microseconds=1)
_KINDS = {
    pa.int64(): exp.DType.BIGINT,
    pa.string(): exp.DType.TEXT,
    TIMESTAMP: exp.DType.TIMESTAMPLTZ,
}


@dataclass(frozen=True)
class AskedRows:
    """What rows ask with: their number, their time (µs, UTC) and their keys, under names of ours."""

    keys: Mapping[str, str]
    schema: pa.Schema

    @classmethod
    def of(cls, views: Sequence[FeatureView], spine: pa.Schema) -> "AskedRows":
        """One column for each key that any of the views has."""
        keys = {
            name: f"K{at}"
            for at, name in enumerate(dict.fromkeys(k for v in views for k in v.keys))
        }
        kinds = [(short, spine.field(name).type) for name, short in keys.items()]
        return cls(keys, pa.schema([(ROW, pa.int64()), (TIME, TIMESTAMP), *kinds]))

    def taken(self, table: exp.Table) -> exp.Select:
        """The rows, from the table that they were put into."""
        return exp.select(*map(column, self.schema.names)).from_(table)

    def none(self) -> exp.Select:
        """No real row, to ask what the statement would read."""
        nulls = ((field.name, exp.cast(exp.null(), _KINDS[field.type])) for field in self.schema)
        return exp.select(*(null.as_(name, quoted=True) for name, null in nulls))


@dataclass(frozen=True)
class Joined:
    """What is taken from one namespace: its table, of which times, for how long a value holds."""

    table: WarehouseTable
    features: tuple[str, ...]
    times: TimeRange
    ttl: timedelta | None


def join_sql(asked: AskedRows, rows: exp.Select, parts: Sequence[Joined], dialect: Dialect) -> str:
    """The statement that gives each row's number and features, in the order of their numbers."""
    steps: dict[str, exp.Select] = {ASKED: rows}
    joined = exp.select(column(ROW, "A")).from_(_table(ASKED, "A"))
    for at, part in enumerate(parts):
        name, keys = f"N{at}", [asked.keys[key] for key in part.table.declared.view.keys]
        steps |= _known(part, keys, at)
        meets = exp.and_(*_meets(name, keys, part.ttl))
        joined.join(_table(f"KNOWN{at}", name), on=meets, join_type="left", copy=False)
        for place, feature in enumerate(part.features):
            taken = column(part.table.features[feature], name)
            joined.select(taken.as_(f"{name}_{place}", quoted=True), copy=False)
    for name, step in steps.items():
        joined.with_(exp.to_identifier(name, quoted=True), as_=step, copy=False)
    return joined.order_by(column(ROW, "A"), copy=False).sql(dialect)


def _known(part: Joined, asked: Sequence[str], at: int) -> dict[str, exp.Select]:
    """The versions of the entities that rows ask for, each with when it counts: in three steps."""
    table, (held, seen) = part.table, (f"HELD{at}", f"SEEN{at}")
    visible: exp.Expr = column(EVENT)
    if CREATED in table.moments:
        late = exp.GT(this=column(CREATED), expression=column(EVENT))
        visible = exp.case().when(late, column(CREATED)).else_(column(EVENT))
    rows = exp.select("*", visible.as_(VISIBLE, quoted=True)).from_(
        table.rows(part.times).subquery("V", copy=False)
    )
    rows.where(*table.whole(part.times, part.times.until), _is_asked(table, asked), copy=False)
    # From the version that counts for ever backwards: of this and the later ones, the first to be seen.
    soonest = exp.Window(
        this=exp.Min(this=column(VISIBLE)),
        partition_by=[column(key) for key in table.keys],
        order=table.order(),
        spec=exp.WindowSpec(
            kind="ROWS", start="UNBOUNDED", start_side="PRECEDING", end="CURRENT ROW"
        ),
    )
    # Of two that are visible from the same time the later one is followed by nothing sooner, and the
    # other one counts from then until then: never.
    following = exp.Window(
        this=exp.Lag(this=column(VISIBLE)),
        partition_by=[column(key) for key in table.keys],
        order=table.order(),
    )
    kept = map(column, [*table.keys, EVENT, VISIBLE, *table.features.values()])
    known = exp.select(*kept, following.as_(FOLLOWING, quoted=True)).from_(_table(seen))
    return {
        held: rows,
        seen: exp.select("*", soonest.as_(SOONEST, quoted=True)).from_(_table(held)),
        f"KNOWN{at}": known.where(column(VISIBLE).eq(column(SOONEST))),
    }


def _is_asked(table: WarehouseTable, asked: Sequence[str]) -> exp.Exists:
    """Few rows need few of a large table's entities."""
    pairs = zip(asked, table.keys, strict=True)
    same = [column(key, ASKED).eq(column(own, "V")) for key, own in pairs]
    return exp.Exists(this=exp.select("1").from_(_table(ASKED)).where(*same))


def _meets(name: str, asked: Sequence[str], ttl: timedelta | None) -> Iterator[exp.Expr]:
    """The row's own entity, and a time from when this version counts until the next one does."""
    for at, key in enumerate(asked):
        yield column(key, "A").eq(column(f"K{at}", name))
    yield exp.GTE(this=column(TIME, "A"), expression=column(VISIBLE, name))
    is_last = exp.Is(this=column(FOLLOWING, name), expression=exp.null())
    yield exp.or_(is_last, exp.LT(this=column(TIME, "A"), expression=column(FOLLOWING, name)))
    if ttl is not None and ttl < FOREVER:
        age = exp.TimestampDiff(
            this=column(TIME, "A"), expression=column(EVENT, name), unit=exp.var("MICROSECOND")
        )
        yield exp.LTE(this=age, expression=number(ttl // MICROSECOND))


def _table(name: str, alias: str | None = None) -> exp.Table:
    made = exp.Table(this=exp.to_identifier(name, quoted=True))
    if alias is not None:
        made.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))
    return made
