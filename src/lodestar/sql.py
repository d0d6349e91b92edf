"""The recipe's SQL: one SELECT, checked on its syntax tree, with bound parameters, in any dialect."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError, UnsupportedError

from lodestar.errors import SettingsError, UsageError, choices

__all__ = ["Query", "parse_query"]

# Reading is all that a loader does: whatever writes, locks, configures or shells out is refused.
_FORBIDDEN = (
    exp.DML,
    exp.DDL,
    exp.Drop,
    exp.Alter,
    exp.Copy,
    exp.Into,
    exp.Lock,
    exp.Command,
    exp.Set,
    exp.Pragma,
    exp.Attach,
    exp.Detach,
    exp.Use,
    exp.Transaction,
    exp.Commit,
    exp.Rollback,
)


@dataclass(frozen=True)
class Query:
    """One SELECT statement and the dialect that it is written in."""

    text: str
    dialect: str
    tree: exp.Query

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of its `:name` parameters, in order of appearance."""
        names = [str(node.this) for node in self.tree.find_all(exp.Placeholder, bfs=False)]
        return tuple(dict.fromkeys(names))

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables it reads, `schema.name` where it says so, without its own CTEs."""
        ctes = {cte.alias for cte in self.tree.find_all(exp.CTE)}
        found = [
            ".".join(part.name for part in table.parts)
            for table in self.tree.find_all(exp.Table)
            if isinstance(table.this, exp.Identifier) and (table.db or table.name not in ctes)
        ]
        return tuple(dict.fromkeys(found))

    def columns(self) -> tuple[str, ...] | None:
        """The top-level SELECT's column names, or None where a `*` hides them."""
        names = tuple(self.tree.named_selects)
        return None if any(name == "*" for name in names) else names

    def to(self, dialect: str) -> str:
        """Transpile, with the parameters in that dialect's own notation.

        Raises:
            SettingsError: the other dialect cannot say it.
        """
        try:
            return self.tree.sql(dialect=dialect, unsupported_level=sqlglot.ErrorLevel.RAISE)
        except UnsupportedError as error:
            raise SettingsError.one(
                f"this SQL cannot be said in {dialect}: {error}",
                where="loader.source_uri",
                hint=f"it is read as {self.dialect}; rewrite that part, or set loader.dialect",
            ) from error

    def bind(self, given: Mapping[str, str]) -> dict[str, str]:
        """Match `--context-params` with the statement's parameters.

        Raises:
            UsageError: one is missing, or one is given that the SQL does not have.
        """
        for name in given:
            if name not in self.parameters:
                raise UsageError(
                    f"--context-params: the SQL has no parameter :{name}",
                    hint=choices(name, self.parameters)
                    if self.parameters
                    else "it has none at all",
                )
        missing = [name for name in self.parameters if name not in given]
        if missing:
            raise UsageError(
                f"the SQL needs a value for {', '.join(':' + name for name in missing)}",
                hint=f'give --context-params "{",".join(name + "=…" for name in missing)}"',
            )
        return dict(given)


def parse_query(text: str, dialect: str, *, where: str) -> Query:
    """Read and check one statement. `where` names its file for errors.

    Raises:
        SettingsError: no SQL, more than one statement, or anything else than a plain SELECT.
    """
    logging.getLogger("sqlglot").setLevel(logging.ERROR)
    try:
        statements = [tree for tree in sqlglot.parse(text, dialect=dialect) if tree is not None]
    except SqlglotError as error:
        detail = (getattr(error, "errors", None) or [{}])[0]
        line = f":{detail['line']}" if "line" in detail else ""
        token = detail.get("highlight")
        what = f"not valid {dialect} SQL" + (f" at {token!r}" if token else "")
        hint = "the dialect is the recipe's loader.dialect"
        raise SettingsError.one(what, where=f"{where}{line}", hint=hint) from error
    if len(statements) != 1:
        raise SettingsError.one(
            "must be one SELECT statement, "
            + ("but is empty" if not statements else f"but has {len(statements)}"),
            where=where,
        )
    tree = statements[0]
    for node in tree.walk():
        if isinstance(node, _FORBIDDEN):
            word = type(node).__name__.upper()
            raise SettingsError.one(
                f"must only read, but contains {word}", where=where, hint="one plain SELECT"
            )
        if _is_nameless(node):
            raise SettingsError.one(
                "has a parameter without a name",
                where=where,
                hint="write :name and give its value with --context-params",
            )
    if not isinstance(tree, exp.Query):
        raise SettingsError.one(
            "must be one SELECT statement", where=where, hint="WITH … SELECT and UNION are fine"
        )
    query = Query(text, dialect, tree)
    names = query.columns() or ()
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError.one(
            f"selects the column {twice[0]!r} twice", where=where, hint="name one of them with AS"
        )
    return query


def _is_nameless(node: exp.Expr) -> bool:
    if isinstance(node, exp.Placeholder):
        return not isinstance(node.this, str) or not node.this.isidentifier()
    return isinstance(node, exp.Parameter)
