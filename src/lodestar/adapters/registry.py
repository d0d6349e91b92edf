"""Which class serves which scheme or engine; written as text, so that drivers load when chosen."""

import importlib
from typing import Any
from urllib.parse import urlsplit

from lodestar.errors import UsageError, choices

__all__ = ["SQL_READERS", "URI_READERS", "WRITERS", "adapter", "scheme_of"]

# config `data.adapter` → what runs the recipe's SQL
SQL_READERS = {"duckdb": "lodestar.adapters.duckdb:DuckDBReader"}
# URI scheme → what reads such data; "" is a path
URI_READERS = {
    "": "lodestar.adapters.files:FileReader",
    "file": "lodestar.adapters.files:FileReader",
}
# URI scheme → what writes there
WRITERS = {"": "lodestar.adapters.files:FileWriter", "file": "lodestar.adapters.files:FileWriter"}


def adapter(registry: dict[str, str], name: str, *, what: str) -> Any:  # noqa: ANN401 -- a class, by name
    """Import the class that is registered under a name.

    Raises:
        UsageError: there is none.
    """
    place = registry.get(name)
    if place is None:
        known = [key for key in registry if key]
        raise UsageError(f"{what} {name!r} is not supported", hint=choices(name, known))
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def scheme_of(uri: str) -> str:
    """The scheme of a URI; "" for a path."""
    return urlsplit(uri).scheme if "://" in uri else ""
