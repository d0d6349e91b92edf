"""A recipe's SQL as BigQuery's, which compares no time with one of another kind."""

from sqlglot import exp

from lodestar.sql import Query

__all__ = ["in_bigquery"]

_COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Between)
_WITHOUT_ZONE = {exp.DType.TIMESTAMP, exp.DType.TIMESTAMPNTZ, exp.DType.DATETIME}


def in_bigquery(query: Query) -> str:
    """The query as BigQuery says it.

    `CAST(:start AS timestamp)` is a DATETIME there, which it does not compare with a TIMESTAMP, as other
    databases do. Beside a column a bare parameter or text takes the column's own type.

    Raises:
        SettingsError: BigQuery cannot say it.
    """
    if query.dialect == "bigquery":
        return query.to("bigquery")
    tree = query.tree.copy()
    for cast in list(tree.find_all(exp.Cast)):
        if cast.to.this in _WITHOUT_ZONE and _is_text(cast.this) and _stands_by_a_column(cast):
            cast.replace(cast.this)
    return Query(query.text, query.dialect, tree).to("bigquery")


def _is_text(value: exp.Expr) -> bool:
    return isinstance(value, exp.Placeholder) or (
        isinstance(value, exp.Literal) and bool(value.is_string)
    )


def _stands_by_a_column(cast: exp.Cast) -> bool:
    comparison = cast.parent
    if not isinstance(comparison, _COMPARISONS):
        return False
    sides: list[exp.Expr] = list(comparison.iter_expressions())
    return any(side.find(exp.Column) is not None for side in sides if side is not cast)
