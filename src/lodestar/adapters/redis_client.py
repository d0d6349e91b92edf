"""Loads the Redis driver when it is needed."""

from typing import TYPE_CHECKING

from lodestar.adapters.redis_connection import RedisConnection
from lodestar.errors import UsageError

if TYPE_CHECKING:
    from lodestar.adapters.redis_wire import RedisClient

__all__ = ["client_of"]


def client_of(connection: RedisConnection) -> "RedisClient":
    """Load the driver and make a client.

    Raises:
        UsageError: the driver is not installed.
    """
    try:
        from lodestar.adapters.redis_wire import open_client
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        raise UsageError(
            "the Python package redis is not installed", hint="pip install 'lodestar-ml[redis]'"
        ) from error
    return open_client(connection)
