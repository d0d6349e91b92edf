"""A recipe's query as PostgreSQL runs it: its parameters bound as settings of the session."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import pyarrow as pa
from sqlglot import exp

from lodestar.adapters.postgres.session import Session
from lodestar.adapters.postgres.values import canonical_rows, canonical_types
from lodestar.errors import SchemaError, UsageError
from lodestar.sql import Query

__all__ = ["bound", "refuse_unwritable_parameter", "rows_of"]

_SETTING = "lodestar.parameter_{}"
_PREPARED = "lodestar_query"
# By their own names: what SQL calls "character" is one sign long, and the type without it is not.
_TYPES = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(t.typname)
FROM pg_prepared_statements AS p, unnest(p.parameter_types) WITH ORDINALITY AS u (oid, place)
JOIN pg_type AS t ON t.oid = u.oid JOIN pg_namespace AS n ON n.oid = t.typnamespace
WHERE p.name = $1 ORDER BY u.place
"""


def bound(session: Session, query: Query, params: Mapping[str, str]) -> str:
    """The query, its parameters bound as settings of the session.

    COPY, by which rows stream, takes no parameters; a setting is a value like they are, and no part of
    the statement. The types are the ones that a prepared statement would have. What another query of
    the session was bound to is gone.
    """
    places = [str(node.this) for node in _placeholders(query.tree)]
    if not places:
        return query.to("postgres")
    numbered = _with(query, lambda place, _: exp.Parameter(this=exp.Literal.number(place + 1)))
    session.rows(f"PREPARE {_PREPARED} AS {numbered}")
    types = [name for (name,) in session.rows(_TYPES, [_PREPARED])]
    session.rows(f"DEALLOCATE {_PREPARED}")
    names = list(dict.fromkeys(places))
    for number, name in enumerate(names):
        setting = _SETTING.format(number)
        session.rows("SELECT set_config($1, $2, false)", [setting, params[name]])

    def setting_of(place: int, name: str) -> exp.Expr:
        setting = exp.Literal.string(_SETTING.format(names.index(name)))
        value = exp.Anonymous(this="current_setting", expressions=[setting])
        kind = exp.DataType(this=exp.DataType.Type.USERDEFINED, kind=types[place])
        return exp.Cast(this=value, to=kind)

    return _with(query, setting_of)


def rows_of(
    session: Session, sql: str, target: pa.Schema | None, chunk_rows: int
) -> Iterator[pa.RecordBatch]:
    """Run a bound query; its rows in canonical types, in batches of at most `chunk_rows`.

    Raises:
        SchemaError: the columns are not those of `target`.
    """
    for batch in session.stream(sql):
        found = canonical_types(batch.schema)
        if target is not None and not found.equals(target):
            raise SchemaError(
                "the columns changed while they were being read", hint="nothing was used; try again"
            )
        rows = canonical_rows(batch, found)
        for start in range(0, rows.num_rows, chunk_rows):
            yield rows.slice(start, chunk_rows)


def refuse_unwritable_parameter(name: str, value: str) -> None:
    """A text of PostgreSQL holds all of Unicode but NUL.

    Raises:
        UsageError: the value is none.
    """
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        writable = False
    else:
        writable = "\0" not in value
    if not writable:
        raise UsageError(
            f"--context-params: the value of {name} holds a sign that no text of PostgreSQL can hold",
            hint="NUL and halves of signs (surrogates) are none",
        )


def _with(query: Query, made: Callable[[int, str], exp.Expr]) -> str:
    """The query with something else in the place of each parameter."""
    tree = query.tree.copy()
    for place, node in enumerate(_placeholders(tree)):
        node.replace(made(place, str(node.this)))
    return replace(query, tree=tree).to("postgres")


def _placeholders(tree: exp.Expr) -> list[exp.Placeholder]:
    return list(tree.find_all(exp.Placeholder, bfs=False))
