"""What every Feast project does alike, whoever keeps its registry: Feast's object, its errors, views."""

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib import import_module
from typing import Any, ClassVar

from lodestar.adapters.drivers import from_extra
from lodestar.adapters.dynamodb.errors import refusal_of
from lodestar.adapters.redis.connection import RedisConnection
from lodestar.errors import ExternalError, UsageError
from lodestar.settings.dynamodb import DynamoDBStore
from lodestar.settings.features import FeatureCatalog, FeatureView

__all__ = ["METRICS_FOLDERS", "FeastProject", "FeastTables", "close_connections", "imported_feast"]

# Where all processes of a server count together; Feast sets them for everybody when it is imported.
METRICS_FOLDERS = ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR")
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class FeastProject(ABC):
    """A Feast project. Feast is imported when `store` is first asked for, which takes seconds.

    Calls to an online store that is no Redis take at most `timeout` seconds.
    """

    # Whether the registry alone says until when a view was materialised, and not the online store.
    registry_decides: ClassVar[bool] = False

    def __init__(self, project: str, *, timeout: float, secrets: Sequence[str]) -> None:
        self.project = project
        self.timeout = timeout
        self._secrets = secrets

    @property
    @abstractmethod
    def catalog(self) -> FeatureCatalog:
        """The namespaces."""

    @property
    @abstractmethod
    def redis_connection(self) -> RedisConnection | None:
        """The Redis that holds the online rows as we can read them ourselves, if one does."""

    @property
    @abstractmethod
    def dynamodb(self) -> "FeastTables | None":
        """The DynamoDB that holds the online rows as we can read them ourselves, if one does."""

    @abstractmethod
    def opened(self) -> Any:  # noqa: ANN401 -- feast.FeatureStore, whose import takes seconds
        """Make Feast's own object."""

    @abstractmethod
    def require_writable(self, view: FeatureView) -> None:
        """See that rows of a view may be written now.

        Raises:
            UsageError: it is not registered, or not as it is declared.
            NotAllowedError: its rows are not ours to write.
        """

    @cached_property
    def store(self) -> Any:  # noqa: ANN401 -- feast.FeatureStore
        """Feast's own object, for what this class does not offer."""
        return self.opened()

    def record(self, view: FeatureView, until: datetime) -> None:
        """Tell the registry until when a view was materialised."""
        with self.translated():
            feast_view = self.registered(view)
            since = feast_view.most_recent_end_time or BEGINNING
            self.store.registry.apply_materialization(
                feast_view, self.project, min(since, until), until
            )

    def recorded(self, view: FeatureView) -> datetime | None:
        """Until when it was, as the registry knows; None if never."""
        with self.translated():
            found = self.registered(view).most_recent_end_time
        return None if found is None else found.astimezone(UTC)

    def registered(self, view: FeatureView) -> Any:  # noqa: ANN401 -- feast.FeatureView
        """Feast's view of a namespace.

        Raises:
            UsageError: it was never applied.
        """
        imported_feast()
        from feast.errors import FeatureViewNotFoundException

        try:
            return self.store.registry.get_feature_view(view.namespace, self.project)
        except FeatureViewNotFoundException as error:
            raise UsageError(
                f"the namespace {view.namespace!r} is not in Feast's registry",
                hint="run: lodestar features apply",
            ) from error

    def reopen(self) -> Any:  # noqa: ANN401 -- feast.FeatureStore
        """Let go of Feast's object, which a call that hangs holds, and give it away."""
        return self.__dict__.pop("store", None)

    def close(self) -> None:
        """Close the connections of Feast's object; it makes new ones when it is asked again."""
        store = self.__dict__.pop("store", None)
        if store is not None:
            close_connections(store)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Word what Feast and its stores say as our errors, without a password."""
        imported_feast()
        import psycopg
        import redis
        import sqlalchemy.exc
        from feast.errors import FeastError

        databases = (sqlalchemy.exc.SQLAlchemyError, psycopg.Error, redis.RedisError)
        theirs: tuple[type[Exception], ...] = (FeastError, *databases, *_of_aws(), OSError)
        try:
            yield
        except theirs as error:
            # What AWS answers may repeat what was signed, and its keys are not ours to know.
            shown = not isinstance(error, _of_aws())
            shown = shown and not any(secret in str(error) for secret in self._secrets)
            reason = refusal_of(error) or type(error).__name__
            raise ExternalError(
                f"Feast's project {self.project!r} cannot be read or written: {reason}",
                hint="are its registry and stores running, and are user and password right?",
            ) from (error if shown else None)


@dataclass(frozen=True)
class FeastTables:
    """A DynamoDB, and how Feast names a view's table there."""

    store: DynamoDBStore
    template: str


def _of_aws() -> tuple[type[Exception], ...]:
    """What boto3 raises, where Feast has loaded it."""
    if "botocore" not in sys.modules:
        return ()
    from botocore.exceptions import BotoCoreError, ClientError

    return BotoCoreError, ClientError


def imported_feast() -> Any:  # noqa: ANN401 -- a module
    """Feast itself.

    Raises:
        UsageError: it is not installed.
    """
    # Feast has reported its use to its makers; nothing leaves a machine that did not ask for it.
    os.environ.setdefault("FEAST_USAGE", "False")
    ours = {name for name in METRICS_FOLDERS if name in os.environ}
    with from_extra("feast", "feast", "prometheus_client"):
        # Before Feast has it write to a folder of Feast's.
        import_module("prometheus_client")
        import feast
    for name in METRICS_FOLDERS:
        if name not in ours:
            os.environ.pop(name, None)
    return feast


def close_connections(store: Any) -> None:  # noqa: ANN401 -- feast.FeatureStore
    """Close what Feast itself leaves open."""
    from feast.infra.online_stores.postgres_online_store.postgres import PostgreSQLOnlineStore
    from feast.infra.registry.sql import SqlRegistry

    if isinstance(store.registry, SqlRegistry):
        store.registry.write_engine.dispose()
        store.registry.read_engine.dispose()
    online = store.provider.online_store
    _close_aws(online)
    if isinstance(online, PostgreSQLOnlineStore) and online._conn is not None:  # noqa: SLF001 -- Feast has no way to close it
        online._conn.close()  # noqa: SLF001 -- as above


def _close_aws(online: Any) -> None:  # noqa: ANN401 -- one of Feast's online stores
    """The connections of Feast's DynamoDB store, which it has made by `apply`."""
    resource = getattr(online, "_dynamodb_resource", None)
    clients = (getattr(online, "_dynamodb_client", None), resource and resource.meta.client)
    for client in clients:
        if client is not None:
            client.close()
