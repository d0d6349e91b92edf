"""A Feast project from `features/*.yaml`: its registry, what apply would change, its online store.

Nothing is written to a `feature_store.yaml`; the objects are built in memory for the environment's
stores. Feast is imported when the registry is needed: reading a Redis online store does without.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import SecretStr

from lodestar.adapters.changes import Changes
from lodestar.adapters.feast.config import (
    FeastStores,
    WarehouseTables,
    repo_config,
    secrets_of,
    table_template,
)
from lodestar.adapters.feast.online_stores import dynamodb_store, online_store_of, redis_store
from lodestar.adapters.feast.project import FeastProject, FeastTables, imported_feast
from lodestar.adapters.redis.connection import RedisConnection
from lodestar.errors import UsageError
from lodestar.interface.features import OnlineReader, OnlineRows, SelectedFeatures
from lodestar.settings.dynamodb import DynamoDBStore
from lodestar.settings.features import FeatureCatalog, FeatureView

if TYPE_CHECKING:
    from lodestar.adapters.feast.compare import Comparison

__all__ = ["FeastOnlineStore", "FeastProject", "FeastRepository", "FeastStores"]


class FeastRepository(FeastProject):
    """One environment's Feast project, kept from our declarations."""

    def __init__(self, stores: FeastStores, catalog: FeatureCatalog) -> None:
        super().__init__(stores.project, timeout=stores.timeout, secrets=secrets_of(stores))
        self._stores = stores
        self._catalog = catalog
        self._config: Any = repo_config(stores)

    @property
    def catalog(self) -> FeatureCatalog:
        """The namespaces declared."""
        return self._catalog

    @property
    def redis_connection(self) -> RedisConnection | None:
        """The Redis that holds the online rows, if one does."""
        online = self._stores.online
        return online if isinstance(online, RedisConnection) else None

    @property
    def dynamodb(self) -> FeastTables | None:
        """The DynamoDB that holds the online rows, if one does."""
        online = self._stores.online
        if not isinstance(online, DynamoDBStore):
            return None
        return FeastTables(online, table_template(online))

    def opened(self) -> Any:  # noqa: ANN401 -- feast.FeatureStore
        """Make Feast's own object."""
        feast = imported_feast()
        if self.dynamodb is not None and find_spec("aiobotocore") is None:
            raise UsageError(
                "the Python package aiobotocore is not installed, without which Feast knows no DynamoDB",
                hint="pip install 'lodestar-ml[feast-dynamodb]'",
            )
        return feast.FeatureStore(config=feast.RepoConfig(**self._config))

    def diff(self) -> Changes:
        """What `apply` would change, in words; nothing is changed."""
        with self.translated():
            return _Applying(self).found.changes

    def apply(self, agreed: Changes | None = None) -> Changes:
        """Bring registry and online store to what is declared; what others registered stays.

        Raises:
            UsageError: it would do something else than was `agreed`, or change what is not ours.
            ExternalError: the registry or a store cannot be reached.
        """
        with self.translated():
            applying = _Applying(self)
            if agreed is not None and applying.found.changes != agreed:
                raise UsageError(
                    "the registry has changed since it was looked at", hint="look again"
                )
            applying.run()
        return applying.found.changes

    def require_writable(self, view: FeatureView) -> None:
        """See that a view is registered with these keys, features and table."""
        if not self._is_as_declared(view):
            raise UsageError(
                f"the namespace {view.namespace!r} is declared otherwise than Feast's registry has it",
                hint="run: lodestar features apply",
            )

    def recorded(self, view: FeatureView) -> datetime | None:
        """Until when it was materialised, as the registry knows; None if as something else."""
        return super().recorded(view) if self._is_as_declared(view) else None

    def _is_as_declared(self, view: FeatureView) -> bool:
        with self.translated():
            self.registered(view)
            found = _Applying(self, only=view).found
        return not (found.replaced or found.reset)

    @property
    def place(self) -> Path | WarehouseTables | None:
        """Where the feature tables are: a folder, a warehouse, or PostgreSQL (None)."""
        offline = self._stores.offline
        return None if isinstance(offline, SecretStr) else offline

    def forget(self, namespaces: Sequence[str]) -> None:
        """Drop the watermarks that stand beside the online rows."""
        if self.redis_connection is not None and namespaces:
            redis_store(self.redis_connection, self.project).forget(namespaces)
        elif self.dynamodb is not None and namespaces:
            with closing(dynamodb_store(self.dynamodb, self.project)) as store:
                store.forget(namespaces)

    def make_tables(self) -> None:
        """Make the tables that DynamoDB lacks as our config says; Feast keeps those that are there."""
        if self.dynamodb is not None:
            with closing(dynamodb_store(self.dynamodb, self.project)) as store:
                for view in self.catalog.views.values():
                    store.tables.require(view)


class _Applying:
    """Declarations and registry as Feast's objects, compared, and what makes the two one."""

    def __init__(self, repository: FeastRepository, *, only: FeatureView | None = None) -> None:
        self._repository = repository
        registry = repository.store.registry  # imports Feast, and says how to install it
        from lodestar.adapters.feast.compare import compared
        from lodestar.adapters.feast.objects import FeastObjects, objects_of

        catalog = repository.catalog
        views = registry.list_feature_views(repository.project)
        if only is not None:
            catalog = FeatureCatalog({only.namespace: only})
            views = [view for view in views if view.name == only.namespace]
        self._after = objects_of(catalog, repository.place)
        entities = registry.list_entities(repository.project)
        self._before = FeastObjects(tuple(entities), tuple(views))
        self.found: Comparison = compared(self._before, self._after)

    def run(self) -> None:
        """Whatever ends it half way, the next one finds what is left to do.

        Watermarks go first: none may stand beside rows that are gone.
        """
        repository, found = self._repository, self.found
        if not found.changes.items:
            return
        store, project = repository.store, repository.project
        anew = (*found.replaced, *found.reset)
        repository.forget([*found.gone, *anew])
        self._remove_rows([*found.gone, *found.replaced])
        for name in anew:  # Feast would keep until when it was materialised
            store.registry.delete_feature_view(name, project)
        repository.make_tables()
        store.apply(
            [*self._after.entities, *self._after.views],
            objects_to_delete=[
                *(view for view in self._before.views if view.name in found.gone),
                *(entity for entity in self._before.entities if entity.name in found.strays),
            ],
            partial=False,
        )

    def _remove_rows(self, names: Sequence[str]) -> None:
        views = [view for view in self._before.views if view.name in names]
        if not views:
            return
        repository, provider = self._repository, self._repository.store.provider
        if repository.redis_connection is not None:
            from lodestar.adapters.feast.removal import remove_rows

            section = repository.store.config.online_store
            client = provider.online_store._get_client(section)  # noqa: SLF001 -- as Feast connects
            remove_rows(client, views, repository.project)
        else:
            provider.update_infra(
                project=repository.project,
                tables_to_delete=views,
                tables_to_keep=[],
                entities_to_delete=[],
                entities_to_keep=[],
                partial=False,
            )


class FeastOnlineStore:
    """The port `OnlineStore` over a Feast project; the registry hears of every watermark."""

    def __init__(self, repository: FeastProject) -> None:
        self._repository = repository
        self._online = online_store_of(repository)

    def read(self, keys: pa.RecordBatch, selection: Sequence[SelectedFeatures]) -> OnlineRows:
        """The values of n entities."""
        return self._online.read(keys, selection)

    def write(self, view: FeatureView, rows: Iterator[pa.RecordBatch]) -> int:
        """Keep these versions, unless newer ones are there; how many were written.

        Raises:
            UsageError: the namespace was not applied as it is declared.
        """
        self._repository.require_writable(view)
        return self._online.write(view, rows)

    def reader(self, selection: Sequence[SelectedFeatures]) -> OnlineReader:
        """Reads one selection from an event loop; Redis from the loop itself, others in threads."""
        return self._online.reader(selection)

    def watermark(self, view: FeatureView) -> datetime | None:
        """Until when the namespace was materialised, as the online store itself knows."""
        if self._repository.registry_decides:
            return self._repository.recorded(view)
        return self._online.watermark(view)

    def set_watermark(self, view: FeatureView, until: datetime) -> None:
        """Say so, to the registry first: what the online store says decides."""
        self._repository.record(view, until)
        self._online.set_watermark(view, until)

    def probe(self, view: FeatureView) -> str:
        """Try the online store out; what the registry says is another question."""
        return self._online.probe(view)

    def close(self) -> None:
        """Close the connections to the online store and to the registry."""
        self._online.close()
        self._repository.close()
