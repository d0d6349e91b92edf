"""Loads the Redis driver when it is needed."""

from typing import TYPE_CHECKING

from lodestar.adapters.drivers import from_extra
from lodestar.adapters.redis.connection import RedisConnection

if TYPE_CHECKING:
    from lodestar.adapters.redis.reader import Layout, RedisReader
    from lodestar.adapters.redis.wire import RedisClient

__all__ = ["client_of", "reader_of"]

PACKAGES = ("redis", "hiredis")


def client_of(connection: RedisConnection) -> "RedisClient":
    """Load the driver and make a client.

    Raises:
        UsageError: the driver is not installed.
    """
    with from_extra("redis", *PACKAGES):
        from lodestar.adapters.redis.wire import open_client
    return open_client(connection)


def reader_of(connection: RedisConnection, layout: "Layout") -> "RedisReader":
    """Load the driver and its parser, and make a reader for an event loop.

    Raises:
        UsageError: one of the two is not installed.
    """
    with from_extra("redis", *PACKAGES):
        from lodestar.adapters.redis.reader import RedisReader
    return RedisReader(connection, layout)
