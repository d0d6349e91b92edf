"""Whether a query gives the same rows to several sessions that see the same moment, by its plan.

The plan has what views and functions hide. What is not known to be sure counts as unsure.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lodestar.adapters.postgres.session import Session

__all__ = ["cost_of", "unsure"]

# Steps that give the same rows whenever the tables do; their order is another matter.
_SURE = frozenset(
    {
        *("Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Bitmap Index Scan"),
        *("BitmapAnd", "BitmapOr", "Tid Scan", "Tid Range Scan", "Subquery Scan", "CTE Scan"),
        *("Values Scan", "Function Scan", "Result", "Nested Loop", "Hash Join", "Merge Join"),
        *("Hash", "Sort", "Incremental Sort", "Materialize", "Memoize", "Aggregate", "Group"),
        *("Append", "Merge Append", "Gather", "Gather Merge", "SetOp", "ProjectSet"),
        *("Recursive Union", "WorkTable Scan"),
    }
)
_WHY = {
    "Limit": "LIMIT or OFFSET, which may take other rows each time",
    "WindowAgg": "a window function, which may number equal rows otherwise each time",
    "Unique": "DISTINCT, which may keep another of several rows each time",
    "Sample Scan": "TABLESAMPLE, which takes other rows each time",
    "Foreign Scan": "a foreign table, which is read at a moment of its own",
}
_CALLED = re.compile(r"([A-Za-z_]\w*)\(")
_CLOCK = re.compile(
    r"\b((?:CURRENT_DATE|CURRENT_TIME|CURRENT_TIMESTAMP|LOCALTIME|LOCALTIMESTAMP)\b"
    r"|now\(\)|transaction_timestamp\(\)|statement_timestamp\(\)|pg_backend_pid\(\))"
)
# Nobody knows what a function of somebody else's looks at, unless it is declared immutable.
_VARYING = """
SELECT DISTINCT proname FROM pg_proc WHERE proname = ANY (string_to_array($1, ','))
AND (provolatile = 'v' OR (provolatile = 's' AND pronamespace <> 'pg_catalog'::regnamespace))
ORDER BY 1
"""


def unsure(session: Session, plan: Mapping[str, Any]) -> str | None:
    """What makes it unsure that each session gets the same rows, in words; None where nothing does."""
    called: set[str] = set()
    for node in _nodes(plan):
        kind = str(node["Node Type"])
        if kind not in _SURE:
            return f"its SQL has {_WHY.get(kind, f'a step {kind!r} that may vary')}"
        for text in _texts({key: value for key, value in node.items() if key != "Plans"}):
            clock = _CLOCK.search(text)
            if clock:
                return (
                    f"its SQL looks at the clock or the session ({clock.group()}): "
                    "give the time by --context-params"
                )
            called |= set(_CALLED.findall(text))
    varying = session.rows(_VARYING, [",".join(sorted(called))]) if called else []
    if varying:
        return f"its SQL calls {varying[0][0]}(), which is not declared immutable"
    return None


def cost_of(plan: Mapping[str, Any]) -> float:
    """What the server thinks that all rows cost, in its own unit."""
    return float(plan["Total Cost"])


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
