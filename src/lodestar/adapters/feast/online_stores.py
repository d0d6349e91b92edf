"""The online store of a Feast project: read by ourselves where we know how Feast lays it out."""

from typing import TYPE_CHECKING, TypeAlias, Union

from lodestar.adapters.drivers import from_extra
from lodestar.adapters.feast.project import FeastProject, FeastTables
from lodestar.adapters.redis.connection import RedisConnection

if TYPE_CHECKING:
    from lodestar.adapters.feast.dynamodb import FeastDynamoDBStore
    from lodestar.adapters.feast.online import FeastProviderStore
    from lodestar.adapters.feast.redis import FeastRedisStore

__all__ = ["dynamodb_store", "online_store_of", "redis_store"]

PACKAGES = ("mmh3", "google", "google.protobuf")
FeastStore: TypeAlias = Union["FeastRedisStore", "FeastDynamoDBStore", "FeastProviderStore"]


def online_store_of(project: FeastProject) -> FeastStore:
    """Make the store of a project.

    Raises:
        UsageError: what Feast's layout takes is not installed.
    """
    if project.redis_connection is not None:
        return redis_store(project.redis_connection, project.project)
    if project.dynamodb is not None:
        return dynamodb_store(project.dynamodb, project.project)
    from lodestar.adapters.feast.online import FeastProviderStore

    return FeastProviderStore(project)


def redis_store(connection: RedisConnection, project: str) -> "FeastRedisStore":
    """Make the store of a project whose rows are in Redis."""
    with from_extra("feast", *PACKAGES):
        from lodestar.adapters.feast.redis import FeastRedisStore
    return FeastRedisStore(connection, project)


def dynamodb_store(tables: FeastTables, project: str) -> "FeastDynamoDBStore":
    """Make the store of a project whose rows are in DynamoDB."""
    with from_extra("feast", *PACKAGES):
        from lodestar.adapters.feast.dynamodb import FeastDynamoDBStore
    return FeastDynamoDBStore(tables.store, tables.template, project)
