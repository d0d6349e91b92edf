"""Makes the PostgreSQL adapters from the config's section."""

from collections.abc import Mapping
from pathlib import Path

from sqlglot import exp

from lodestar.adapters.postgres.features import PostgresFeatureTables
from lodestar.adapters.postgres.reader import PostgresReader
from lodestar.adapters.postgres.session import PostgresConnection
from lodestar.adapters.postgres.writer import PostgresWriter, table_of
from lodestar.settings.config import Data
from lodestar.sql import Query

__all__ = ["feature_tables", "reader", "table_reader", "writer"]


def reader(data: Data, project: Path, query: Query, params: Mapping[str, str]) -> PostgresReader:
    """Runs the recipe's query in the server."""
    del project
    return PostgresReader(PostgresConnection.from_config(data), query, params)


def table_reader(data: Data, project: Path, uri: str) -> PostgresReader:
    """Reads a whole table, `postgres://table` or `postgres://schema.table`."""
    del project
    name = table_of(uri)
    table = exp.Table(
        this=exp.to_identifier(name.name, quoted=True),
        db=exp.to_identifier(name.schema, quoted=True) if name.schema else None,
    )
    tree = exp.select("*").from_(table)
    return PostgresReader(
        PostgresConnection.from_config(data), Query(tree.sql("postgres"), "postgres", tree), {}
    )


def writer(data: Data, project: Path) -> PostgresWriter:
    """Writes tables of the same server."""
    del project
    return PostgresWriter(PostgresConnection.from_config(data))


def feature_tables(data: Data, project: Path, query: str | None = None) -> PostgresFeatureTables:
    """The feature tables in the same server, or a query that stands for one."""
    del project
    return PostgresFeatureTables(PostgresConnection.from_config(data), query)
