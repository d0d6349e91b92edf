"""What makes the adapter of a scheme or engine; written as text, so that drivers load when chosen.

Installed packages add names of their own by entry points in the registries' groups. The names that
stand here cannot be taken.
"""

import importlib
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter
from typing import Any
from urllib.parse import urlsplit

from lodestar.errors import ExternalError, UsageError, choices, first_line

__all__ = [
    "FEATURE_TABLES",
    "SQL_READERS",
    "URI_READERS",
    "WRITERS",
    "Registry",
    "adapter",
    "keeps_files",
    "scheme_of",
]

_FILE_WRITERS = "lodestar.file_writers"


class Registry(dict[str, str]):
    """Name → `module:attribute`, and the groups of the entry points that add to it."""

    def __init__(self, known: dict[str, str], *groups: str) -> None:
        super().__init__(known)
        self.groups = groups


# config `data.adapter` → (data section, project, query, its parameters) → what runs the recipe's SQL
SQL_READERS = Registry(
    {
        "duckdb": "lodestar.adapters.duckdb:DuckDBReader.from_config",
        "postgres": "lodestar.adapters.postgres.config:reader",
        "snowflake": "lodestar.adapters.snowflake.config:reader",
        "bigquery": "lodestar.adapters.bigquery.config:reader",
    },
    "lodestar.sql_readers",
)
# config `feature_store.offline` → (data section, project) → what holds the tables of features/*.yaml,
# and joins with their past, if it can
FEATURE_TABLES = Registry(
    {
        "files": "lodestar.adapters.files.features:FileFeatureTables.from_config",
        "postgres": "lodestar.adapters.postgres.config:feature_tables",
        "snowflake": "lodestar.adapters.snowflake.config:feature_tables",
        "bigquery": "lodestar.adapters.bigquery.config:feature_tables",
    }
)
# URI scheme → (data section, project, URI) → what reads such data; "" is a path
URI_READERS = Registry(
    {
        "": "lodestar.adapters.files.sets:reader",
        "file": "lodestar.adapters.files.sets:reader",
        "s3": "lodestar.adapters.objects.s3:ADAPTERS.reader",
        "gs": "lodestar.adapters.objects.gcs:ADAPTERS.reader",
        "az": "lodestar.adapters.objects.azure:ADAPTERS.reader",
        "abfs": "lodestar.adapters.objects.azure:ADAPTERS.reader",
        "postgres": "lodestar.adapters.postgres.config:table_reader",
        "snowflake": "lodestar.adapters.snowflake.config:table_reader",
        "bq": "lodestar.adapters.bigquery.config:table_reader",
    },
    "lodestar.uri_readers",
)
# URI scheme → (data section, project) → what writes there
WRITERS = Registry(
    {
        "": "lodestar.adapters.files.rows:FileWriter.from_config",
        "file": "lodestar.adapters.files.rows:FileWriter.from_config",
        "s3": "lodestar.adapters.objects.s3:ADAPTERS.writer",
        "gs": "lodestar.adapters.objects.gcs:ADAPTERS.writer",
        "az": "lodestar.adapters.objects.azure:ADAPTERS.writer",
        "abfs": "lodestar.adapters.objects.azure:ADAPTERS.writer",
        "postgres": "lodestar.adapters.postgres.config:writer",
        "snowflake": "lodestar.adapters.snowflake.config:writer",
        "bq": "lodestar.adapters.bigquery.config:writer",
    },
    _FILE_WRITERS,
    "lodestar.table_writers",
)
_KEEP_FILES = frozenset({"", "file", "s3", "gs", "az", "abfs"})


def adapter(registry: Registry, name: str, *, what: str) -> Any:  # noqa: ANN401 -- a callable, by name
    """Import what is registered under a name.

    Raises:
        UsageError: there is none.
        ExternalError: another package's cannot be imported.
    """
    place = registry.get(name)
    if place is not None:
        module, _, attribute = place.partition(":")
        return attrgetter(attribute)(importlib.import_module(module))
    added = _added(registry)
    found = [point for point in added if point.name == name]
    if not found:
        known = [key for key in (*registry, *sorted({point.name for point in added})) if key]
        raise UsageError(f"{what} {name!r} is not supported", hint=choices(name, known))
    return _loaded(found, what)


def keeps_files(uri: str) -> bool:
    """Whether what is written there is one run's file; else it is a table, which holds several runs'."""
    scheme = scheme_of(uri)
    if scheme in WRITERS:
        return scheme in _KEEP_FILES
    return any(point.name == scheme for point in entry_points(group=_FILE_WRITERS))


def scheme_of(uri: str) -> str:
    """The scheme of a URI; "" for a path."""
    return urlsplit(uri).scheme if "://" in uri else ""


def _added(registry: Registry) -> list[EntryPoint]:
    """What installed packages add; a name of ours is ours."""
    return [
        point
        for group in registry.groups
        for point in entry_points(group=group)
        if point.name not in registry
    ]


def _loaded(found: list[EntryPoint], what: str) -> Any:  # noqa: ANN401 -- a callable, by name
    """Import the one that a name means.

    Raises:
        UsageError: several packages say that it is theirs.
        ExternalError: the import fails.
    """
    point, *others = found
    packages = sorted({_package(one) for one in found})
    if others:
        raise UsageError(
            f"{what} {point.name!r} is added by more than one package: {', '.join(packages)}",
            hint="uninstall all but one",
        )
    try:
        return point.load()
    except (
        Exception
    ) as error:  # the edge to somebody else's package, whatever it does when imported
        raise ExternalError(
            f"{what} {point.name!r} comes from the package {packages[0]}, which fails at "
            f"{point.value}: {type(error).__name__}: {first_line(error)}",
            hint=f"update or uninstall {packages[0]}, or ask those who make it",
        ) from error


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module
