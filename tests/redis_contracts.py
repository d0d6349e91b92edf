"""How a Redis is reached, for contracts: alone, in a cluster, behind Sentinels, over TLS, by Feast."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr
from tests.redis_places import Certificate, Redis, Watched, line_to

from lodestar.adapters.feast.redis import FeastRedisStore
from lodestar.adapters.redis.provider import RedisConnection

__all__ = ["Alone", "BehindSentinels", "InCluster", "InFeastProject", "OverTLS", "OwnKeys"]


class OwnKeys:
    """Each test has keys of its own; a subclass says which Redis."""

    uri: str

    @pytest.fixture(autouse=True)
    def _prefix(self) -> None:
        self.prefix = f"{uuid4().hex}:"

    def connection(self) -> RedisConnection:
        return RedisConnection(SecretStr(self.uri), prefix=self.prefix, timeout=10.0)


class Alone(OwnKeys):
    @pytest.fixture(autouse=True)
    def _server(self, redis_uri: str) -> None:
        self.uri = redis_uri


class InCluster(OwnKeys):
    @pytest.fixture(autouse=True)
    def _servers(self, cluster: list[Redis]) -> None:
        places = ",".join(f"127.0.0.1:{node.port}" for node in cluster)
        self.uri = f"redis://:{cluster[0].password}@{places}"

    def connection(self) -> RedisConnection:
        return replace(super().connection(), mode="cluster")


class BehindSentinels(OwnKeys):
    @pytest.fixture(autouse=True)
    def _servers(self, watched: Watched) -> None:
        self.uri = watched.uri

    def connection(self) -> RedisConnection:
        return replace(super().connection(), mode="sentinel", master_name="shop")


class OverTLS(OwnKeys):
    @pytest.fixture(autouse=True)
    def _server(self, redis_uri: str, tmp_path: Path) -> Iterator[None]:
        login, _, place = redis_uri.removeprefix("redis://").rpartition("@")
        self.certificate = Certificate.made(tmp_path)
        with line_to(int(place.split("/")[0].split(":")[1]), tls=self.certificate) as line:
            self.uri = f"rediss://{login}@127.0.0.1:{line.port}/0"
            yield

    def connection(self) -> RedisConnection:
        return replace(super().connection(), ca_file=self.certificate.certificate)


class InFeastProject:
    """Each test is a Feast project of its own."""

    @pytest.fixture(autouse=True)
    def _server(self, redis_uri: str) -> None:
        self.uri = redis_uri
        self.project = f"p{uuid4().hex}"

    def store(self) -> FeastRedisStore:
        return FeastRedisStore(RedisConnection(SecretStr(self.uri), timeout=10.0), self.project)
