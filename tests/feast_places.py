"""Feast projects of a test's own: a Redis with a password that Feast would misread, and registries."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import SecretStr
from tests.redis_places import Redis, one_redis

from lodestar.adapters.feast.repository import FeastStores
from lodestar.adapters.redis.connection import RedisConnection
from lodestar.settings.features import FeatureCatalog, FeatureView
from lodestar.testing.online import CONTRACT_VIEWS

__all__ = [
    "NAMES",
    "NOON",
    "ROWS",
    "catalog_of",
    "changed",
    "connection_to",
    "feast_key",
    "feast_redis",
    "feast_value",
    "stores_of",
]

NOON = datetime(2025, 3, 30, 12, 0, 0, 123_456, tzinfo=UTC)
KINDS = CONTRACT_VIEWS[0]
# An entity with all values, and one with few; what Feast calls its features.
ROWS = [
    {
        "code": "a",
        "at": NOON,
        "flag": True,
        "whole": -1,
        "number": 0.1,
        "text": "é",
        "moment": NOON,
    },
    {"code": "b", "at": NOON + timedelta(microseconds=1), "text": ""},
]
NAMES = [f"every_kind:{name}" for name in KINDS.features]


def catalog_of(*views: FeatureView) -> FeatureCatalog:
    return FeatureCatalog({view.namespace: view for view in views})


def changed(view: FeatureView, **values: Any) -> FeatureView:  # noqa: ANN401 -- parts of a declaration
    return FeatureView.model_validate({**view.model_dump(exclude_none=True), **values})


# Importing Feast takes five seconds, which only whoever runs these tests is to spend.
def feast_value(**given: Any) -> Any:  # noqa: ANN401 -- a message that protobuf makes
    """Feast's own message of a value."""
    from feast.protos.feast.types.Value_pb2 import Value

    return Value(**given)


def feast_key(**given: Any) -> Any:  # noqa: ANN401 -- as above
    """Feast's own message of an entity's key."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

    return EntityKey(**given)


@contextmanager
def feast_redis(folder: Path) -> Iterator[Redis]:
    """A Redis whose password Feast would take for a number, and cut at its comma."""
    with one_redis(folder) as found:
        found.client().config_set("requirepass", "1e5,x")
        found.password = "1e5,x"  # noqa: S105 -- a test's own
        yield found


def connection_to(server: Redis) -> RedisConnection:
    return RedisConnection(SecretStr(f"redis://:1e5%2Cx@127.0.0.1:{server.port}/0"), timeout=20.0)


def stores_of(server: Redis, folder: Path, **values: Any) -> FeastStores:  # noqa: ANN401 -- of FeastStores
    given = {
        "project": f"p{uuid4().hex}",
        "registry": SecretStr(f"sqlite:///{folder / 'registry.db'}"),
        "offline": folder,
        "online": connection_to(server),
        **values,
    }
    return FeastStores(**given)
