"""SQL in PostgreSQL: the recipe's query runs in the server, its rows stream out as Arrow."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa
from sqlglot import exp

from lodestar.adapters.postgres_catalog import columns_of, quoted, tables
from lodestar.adapters.postgres_errors import UnknownColumnError, UnknownTableError
from lodestar.adapters.postgres_session import PostgresConnection, Session, opened
from lodestar.adapters.postgres_values import canonical_rows, canonical_types
from lodestar.errors import DataError, SchemaError, UsageError, choices
from lodestar.sql import Query

__all__ = ["PostgresConnection", "PostgresReader"]

_SETTING = "lodestar.parameter_{}"
_PREPARED = "lodestar_query"
# By their own names: what SQL calls "character" is one sign long, and the type without it is not.
_TYPES = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(t.typname)
FROM pg_prepared_statements AS p, unnest(p.parameter_types) WITH ORDINALITY AS u (oid, place)
JOIN pg_type AS t ON t.oid = u.oid JOIN pg_namespace AS n ON n.oid = t.typnamespace
WHERE p.name = $1 ORDER BY u.place
"""


class PostgresReader:
    """One query, run anew by each read, in a session that can only read.

    Its parameters have the types that the server infers from where they stand.
    """

    def __init__(
        self, connection: PostgresConnection, query: Query, params: Mapping[str, str]
    ) -> None:
        self._connection = connection
        self._query = query
        self._params = dict(params)
        for name, value in params.items():
            _refuse_unwritable(name, value)

    def schema(self) -> pa.Schema:
        """The query's columns; it is not run."""
        with opened(self._connection) as session, self._near_names(session):
            return canonical_types(session.schema(self._bound(session)))

    def read(self, *, chunk_rows: int) -> pa.RecordBatchReader:
        """Stream the rows in the query's order; its time runs until the last one is taken."""
        target = self.schema()

        def stream() -> Iterator[pa.RecordBatch]:
            with opened(self._connection) as session:
                for batch in session.stream(self._bound(session)):
                    _require_same(batch.schema, target)
                    rows = canonical_rows(batch, target)
                    for start in range(0, rows.num_rows, chunk_rows):
                        yield rows.slice(start, chunk_rows)

        return pa.RecordBatchReader.from_batches(target, stream())

    def _bound(self, session: Session) -> str:
        """The query, its parameters bound as settings of the session.

        COPY, by which rows stream, takes no parameters; a setting is a value like they are, and
        no part of the statement. The types are the ones that a prepared statement would have.
        """
        places = [str(node.this) for node in _placeholders(self._query.tree)]
        if not places:
            return self._query.to("postgres")
        numbered = self._with(lambda place, _: exp.Parameter(this=exp.Literal.number(place + 1)))
        session.rows(f"PREPARE {_PREPARED} AS {numbered}")
        types = [name for (name,) in session.rows(_TYPES, [_PREPARED])]
        names = list(dict.fromkeys(places))
        for number, name in enumerate(names):
            setting = _SETTING.format(number)
            session.rows("SELECT set_config($1, $2, false)", [setting, self._params[name]])

        def setting_of(place: int, name: str) -> exp.Expr:
            setting = exp.Literal.string(_SETTING.format(names.index(name)))
            value = exp.Anonymous(this="current_setting", expressions=[setting])
            kind = exp.DataType(this=exp.DataType.Type.USERDEFINED, kind=types[place])
            return exp.Cast(this=value, to=kind)

        return self._with(setting_of)

    def _with(self, made: Callable[[int, str], exp.Expr]) -> str:
        """The query with something else in the place of each parameter."""
        tree = self._query.tree.copy()
        for place, node in enumerate(_placeholders(tree)):
            node.replace(made(place, str(node.this)))
        return replace(self._query, tree=tree).to("postgres")

    @contextmanager
    def _near_names(self, session: Session) -> Iterator[None]:
        """Say which names there are, where the query has one that there is not."""
        try:
            yield
        except UnknownTableError as error:
            hint = choices(_name_in(error.what), tables(session))
            raise DataError(f"the SQL fails: {error.what}", hint=hint) from error
        except UnknownColumnError as error:
            known = {
                name
                for table in self._query.tables
                for name in columns_of(session, quoted(*table.split(".")))
            }
            hint = choices(_name_in(error.what).rpartition(".")[2], sorted(known))
            raise SchemaError(f"the SQL fails: {error.what}", hint=hint) from error


def _placeholders(tree: exp.Expr) -> list[exp.Placeholder]:
    return list(tree.find_all(exp.Placeholder, bfs=False))


def _name_in(said: str) -> str:
    """The name that the server's message is about: in quotes, or with its table's name before it."""
    found = re.search(r'"([^"]+)"|(\w+\.\w+)', said)
    return (found.group(1) or found.group(2)) if found else ""


def _refuse_unwritable(name: str, value: str) -> None:
    """A text of PostgreSQL holds all of Unicode but NUL."""
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


def _require_same(given: pa.Schema, target: pa.Schema) -> None:
    if not canonical_types(given).equals(target):
        raise SchemaError(
            "the columns changed while they were being read", hint="nothing was used; try again"
        )
