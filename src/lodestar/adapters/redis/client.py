"""Loads the Redis driver when it is needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lodestar.adapters.redis.connection import RedisConnection
from lodestar.errors import UsageError

if TYPE_CHECKING:
    from lodestar.adapters.redis.reader import Layout, RedisReader
    from lodestar.adapters.redis.wire import RedisClient

__all__ = ["client_of", "reader_of"]


def client_of(connection: RedisConnection) -> "RedisClient":
    """Load the driver and make a client.

    Raises:
        UsageError: the driver is not installed.
    """
    with _installed():
        from lodestar.adapters.redis.wire import open_client
    return open_client(connection)


def reader_of(connection: RedisConnection, layout: "Layout") -> "RedisReader":
    """Load the driver and its parser, and make a reader for an event loop.

    Raises:
        UsageError: one of the two is not installed.
    """
    with _installed():
        from lodestar.adapters.redis.reader import RedisReader
    return RedisReader(connection, layout)


@contextmanager
def _installed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in {"redis", "hiredis"}:
            raise
        raise UsageError(
            f"the Python package {error.name} is not installed",
            hint="pip install 'lodestar-ml[redis]'",
        ) from error
