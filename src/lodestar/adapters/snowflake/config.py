"""Makes the Snowflake adapters from the config's section."""

from collections.abc import Mapping
from pathlib import Path

from sqlglot import exp

from lodestar.adapters.snowflake.features import SnowflakeWarehouse
from lodestar.adapters.snowflake.reader import SnowflakeReader
from lodestar.adapters.snowflake.writer import SnowflakeWriter, table_of
from lodestar.adapters.warehouse.features import WarehouseFeatures
from lodestar.errors import UsageError
from lodestar.settings.config import Data
from lodestar.settings.warehouses import Snowflake
from lodestar.sql import Query

__all__ = ["feature_tables", "reader", "table_reader", "writer"]


def reader(data: Data, project: Path, query: Query, params: Mapping[str, str]) -> SnowflakeReader:
    """Runs the recipe's query in the warehouse."""
    return SnowflakeReader(_section(data), project, query, params)


def table_reader(data: Data, project: Path, uri: str) -> SnowflakeReader:
    """Reads a whole table, `snowflake://database.schema.table`."""
    parts = [exp.to_identifier(part, quoted=True) for part in table_of(uri).parts]
    tree = exp.select("*").from_(exp.Table(db=parts[1], catalog=parts[0], this=parts[2]))
    query = Query(tree.sql("snowflake"), "snowflake", tree)
    return SnowflakeReader(_section(data), project, query, {})


def writer(data: Data, project: Path) -> SnowflakeWriter:
    """Writes tables of the same account."""
    return SnowflakeWriter(_section(data), project)


def feature_tables(data: Data, project: Path) -> WarehouseFeatures:
    """The feature tables in the same account, and the join with their past there."""
    return WarehouseFeatures(SnowflakeWarehouse(_section(data), project))


def _section(data: Data) -> Snowflake:
    if data.snowflake is None:
        raise UsageError(
            "the config says snowflake but not which account",
            hint="set data.snowflake: account, user, database and one way to log in",
        )
    return data.snowflake
