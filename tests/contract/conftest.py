"""Redis as a cluster and behind Sentinels, started where a file's contracts ask for them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.redis_places import Redis, Watched, redis_cluster, watched_redis


@pytest.fixture(scope="module")
def redis_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("redis")


@pytest.fixture(scope="module")
def cluster(redis_folder: Path) -> Iterator[list[Redis]]:
    with redis_cluster(redis_folder / "cluster") as nodes:
        yield nodes


@pytest.fixture(scope="module")
def watched(redis_folder: Path) -> Iterator[Watched]:
    with watched_redis(redis_folder / "watched") as found:
        yield found
