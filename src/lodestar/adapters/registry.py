"""What makes the adapter of a scheme or engine; written as text, so that drivers load when chosen."""

import importlib
from operator import attrgetter
from typing import Any
from urllib.parse import urlsplit

from lodestar.errors import UsageError, choices

__all__ = ["FEATURE_TABLES", "SQL_READERS", "URI_READERS", "WRITERS", "adapter", "scheme_of"]

# config `data.adapter` → (data section, project, query, its parameters) → what runs the recipe's SQL
SQL_READERS = {
    "duckdb": "lodestar.adapters.duckdb:DuckDBReader.from_config",
    "postgres": "lodestar.adapters.postgres_config:reader",
    "snowflake": "lodestar.adapters.snowflake_config:reader",
    "bigquery": "lodestar.adapters.bigquery_config:reader",
}
# config `feature_store.offline` → (data section, project) → what holds the tables of features/*.yaml
FEATURE_TABLES = {
    "files": "lodestar.adapters.feature_files:FileFeatureTables.from_config",
    "postgres": "lodestar.adapters.postgres_config:feature_tables",
}
# URI scheme → (data section, project, URI) → what reads such data; "" is a path
URI_READERS = {
    "": "lodestar.adapters.files:FileReader.from_config",
    "file": "lodestar.adapters.files:FileReader.from_config",
    "snowflake": "lodestar.adapters.snowflake_config:table_reader",
    "bq": "lodestar.adapters.bigquery_config:table_reader",
}
# URI scheme → (data section, project) → what writes there
WRITERS = {
    "": "lodestar.adapters.files:FileWriter.from_config",
    "file": "lodestar.adapters.files:FileWriter.from_config",
    "postgres": "lodestar.adapters.postgres_config:writer",
    "snowflake": "lodestar.adapters.snowflake_config:writer",
    "bq": "lodestar.adapters.bigquery_config:writer",
}


def adapter(registry: dict[str, str], name: str, *, what: str) -> Any:  # noqa: ANN401 -- a callable, by name
    """Import what is registered under a name.

    Raises:
        UsageError: there is none.
    """
    place = registry.get(name)
    if place is None:
        known = [key for key in registry if key]
        raise UsageError(f"{what} {name!r} is not supported", hint=choices(name, known))
    module, _, attribute = place.partition(":")
    return attrgetter(attribute)(importlib.import_module(module))


def scheme_of(uri: str) -> str:
    """The scheme of a URI; "" for a path."""
    return urlsplit(uri).scheme if "://" in uri else ""
