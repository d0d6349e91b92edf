"""How the rows of a query are divided: ranges that have no row in common, and leave none out.

Each row of a plain query comes from one row of the first table in its FROM, so that ranges of that
table's blocks divide the query too: no key is needed, and each block is read once. Of other queries, or
where the order of the rows counts, the values of one column do; the server finds the bounds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from sqlglot import exp

from lodestar.adapters.postgres.catalog import quoted
from lodestar.adapters.postgres.query import bound
from lodestar.adapters.postgres.session import Session
from lodestar.sql import Query

__all__ = ["Blocks", "Key", "Range", "block_ranges", "blocks_of", "key_ranges", "ordered_by"]

MOST_BUCKETS = 1 << 18
_ROWS = "lodestar_rows"
_PLACE = "lodestar_place"
_FROM, _TO = "lodestar_from", "lodestar_to"
# A table and its partitions; nothing but the usual kind of table keeps a row where its place says.
_SIZE = """
WITH RECURSIVE parts (oid) AS (
    SELECT to_regclass($1)::oid UNION SELECT inhrelid FROM pg_inherits JOIN parts ON inhparent = oid
)
SELECT max(pg_relation_size(c.oid)) / current_setting('block_size')::bigint,
    bool_and(c.relkind IN ('r', 'm', 'p') AND coalesce(a.amname, 'heap') = 'heap')
FROM parts JOIN pg_class AS c ON c.oid = parts.oid LEFT JOIN pg_am AS a ON a.oid = c.relam
"""


@dataclass(frozen=True)
class Range:
    """So many rows: a query that selects them alone, and its parameters."""

    query: Query
    params: Mapping[str, str]
    rows: int


@dataclass(frozen=True)
class Key:
    """A column whose values divide the rows, in the order in which the query has them."""

    name: str
    descending: bool = False
    nulls_first: bool = False


@dataclass(frozen=True)
class Blocks:
    """Where a row of the query's first table lies, and in how many blocks the table does."""

    place: exp.Column
    count: int


def ordered_by(query: Query) -> Key | str | None:
    """The column by which the rows are ordered first, or the words of what else they are ordered by."""
    order = query.tree.args.get("order")
    if order is None:
        return None
    first = order.expressions[0]
    names = query.columns() or ()
    said = first.this
    name = None
    if isinstance(said, exp.Column):
        name = _column_named(query, said)
    elif isinstance(said, exp.Literal) and said.is_int and 0 < int(said.name) <= len(names):
        name = names[int(said.name) - 1]
    if name is None:
        return str(said.sql(dialect=query.dialect))
    descending = bool(first.args.get("desc"))
    nulls_first = first.args.get("nulls_first")
    return Key(name, descending, descending if nulls_first is None else bool(nulls_first))


def _column_named(query: Query, column: exp.Column) -> str | None:
    """The output column that an ORDER BY means; an alias counts before a column of a table."""
    selected = query.tree.selects
    if not column.table and column.name in {one.alias for one in selected if one.alias}:
        return column.name
    for one in selected:
        if one.unalias() == column:
            return one.alias_or_name
    hides = any(one.is_star for one in selected)
    return column.name if hides and not column.table else None


def blocks_of(session: Session, query: Query) -> Blocks | None:
    """The blocks whose ranges divide the query's rows; None where each row is not of one row there."""
    tree = query.tree
    if not isinstance(tree, exp.Select) or any(
        tree.args.get(part) for part in ("group", "having", "distinct", "windows", "qualify")
    ):
        return None
    table = tree.args["from_"].this if tree.args.get("from_") else None
    joins = tree.args.get("joins") or []
    if (
        not isinstance(table, exp.Table)
        or not isinstance(table.this, exp.Identifier)
        or any(one.find(exp.AggFunc, exp.Window) for one in tree.expressions)
        or any(join.side in {"RIGHT", "FULL"} for join in joins)
    ):
        return None
    if not table.db and table.name in {cte.alias for cte in tree.find_all(exp.CTE)}:
        return None
    name = exp.Table(**{key: table.args.get(key) for key in ("this", "db", "catalog")})
    ((blocks, usual),) = session.rows(_SIZE, [name.sql(dialect="postgres")])
    alias = table.args.get("alias")
    place = exp.Column(
        this=exp.to_identifier("ctid"), table=(alias.this if alias else table.this).copy()
    )
    return Blocks(place, int(blocks)) if usual else None


def block_ranges(
    session: Session, query: Query, params: Mapping[str, str], blocks: Blocks, part_rows: int
) -> list[Range] | None:
    """Count the rows by blocks, and put neighbours together; None where a row has no block."""
    width = 1
    while blocks.count // width >= MOST_BUCKETS:
        width *= 2
    tree = query.tree.copy()
    # What is selected stays: a function that gives several rows would count for one.
    tree.set("expressions", [*tree.expressions, exp.alias_(blocks.place.copy(), _PLACE)])
    tree.set("order", None)
    inner = bound(session, replace(query, tree=tree), params)
    found = session.rows(
        f"SELECT width_bucket({_PLACE}, ARRAY(SELECT format('(%s,0)', start)::tid FROM "  # noqa: S608 -- whole numbers of ours, and a bound query
        f"generate_series(0, {blocks.count}, {width}) AS start ORDER BY start)), count(*) "
        f"FROM ({inner}) AS {_ROWS} GROUP BY 1 ORDER BY 1"
    )
    if any(bucket is None for bucket, _ in found):
        return None
    counts = [((int(bucket) - 1) * width, int(rows)) for bucket, rows in found]
    return [
        Range(_within_blocks(query, blocks, start, stop), params, rows)
        for start, stop, rows in _together(counts, part_rows)
    ]


def _together(
    counts: list[tuple[int, int]], part_rows: int
) -> Iterator[tuple[int | None, int | None, int]]:
    """Neighbours of about `part_rows` rows: where each begins, where the next does, how many rows.

    The first has no beginning and the last no end.
    """
    start: int | None = None
    rows = 0
    for at, (_, count) in enumerate(counts):
        rows += count
        last = at + 1 == len(counts)
        if last or rows + counts[at + 1][1] > part_rows:
            stop = None if last else counts[at + 1][0]
            yield start, stop, rows
            start, rows = stop, 0


def _within_blocks(query: Query, blocks: Blocks, start: int | None, stop: int | None) -> Query:
    tree = query.tree.copy()
    for kind, block in ((exp.GTE, start), (exp.LT, stop)):
        if block is not None:
            first_there = exp.Literal.string(f"({block},0)")
            condition = kind(this=blocks.place.copy(), expression=first_there)
            tree = tree.where(condition, append=True, copy=False)
    return replace(query, tree=tree)


def key_ranges(
    session: Session, query: Query, params: Mapping[str, str], key: Key, part_rows: int
) -> list[Range]:
    """Let the server put the rows in order, and cut them; those of one value stay together."""
    column = quoted(key.name)
    direction = "DESC" if key.descending else "ASC"
    inner = bound(session, query, params)
    first = f"(percentile_disc(0) WITHIN GROUP (ORDER BY value {direction}))::text"
    found = session.rows(
        f"SELECT missing, count(*), {first} "  # noqa: S608 -- a quoted name, and a bound query
        f"FROM (SELECT {column} AS value, {column} IS NULL AS missing, (rank() OVER "
        f"(PARTITION BY {column} IS NULL ORDER BY {column} {direction}) - 1) / {part_rows} AS part "
        f"FROM ({inner}) AS {_ROWS}) AS ranked "
        f"GROUP BY missing, part ORDER BY missing, part"
    )
    starts = [(str(value), int(rows)) for missing, rows, value in found if not missing]
    nulls = sum(int(rows) for missing, rows, _ in found if missing)
    ranges = []
    for at, (start, rows) in enumerate(starts):
        bounds = {_FROM: start} if at else {}
        if at + 1 < len(starts):
            bounds[_TO] = starts[at + 1][0]
        ranges.append(Range(_within_values(query, key, bounds), {**params, **bounds}, rows))
    if nulls:
        missing = Range(_of_rows(query, _column(key).is_(exp.null())), params, nulls)
        ranges.insert(0 if key.nulls_first else len(ranges), missing)
    return ranges


def _within_values(query: Query, key: Key, bounds: Mapping[str, str]) -> Query:
    """The rows from one value on, up to another, in the key's direction."""
    from_, to = (exp.LTE, exp.GT) if key.descending else (exp.GTE, exp.LT)
    conditions: list[exp.Expr] = [
        kind(this=_column(key), expression=exp.Placeholder(this=name))
        for name, kind in ((_FROM, from_), (_TO, to))
        if name in bounds
    ]
    present = exp.Not(this=_column(key).is_(exp.null()))
    return _of_rows(query, exp.and_(present, *conditions))


def _of_rows(query: Query, condition: exp.Expr) -> Query:
    rows = exp.select("*").from_(query.tree.copy().subquery(_ROWS)).where(condition)
    return replace(query, tree=rows)


def _column(key: Key) -> exp.Column:
    return exp.column(exp.to_identifier(key.name, quoted=True), table=_ROWS)
