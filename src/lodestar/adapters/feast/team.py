"""A team's own Feast repository, taken as it is: its views become namespaces, its stores are read.

What its `feature_store.yaml` says is read without Feast; the registry needs Feast, and is opened when
somebody asks which namespaces there are.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlencode, urlsplit

from pydantic import SecretStr
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lodestar.adapters.feast.config import TABLE_TEMPLATE, dynamodb_of, redis_connection_of
from lodestar.adapters.feast.project import FeastProject, FeastTables, imported_feast
from lodestar.adapters.redis.connection import RedisConnection
from lodestar.errors import NotAllowedError, UsageError
from lodestar.settings.features import FeatureCatalog, FeatureView

__all__ = ["REGISTERED", "PostgresQuery", "TableFile", "TeamRepository"]

FILE = "feature_store.yaml"
# The schema of tables that only the registry can say the place of.
REGISTERED = "feast_registry"
SERIALIZATION = 3  # of entity keys: the one that we read and write too
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")
_STEM = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILES = ("file", "dask", "duckdb")
_SSL = {
    "sslmode": "sslmode",
    "sslkey_path": "sslkey",
    "sslcert_path": "sslcert",
    "sslrootcert_path": "sslrootcert",
}


@dataclass(frozen=True)
class PostgresQuery:
    """A view's rows are what a query of the offline store gives."""

    sql: str


@dataclass(frozen=True)
class TableFile:
    """A view's rows are in a parquet file of this machine."""

    path: Path


class TeamRepository(FeastProject):
    """A folder with `feature_store.yaml` and its registry; changing it stays the team's (`feast apply`).

    `catalog` has the views that a declaration can say, `left_out` why the others are not in it.
    """

    registry_decides: ClassVar[bool] = True

    def __init__(self, folder: Path, *, timeout: float = 1.0) -> None:
        """Read the folder's `feature_store.yaml`.

        Raises:
            UsageError: it is not there, or is none of Feast's.
        """
        self.folder = folder
        self._said = _read(folder / FILE)
        super().__init__(
            self._said["project"], timeout=timeout, secrets=[*filter(None, _secrets(self._said))]
        )

    @property
    def catalog(self) -> FeatureCatalog:
        """Its views that fit.

        Raises:
            UsageError: no view does.
            ExternalError: the registry cannot be read.
        """
        found, left_out = self._views
        if not found:
            reasons = "; ".join(left_out.values()) or "it has none: was it applied?"
            raise UsageError(f"no view of the Feast repository {self.folder} fits: {reasons}")
        return FeatureCatalog(found)

    @property
    def left_out(self) -> Mapping[str, str]:
        """Its views that do not fit, and why."""
        return self._views[1]

    @cached_property
    def redis_connection(self) -> RedisConnection | None:
        """Its Redis, unless the rows there are laid out in a way that only Feast knows."""
        online = _section(self._said, "online_store", "sqlite")
        if online["type"] != "redis" or not self._rows_are_known:
            return None
        return redis_connection_of(online, self.timeout)

    @cached_property
    def dynamodb(self) -> FeastTables | None:
        """Its DynamoDB, unless the rows there are laid out in a way that only Feast knows."""
        online = _section(self._said, "online_store", "sqlite")
        if online["type"] != "dynamodb" or not self._rows_are_known:
            return None
        template = str(online.get("table_name_template", TABLE_TEMPLATE))
        return FeastTables(dynamodb_of(online, self.timeout), template)

    @property
    def _rows_are_known(self) -> bool:
        registry = _section(self._said, "registry", "file")
        serialization = self._said.get("entity_key_serialization_version", SERIALIZATION)
        versioned = registry.get("enable_online_feature_view_versioning", False)
        return bool(serialization == SERIALIZATION and not versioned)

    @property
    def postgres(self) -> SecretStr | None:
        """Where its feature tables are, if that is a PostgreSQL."""
        offline = _section(self._said, "offline_store", "dask")
        return _postgres_uri(offline) if offline["type"] == "postgres" else None

    def opened(self) -> Any:  # noqa: ANN401 -- feast.FeatureStore
        """Make Feast's own object."""
        return imported_feast().FeatureStore(repo_path=str(self.folder))

    def require_writable(self, view: FeatureView) -> None:
        """See that the team's other readers would understand what we write."""
        with self.translated():
            registered = self.registered(view)
        from feast.types import UnixTimestamp

        whole = [field.name for field in registered.features if field.dtype == UnixTimestamp]
        if whole:
            raise NotAllowedError(
                f"{', '.join(whole)} of {view.namespace} is a Feast timestamp, of whole seconds, "
                "which is not written here",
                hint=f"run feast materialize in {self.folder}",
            )

    def location(self, view: FeatureView) -> PostgresQuery | TableFile | None:
        """Where the rows of a view of `REGISTERED` are; None where only Feast can read them."""
        with self.translated():
            source: Any = self.registered(view).batch_source
        if self.postgres is not None:
            return PostgresQuery(_query_of(source))
        path = self._file_of(source)
        return None if path is None else TableFile(path)

    def _file_of(self, source: Any) -> Path | None:  # noqa: ANN401 -- feast.DataSource
        offline = _section(self._said, "offline_store", "dask")["type"]
        given = getattr(source, "path", "")
        if offline not in _FILES or not given or "://" in given or source.field_mapping:
            return None
        path = self.folder / given  # an absolute one stays so
        plain = path.suffix == ".parquet" and _STEM.fullmatch(path.stem) and path.is_file()
        return path if plain else None

    @cached_property
    def _views(self) -> tuple[dict[str, FeatureView], dict[str, str]]:
        with self.translated():
            views = self.store.list_feature_views()
        from lodestar.adapters.feast.objects import declaration_of

        found: dict[str, FeatureView] = {}
        left_out: dict[str, str] = {}
        for view in views:
            try:
                found[view.name] = declaration_of(view, self._table(view))
            except UsageError as error:
                left_out[view.name] = error.what
        return found, left_out

    def _table(self, view: Any) -> str:  # noqa: ANN401 -- feast.FeatureView
        source = view.batch_source
        if self.postgres is not None and not source.field_mapping:
            table: str = source.get_table_query_string()
            if _TABLE.fullmatch(table):
                return table.lower()  # as PostgreSQL reads a name without quotes
        return f"{REGISTERED}.{view.name}"


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(
            f"there is no {FILE} in {path.parent}",
            hint="feature_store.feast.repository is the folder of a team's Feast repository",
        )
    try:
        text = os.path.expandvars(path.read_text(encoding="utf-8"))  # as Feast does
        said = YAML(typ="safe").load(text)
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        # The text is not repeated: it may hold a password.
        raise UsageError(f"{path} cannot be read") from (
            error if isinstance(error, OSError) else None
        )
    if not isinstance(said, dict) or not isinstance(said.get("project"), str):
        raise UsageError(f"{path} names no project, so it is none of Feast's")
    return said


def _section(said: Mapping[str, Any], name: str, default: str) -> dict[str, Any]:
    """One of Feast's sections, which may be a word alone."""
    given = said.get(name)
    if isinstance(given, dict):
        return {"type": default, **given}
    return {"type": str(given) if given else default}


def _secrets(said: object, name: str = "") -> Iterator[str]:
    if isinstance(said, dict):
        for key, value in said.items():
            yield from _secrets(value, str(key))
    elif isinstance(said, str):
        if "password" in name:
            yield said
        if name == "connection_string":
            words = [word.partition("=") for word in said.split(",")]
            yield from (value.strip('"') for key, _, value in words if key == "password")
        elif "://" in said and (password := urlsplit(said).password):
            yield password


def _postgres_uri(offline: Mapping[str, Any]) -> SecretStr:
    def part(name: str, default: str = "") -> str:
        return quote(str(offline.get(name, default)), safe="")

    schema = str(offline.get("db_schema", "public"))
    path = schema if schema == "public" else f"{schema},public"
    options = {"options": f"-csearch_path={path}"}
    options |= {ours: str(given) for name, ours in _SSL.items() if (given := offline.get(name))}
    options.setdefault("sslmode", "require")  # as Feast does
    login = f"{part('user')}:{part('password')}@"
    place = f"{offline.get('host', 'localhost')}:{part('port', '5432')}/{part('database')}"
    return SecretStr(f"postgresql://{login}{place}?{urlencode(options, quote_via=quote)}")


def _query_of(source: Any) -> str:  # noqa: ANN401 -- feast's PostgreSQLSource
    """All columns of a source, those that are renamed by both of their names."""
    relation = source.get_table_query_string()
    renamed = [
        f", source.{_quoted(column)} AS {_quoted(name)}"
        for column, name in source.field_mapping.items()
    ]
    return f"SELECT source.*{''.join(renamed)} FROM {relation} AS source"  # noqa: S608 -- the team's own


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
