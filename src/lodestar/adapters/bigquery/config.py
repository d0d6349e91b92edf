"""Makes the BigQuery adapters from the config's section."""

from collections.abc import Mapping
from pathlib import Path

from lodestar.adapters.bigquery.exports import Exports
from lodestar.adapters.bigquery.features import BigQueryWarehouse
from lodestar.adapters.bigquery.reader import BigQueryReader, BigQueryTableReader
from lodestar.adapters.bigquery.writer import BigQueryWriter, table_of
from lodestar.adapters.warehouse.features import WarehouseFeatures
from lodestar.errors import UsageError
from lodestar.settings.config import Data
from lodestar.settings.warehouses import BigQuery
from lodestar.sql import Query

__all__ = ["feature_tables", "reader", "table_reader", "writer"]


def reader(data: Data, project: Path, query: Query, params: Mapping[str, str]) -> BigQueryReader:
    """Runs the recipe's query in BigQuery."""
    section = _section(data)
    return BigQueryReader(section, project, query, params, _exports(data, section, project))


def table_reader(data: Data, project: Path, uri: str) -> BigQueryTableReader:
    """Reads a whole table, `bq://project.dataset.table`."""
    section = _section(data)
    exports = _exports(data, section, project)
    return BigQueryTableReader(section, project, table_of(uri).parts, exports)


def writer(data: Data, project: Path) -> BigQueryWriter:
    """Writes tables of any project that the credentials may write to."""
    return BigQueryWriter(_section(data), project)


def feature_tables(data: Data, project: Path) -> WarehouseFeatures:
    """The feature tables in the same project, and the join with their past there."""
    return WarehouseFeatures(BigQueryWarehouse(_section(data), project))


def _exports(data: Data, section: BigQuery, project: Path) -> Exports | None:
    root = section.export_root
    return None if root is None else Exports(data, section, project, root)


def _section(data: Data) -> BigQuery:
    if data.bigquery is None:
        raise UsageError(
            "the config says bigquery but not which project",
            hint="set data.bigquery: project, dataset and, unless Google's default chain finds "
            "some, credentials_file",
        )
    return data.bigquery
