"""What tables and columns a database has, and how their names are written in SQL."""

from lodestar.adapters.postgres.session import Session

__all__ = ["columns_of", "quoted", "tables"]

_TABLES = """
SELECT CASE WHEN pg_table_is_visible(c.oid) THEN '' ELSE n.nspname || '.' END || c.relname
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^(pg_|information_schema$)'
LIMIT 10000
"""
_COLUMNS = """
SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = coalesce(to_regclass($1), to_regclass(lower($1)))
AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""


def tables(session: Session) -> list[str]:
    """Tables and views, with their schema where it is not on the search path."""
    return sorted(str(name) for (name,) in session.rows(_TABLES))


def columns_of(session: Session, table: str) -> dict[str, str]:
    """Column → type of a table, its name as SQL; none if there is no such table."""
    return {str(name): str(kind) for name, kind in session.rows(_COLUMNS, [table])}


def quoted(*parts: str) -> str:
    """One name, of a schema and a table or of a column, that nothing in it can end."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)
