"""Redis as a cluster and behind Sentinels, started where a file's contracts ask for them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.redis_places import Redis, Watched, redis_cluster, watched_redis

STALLED = 60_000  # no server of these is gone, however long a busy machine lets it wait (ms)


@pytest.fixture(scope="module")
def redis_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("redis")


@pytest.fixture(scope="module")
def cluster(redis_folder: Path) -> Iterator[list[Redis]]:
    with redis_cluster(redis_folder / "cluster", given_up=STALLED) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def watched(redis_folder: Path) -> Iterator[Watched]:
    with watched_redis(redis_folder / "watched", given_up=STALLED) as found:
        yield found
