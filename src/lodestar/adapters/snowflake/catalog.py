"""What databases, tables and columns an account shows us."""

from lodestar.adapters.snowflake.errors import UnknownObjectError
from lodestar.adapters.snowflake.names import given_name, quoted, stored_name
from lodestar.adapters.snowflake.session import Session

__all__ = ["columns_of", "databases", "kind_of", "schemas", "tables"]

_MOST = 10_000


def databases(session: Session) -> list[str]:
    """The databases that our role sees; asked so, no current one is needed."""
    return [str(row[1]) for row in session.rows("SHOW TERSE DATABASES")]


def schemas(session: Session, database: str) -> list[str]:
    """The schemas of a database that our role sees."""
    found = session.rows(f"SHOW TERSE SCHEMAS IN DATABASE {quoted(database)}")
    return [str(row[1]) for row in found]


def tables(session: Session, database: str, here: str) -> list[str]:
    """Tables and views of a database, with their schema where it is not the session's."""
    sql = f"SELECT table_schema, table_name FROM {_catalog(database, 'tables')} LIMIT {_MOST}"  # noqa: S608 -- quoted
    return sorted(
        given_name(name)
        if schema == stored_name(here)
        else f"{given_name(schema)}.{given_name(name)}"
        for schema, name in session.rows(sql)
    )


def kind_of(session: Session, database: str, schema: str, table: str) -> str | None:
    """`BASE TABLE`, `VIEW`, …; None where there is nothing of that name."""
    sql = (
        f"SELECT table_type FROM {_catalog(database, 'tables')} "  # noqa: S608 -- quoted
        "WHERE table_schema = :1 AND table_name = :2"
    )
    found = session.rows(sql, [schema, table])
    return str(found[0][0]) if found else None


def columns_of(session: Session, database: str, schema: str, table: str) -> dict[str, str]:
    """Column → type of a table, `NUMBER` with its digits; none if there is no such table."""
    sql = (
        "SELECT column_name, data_type, numeric_precision, numeric_scale "  # noqa: S608 -- quoted
        f"FROM {_catalog(database, 'columns')} "
        "WHERE table_schema = :1 AND table_name = :2 ORDER BY ordinal_position"
    )
    try:
        found = session.rows(sql, [schema, table])
    except UnknownObjectError:  # there is no such database
        return {}
    return {
        str(name): f"{kind}({precision},{scale})" if kind == "NUMBER" else str(kind)
        for name, kind, precision, scale in found
    }


def _catalog(database: str, view: str) -> str:
    return f"{quoted(database)}.information_schema.{view}"
