"""From the config's section to where features come from: tables, online stores, Feast's repositories."""

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from pydantic import SecretStr

from lodestar.adapters.joins.point_in_time import PointInTimeJoin
from lodestar.adapters.redis.connection import RedisConnection
from lodestar.adapters.registry import FEATURE_TABLES, adapter
from lodestar.core.feature_store import HistoricalJoin
from lodestar.errors import SettingsError, UsageError, choices
from lodestar.interface.features import FeatureTables, OnlineStore, TimeRange
from lodestar.settings.config import Data, Postgres
from lodestar.settings.dynamodb import DynamoDBStore
from lodestar.settings.feature_store import FeatureStore
from lodestar.settings.features import FeatureCatalog, FeatureView, load_features

if TYPE_CHECKING:
    from lodestar.adapters.dynamodb.provider import DynamoDBOnlineStore
    from lodestar.adapters.dynamodb.tables import DeclaredTables
    from lodestar.adapters.feast.config import WarehouseTables
    from lodestar.adapters.feast.repository import FeastProject, FeastRepository
    from lodestar.adapters.feast.team import TeamRepository

__all__ = ["FeatureSources", "joining"]


class FeatureSources:
    """What one environment's `feature_store` section stands for; made when it is asked for."""

    def __init__(self, section: FeatureStore | None, data: Data, project: Path) -> None:
        self._section = section
        self._data = data
        self._project = project

    @cached_property
    def catalog(self) -> FeatureCatalog:
        """The namespaces of features/*.yaml, or those of the team's own repository.

        Raises:
            SettingsError: a declaration is wrong, or there are declarations beside the repository.
        """
        declared = load_features(self._project)
        if self.team is None:
            return declared
        if declared.views:
            raise SettingsError.one(
                "namespaces are declared here, and feature_store.feast.repository has its own",
                where="features/",
                hint="move the files away, or leave repository out",
            )
        return self.team.catalog

    @cached_property
    def team(self) -> "TeamRepository | None":
        """The team's own Feast repository, if the config chooses one."""
        section = self._section
        if section is None or section.repository is None or section.feast is None:
            return None
        from lodestar.adapters.feast.team import TeamRepository

        folder = (self._project / section.repository).resolve()
        return TeamRepository(folder, timeout=section.feast.timeout)

    @cached_property
    def feast(self) -> "FeastRepository | None":
        """The Feast project that is kept from features/*.yaml, if the config chooses one."""
        section = self._section
        if section is None or section.chosen != "feast" or self.team is not None:
            return None
        from lodestar.adapters.feast.config import sqlite_below
        from lodestar.adapters.feast.repository import FeastRepository, FeastStores

        feast = section.feast
        assert feast is not None  # noqa: S101 -- the section's own validation
        assert feast.project is not None  # noqa: S101 -- as above
        assert feast.registry is not None  # noqa: S101 -- as above
        online: RedisConnection | DynamoDBStore | SecretStr
        match feast.online.get_secret_value():
            case "redis":
                online = self._redis(section)
            case "dynamodb":
                assert section.dynamodb is not None  # noqa: S101 -- the section's own validation
                online = section.dynamodb
            case _:
                online = sqlite_below(feast.online, self._project)
        stores = FeastStores(
            project=feast.project,
            registry=sqlite_below(feast.registry, self._project),
            offline=self._offline(section),
            online=online,
            timeout=feast.timeout,
        )
        return FeastRepository(stores, self.catalog)

    def online_store(self) -> OnlineStore | None:
        """What features are served from; None where nothing is declared."""
        section = self._section
        repository: FeastProject | None = self.team or self.feast
        if repository is not None:
            from lodestar.adapters.feast.repository import FeastOnlineStore

            return FeastOnlineStore(repository)
        if section is None or section.chosen is None:
            return None
        if section.chosen == "dynamodb":
            return self._dynamodb(section)
        from lodestar.adapters.redis.provider import RedisOnlineStore

        return RedisOnlineStore(self._redis(section))

    @cached_property
    def declared_tables(self) -> "DeclaredTables | None":
        """The online store's tables that declarations need, where it has any and no registry."""
        section = self._section
        if section is None or section.chosen != "dynamodb":
            return None
        from lodestar.adapters.dynamodb.tables import DeclaredTables

        views = [view for _, view in sorted(self.catalog.views.items())]
        return DeclaredTables(self._dynamodb(section).tables, views)

    @property
    def engine(self) -> str:
        """What holds the feature tables, by its kind."""
        if self.team is not None:
            return "the tables of a Feast repository"
        return "" if self._section is None else self._section.offline or ""

    def tables(self) -> FeatureTables:
        """The versioned feature tables.

        Raises:
            UsageError: the config's `offline` is not known.
        """
        if self.team is not None:
            return _TeamTables(self.team, self._data, self._project)
        tables: FeatureTables = adapter(FEATURE_TABLES, self.engine, what="feature_store.offline")(
            self._data, self._project
        )
        return tables

    def _dynamodb(self, section: FeatureStore) -> "DynamoDBOnlineStore":
        from lodestar.adapters.dynamodb.provider import DynamoDBOnlineStore

        assert section.dynamodb is not None  # noqa: S101 -- the section's own validation
        return DynamoDBOnlineStore(section.dynamodb)

    def _redis(self, section: FeatureStore) -> RedisConnection:
        redis = section.redis
        assert redis is not None  # noqa: S101 -- the section's own validation
        ca_file = None if redis.ca_file is None else self._project / redis.ca_file
        return RedisConnection(redis.uri, redis.mode, redis.timeout, redis.master_name, ca_file)

    def _offline(self, section: FeatureStore) -> "SecretStr | Path | WarehouseTables":
        data = self._data
        if section.offline == "files":
            return self._project / data.root
        if section.offline == "postgres" and data.postgres is not None:
            return data.postgres.uri
        if section.offline == "bigquery" and data.bigquery is not None:
            from lodestar.adapters.feast.config import WarehouseTables

            return WarehouseTables("bigquery", data.bigquery.project, data.bigquery.dataset)
        if section.offline == "snowflake" and data.snowflake is not None:
            from lodestar.adapters.feast.config import WarehouseTables
            from lodestar.adapters.snowflake.names import stored_name

            database, schema = data.snowflake.database, data.snowflake.schema_name
            return WarehouseTables("snowflake", stored_name(database), stored_name(schema))
        known = ["files", "postgres", "snowflake", "bigquery"]
        if section.offline in known:
            raise UsageError(
                f"feature_store.offline is {section.offline}, and data.{section.offline} is not there",
                hint=f"set data.{section.offline}",
            )
        raise UsageError(
            f"feature_store.offline {section.offline!r} is not supported with Feast here",
            hint=choices(section.offline or "", known),
        )


def joining(tables: FeatureTables) -> HistoricalJoin:
    """What joins with their past: the warehouse that they are in, or our own engine."""
    return tables if isinstance(tables, HistoricalJoin) else PointInTimeJoin(tables)


class _TeamTables:
    """A team's tables: read by our own adapters where they can, through Feast where only it can."""

    def __init__(self, team: "TeamRepository", data: Data, project: Path) -> None:
        self._team = team
        self._data = data
        self._project = project

    def versions(
        self, view: FeatureView, features: Sequence[str], times: TimeRange
    ) -> pa.RecordBatchReader:
        """All versions whose event time lies in the range, in any order."""
        tables, there = self._found(view)
        return tables.versions(there, features, times)

    def latest(
        self, view: FeatureView, times: TimeRange, *, known_by: datetime
    ) -> pa.RecordBatchReader:
        """The latest version per entity."""
        tables, there = self._found(view)
        return tables.latest(there, times, known_by=known_by)

    def _found(self, view: FeatureView) -> tuple[FeatureTables, FeatureView]:
        """What reads a view's rows, and the view as that knows it."""
        from lodestar.adapters.feast.tables import FeastTables
        from lodestar.adapters.feast.team import REGISTERED, PostgresQuery, TableFile

        if self._team.postgres is not None and not view.source.table.startswith(f"{REGISTERED}."):
            return self._postgres(self._team.postgres), view
        match self._team.location(view):
            case PostgresQuery(sql) if self._team.postgres is not None:
                return self._postgres(self._team.postgres, sql), view
            case TableFile(path):
                data = self._data.model_copy(update={"root": str(path.parent)})
                source = view.source.model_copy(update={"table": path.stem})
                files: FeatureTables = adapter(FEATURE_TABLES, "files", what="the tables")(
                    data, self._project
                )
                return files, view.model_copy(update={"source": source})
            case _:
                return FeastTables(self._team), view

    def _postgres(self, uri: SecretStr, *query: str) -> FeatureTables:
        section = self._data.postgres or Postgres(uri=uri)
        data = self._data.model_copy(update={"postgres": section.model_copy(update={"uri": uri})})
        tables: FeatureTables = adapter(FEATURE_TABLES, "postgres", what="the tables")(
            data, self._project, *query
        )
        return tables
