"""A Feast project from `features/*.yaml`: its registry, what apply would change, its online store.

Nothing is written to a `feature_store.yaml`; the objects are built in memory for the environment's
stores. Feast is imported when the registry is needed: reading a Redis online store does without.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lodestar.adapters.feast_config import (
    FeastStores,
    redis_connection_of,
    repo_config,
    secrets_of,
)
from lodestar.adapters.redis_connection import RedisConnection
from lodestar.errors import ExternalError, NotAllowedError, UsageError
from lodestar.interface.features import OnlineRows, SelectedFeatures
from lodestar.settings.features import FeatureCatalog, FeatureView

if TYPE_CHECKING:
    from lodestar.adapters.feast_objects import Changes
    from lodestar.adapters.feast_provider import FeastProviderStore
    from lodestar.adapters.feast_redis import FeastRedisStore

__all__ = ["FeastOnlineStore", "FeastRepository", "FeastStores"]

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class FeastRepository:
    """One environment's Feast project, by our declarations or a team's own repository."""

    def __init__(self, stores: FeastStores, catalog: FeatureCatalog) -> None:
        self.catalog = catalog
        self.project = stores.project
        self.timeout = stores.timeout
        self.left_out: dict[str, str] = {}
        self._stores: FeastStores | None = stores
        self._secrets = secrets_of(stores)
        self._config: Any = repo_config(stores)
        self._folder: Path | None = None
        self._where = stores.project

    @classmethod
    def existing(cls, folder: Path, *, timeout: float = 1.0) -> "FeastRepository":
        """Take a folder with `feature_store.yaml` and its registry as they are; apply is theirs.

        `catalog` has the views that a declaration can say, `left_out` why the others are not in it.

        Raises:
            UsageError: there is no such file, or no view fits.
            ExternalError: the registry cannot be read.
        """
        if not (folder / "feature_store.yaml").is_file():
            raise UsageError(f"there is no feature_store.yaml in {folder}")
        self = cls.__new__(cls)
        self._stores, self._folder, self._secrets, self.timeout = None, folder, [], timeout
        self._where = folder.name
        with self.translated():
            self.project = self.store.project
            views = self.store.list_feature_views()
        from lodestar.adapters.feast_objects import declaration_of

        found: dict[str, FeatureView] = {}
        self.left_out = {}
        for view in views:
            try:
                found[view.name] = declaration_of(view)
            except UsageError as error:
                self.left_out[view.name] = str(error)
        if not found:
            reasons = "; ".join(self.left_out.values()) or "it has none: was it applied?"
            raise UsageError(f"no view of the Feast repository {folder} fits: {reasons}")
        self.catalog = FeatureCatalog(found)
        return self

    @cached_property
    def store(self) -> Any:  # noqa: ANN401 -- feast.FeatureStore, whose import takes seconds
        """Feast's own object, for what this class does not offer."""
        feast = _feast()
        if self._folder is not None:
            return feast.FeatureStore(repo_path=str(self._folder))
        return feast.FeatureStore(config=feast.RepoConfig(**self._config))

    def diff(self) -> "Changes":
        """What `apply` would change, in words; nothing is changed."""
        with self.translated():
            return self._compared()[0]

    def apply(self) -> "Changes":
        """Bring registry and online store to what is declared; views of others stay.

        Raises:
            NotAllowedError: the repository is another's.
            ExternalError: the registry or a store cannot be reached.
        """
        if self._stores is None:
            raise NotAllowedError(
                "this Feast repository is kept by its own definitions",
                hint="run feast apply in its folder",
            )
        with self.translated():
            found, objects, gone = self._compared()
            self.store.apply(
                [*objects.entities, *objects.views], objects_to_delete=gone, partial=False
            )
        if found.gone and isinstance(self._stores.online, RedisConnection):
            self._redis().forget(found.gone)
        return found

    def online(self) -> "FeastRedisStore | FeastProviderStore":
        """The online store of the project, as Feast lays it out."""
        if self.redis_connection is not None:
            return self._redis()
        from lodestar.adapters.feast_provider import FeastProviderStore

        return FeastProviderStore(self)

    def record(self, view: FeatureView, until: datetime) -> None:
        """Tell the registry until when a view was materialised."""
        with self.translated():
            feast_view = self.registered(view)
            since = feast_view.most_recent_end_time or BEGINNING
            self.store.registry.apply_materialization(
                feast_view, self.project, min(since, until), until
            )

    def registered(self, view: FeatureView) -> Any:  # noqa: ANN401 -- feast.FeatureView
        """Feast's view of a namespace.

        Raises:
            UsageError: it was never applied.
        """
        from feast.errors import FeatureViewNotFoundException

        try:
            return self.store.registry.get_feature_view(view.namespace, self.project)
        except FeatureViewNotFoundException as error:
            raise UsageError(
                f"the namespace {view.namespace!r} is not in Feast's registry",
                hint="run: lodestar features apply",
            ) from error

    @cached_property
    def redis_connection(self) -> RedisConnection | None:
        """The Redis that holds the online rows, if it is one."""
        if self._stores is not None:
            online = self._stores.online
            return online if isinstance(online, RedisConnection) else None
        online = self.store.config.online_store
        if getattr(online, "type", "") != "redis":
            return None
        return redis_connection_of(online, self.timeout)

    def _redis(self) -> "FeastRedisStore":
        try:
            from lodestar.adapters.feast_redis import FeastRedisStore
        except ModuleNotFoundError as error:
            if error.name not in {"mmh3", "google", "google.protobuf"}:
                raise
            raise _not_installed(error.name) from error
        assert self.redis_connection is not None  # noqa: S101 -- both callers have asked
        return FeastRedisStore(self.redis_connection, self.project)

    def _compared(self) -> tuple["Changes", Any, list[Any]]:
        store = self.store  # imports Feast, and says how to install it
        from lodestar.adapters.feast_objects import changes, objects_of

        files = self._stores.offline if self._stores is not None else None
        objects = objects_of(self.catalog, files if isinstance(files, Path) else None)
        before = store.registry.list_feature_views(self.project)
        found = changes(before, objects.views)
        return found, objects, [view for view in before if view.name in found.gone]

    def reopen(self) -> Any:  # noqa: ANN401 -- feast.FeatureStore
        """Let go of Feast's object, which a call that hangs holds, and give it away."""
        return self.__dict__.pop("store", None)

    def close(self) -> None:
        """Close the connections of Feast's object; it makes new ones when it is asked again."""
        store = self.__dict__.pop("store", None)
        if store is None:
            return
        from lodestar.adapters.feast_provider import close_connections

        close_connections(store)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Word what Feast and its stores say as our errors."""
        with _translated(self._where, self._secrets):
            yield


class FeastOnlineStore:
    """The port `OnlineStore` over a Feast project; the registry hears of every watermark."""

    def __init__(self, repository: FeastRepository) -> None:
        self._repository = repository
        self._online = repository.online()

    def read(self, keys: pa.RecordBatch, selection: Sequence[SelectedFeatures]) -> OnlineRows:
        """The values of n entities."""
        return self._online.read(keys, selection)

    def write(self, view: FeatureView, rows: Iterator[pa.RecordBatch]) -> int:
        """Keep these versions, unless newer ones are there; how many were written."""
        return self._online.write(view, rows)

    def watermark(self, view: FeatureView) -> datetime | None:
        """Until when the namespace was materialised, as the online store itself knows."""
        return self._online.watermark(view)

    def set_watermark(self, view: FeatureView, until: datetime) -> None:
        """Say so, to the registry first: what the online store says decides."""
        self._repository.record(view, until)
        self._online.set_watermark(view, until)

    def close(self) -> None:
        """Close the connections to the online store and to the registry."""
        self._online.close()
        self._repository.close()


def _feast() -> Any:  # noqa: ANN401 -- a module
    # Feast has reported its use to its makers; nothing leaves a machine that did not ask for it.
    os.environ.setdefault("FEAST_USAGE", "False")
    try:
        import feast
    except ModuleNotFoundError as error:
        if error.name != "feast":
            raise
        raise _not_installed("feast") from error
    return feast


def _not_installed(package: str) -> UsageError:
    return UsageError(
        f"the Python package {package} is not installed", hint="pip install 'lodestar-ml[feast]'"
    )


@contextmanager
def _translated(project: str, secrets: Sequence[str]) -> Iterator[None]:
    """Word what Feast and its stores say as our errors, without a password."""
    _feast()
    import psycopg
    import redis
    import sqlalchemy.exc
    from feast.errors import FeastError

    try:
        yield
    except (
        FeastError,
        sqlalchemy.exc.SQLAlchemyError,
        psycopg.Error,
        redis.RedisError,
        OSError,
    ) as error:
        shown = not any(secret in str(error) for secret in secrets)
        reason = type(error).__name__
        raise ExternalError(
            f"Feast's project {project!r} cannot be read or written: {reason}",
            hint="are its registry and stores running, and are user and password right?",
        ) from (error if shown else None)
