"""The readers of online stores under their port's contract, on real servers."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pytest
import uvloop
from pydantic import SecretStr
from tests.redis_places import (
    Certificate,
    Redis,
    Watched,
    line_to,
    redis_cluster,
    watched_redis,
)

from lodestar.adapters.feast.layout import feature_field
from lodestar.adapters.feast.redis import FeastRedisStore
from lodestar.adapters.online.threaded_reader import ThreadedReader
from lodestar.adapters.redis.provider import RedisConnection, RedisOnlineStore
from lodestar.adapters.redis.reader import RedisReader
from lodestar.adapters.redis.store import RedisStore
from lodestar.errors import DataError
from lodestar.interface.features import (
    MakesReaders,
    OnlineReader,
    OnlineRows,
    OnlineStore,
    SelectedFeatures,
)
from lodestar.testing.online import MemoryOnlineStore, stored_rows
from lodestar.testing.online_reader import KINDS, PAIRS, OnlineReaderContract

NOON = datetime(2025, 3, 30, 12, tzinfo=UTC)


class TestThreads(OnlineReaderContract):
    """Any store that has no reader of its own."""

    def store(self) -> OnlineStore:
        return MemoryOnlineStore()

    def reader(self, store: OnlineStore, selection: Sequence[SelectedFeatures]) -> OnlineReader:
        return ThreadedReader(store, selection, timeout=10.0)


class OwnReaderContract(OnlineReaderContract):
    """Each test has keys of its own; `connection` says which Redis."""

    @pytest.fixture(autouse=True)
    def _prefix(self) -> None:
        self.prefix = f"{uuid4().hex}:"

    def connection(self) -> RedisConnection:
        raise NotImplementedError

    def store(self) -> RedisStore:
        return RedisOnlineStore(self.connection())

    def reader(self, store: OnlineStore, selection: Sequence[SelectedFeatures]) -> OnlineReader:
        assert isinstance(store, MakesReaders)
        return store.reader(selection)


class TestRedis(OwnReaderContract):
    @pytest.fixture(autouse=True)
    def _server(self, redis_uri: str) -> None:
        self.uri = redis_uri

    def connection(self) -> RedisConnection:
        return RedisConnection(SecretStr(self.uri), prefix=self.prefix, timeout=10.0)


class TestRedisOnUvloop(TestRedis):
    loop_factory = staticmethod(uvloop.new_event_loop)


class TestRedisByDatabase(TestRedis):
    """A database of its own is selected before anything is asked."""

    def connection(self) -> RedisConnection:
        uri = self.uri.removesuffix("/0") + "/3"
        return RedisConnection(SecretStr(uri), prefix=self.prefix, timeout=10.0)


class TestFeastOverRedis(OwnReaderContract):
    """Each test is a Feast project of its own."""

    @pytest.fixture(autouse=True)
    def _server(self, redis_uri: str) -> None:
        self.uri = redis_uri
        self.project = f"p{uuid4().hex}"

    def store(self) -> RedisStore:
        return FeastRedisStore(RedisConnection(SecretStr(self.uri), timeout=10.0), self.project)


class TestFeastOverRedisOnUvloop(TestFeastOverRedis):
    loop_factory = staticmethod(uvloop.new_event_loop)


class TestRedisOverTLS(OwnReaderContract):
    @pytest.fixture(autouse=True)
    def _server(self, redis_uri: str, tmp_path: Path) -> Iterator[None]:
        login, _, place = redis_uri.removeprefix("redis://").rpartition("@")
        self.certificate = Certificate.made(tmp_path)
        with line_to(int(place.split("/")[0].split(":")[1]), tls=self.certificate) as line:
            self.uri = f"rediss://{login}@127.0.0.1:{line.port}/0"
            yield

    def connection(self) -> RedisConnection:
        ca_file = self.certificate.certificate
        uri = SecretStr(self.uri)
        return RedisConnection(uri, ca_file=ca_file, prefix=self.prefix, timeout=10.0)


class TestRedisOverTLSOnUvloop(TestRedisOverTLS):
    loop_factory = staticmethod(uvloop.new_event_loop)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("redis")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[list[Redis]]:
    with redis_cluster(folder / "cluster") as nodes:
        yield nodes


@pytest.fixture(scope="module")
def watched(folder: Path) -> Iterator[Watched]:
    with watched_redis(folder / "watched") as found:
        yield found


@pytest.mark.slow
class TestRedisCluster(OwnReaderContract):
    @pytest.fixture(autouse=True)
    def _servers(self, cluster: list[Redis]) -> None:
        places = ",".join(f"127.0.0.1:{node.port}" for node in cluster)
        self.uri = f"redis://:{cluster[0].password}@{places}"

    def connection(self) -> RedisConnection:
        uri = SecretStr(self.uri)
        return RedisConnection(uri, mode="cluster", prefix=self.prefix, timeout=10.0)


@pytest.mark.slow
class TestRedisBehindSentinels(OwnReaderContract):
    @pytest.fixture(autouse=True)
    def _servers(self, watched: Watched) -> None:
        self.uri = watched.uri

    def connection(self) -> RedisConnection:
        uri = SecretStr(self.uri)
        return RedisConnection(
            uri, mode="sentinel", master_name="shop", prefix=self.prefix, timeout=10.0
        )


def test_a_single_redis_is_asked_from_the_loop_and_others_from_threads(redis_uri: str) -> None:
    selection = [SelectedFeatures(KINDS, ("whole",))]
    single = RedisConnection(SecretStr(redis_uri))
    cluster = RedisConnection(SecretStr(redis_uri.removesuffix("/0")), mode="cluster")
    for store in (RedisOnlineStore(single), FeastRedisStore(single, "shop")):
        assert isinstance(store.reader(selection), RedisReader)
    assert isinstance(RedisOnlineStore(cluster).reader(selection), ThreadedReader)


def _direct(uri: str, name: str) -> RedisStore:
    return RedisOnlineStore(RedisConnection(SecretStr(uri), prefix=f"{name}:", timeout=10.0))


def _feast(uri: str, name: str) -> RedisStore:
    return FeastRedisStore(RedisConnection(SecretStr(uri), timeout=10.0), name)


@pytest.mark.parametrize("text", [b"thirty", b"1.5", b"99999999999999999999999", b"\xff"])
@pytest.mark.parametrize("make", [_direct, _feast])
@pytest.mark.parametrize("asked", [["a"], ["a", "b", "c"]])
def test_a_value_of_another_type_makes_its_namespace_unknown_in_that_row_and_is_logged(
    redis_uri: str,
    make: Callable[[str, str], RedisStore],
    asked: list[str],
    text: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    import redis

    name = uuid4().hex
    store = make(redis_uri, name)
    kept = [{"code": code, "at": NOON, "whole": 34, "text": "t"} for code in ("a", "b", "c")]
    store.write(KINDS, iter([stored_rows(KINDS, kept)]))
    store.write(PAIRS, iter([stored_rows(PAIRS, [{"left": 1, "right": 2, "at": NOON}])]))
    with redis.Redis.from_url(redis_uri) as client:
        if make is _direct:
            client.set(f"{name}:every_kind:whole:a", text)
        else:
            (key,) = [
                key for key in client.scan_iter(f"*{name}*", 10_000) if b"\x01\x00\x00\x00a" in key
            ]
            client.hset(key, feature_field(KINDS, "whole"), text)
    reader = store.reader(
        [SelectedFeatures(KINDS, ("text", "whole")), SelectedFeatures(PAIRS, ("product",))]
    )

    async def read() -> list[tuple[object, ...]]:
        try:
            await reader.read([(code, 1, 2) for code in asked])
            return await reader.read([(code, 1, 2) for code in asked])
        finally:
            await reader.close()

    with caplog.at_level(logging.WARNING):
        found = asyncio.run(read())
    micros = int(NOON.timestamp()) * 1_000_000
    there = (micros, "t", 34, micros, None)
    assert found == [(None, None, None, micros, None), *[there] * (len(asked) - 1)]
    (said,) = [record.getMessage() for record in caplog.records]
    assert "every_kind" in said
    assert "not of the declared type" in said


class Particular(MemoryOnlineStore):
    """Does not read rows of which one is bad."""

    def read(self, keys: pa.RecordBatch, selection: Sequence[SelectedFeatures]) -> OnlineRows:
        if "bad" in keys.column("code").to_pylist():
            raise DataError("the online store holds a value that is not of the declared type")
        return super().read(keys, selection)


def test_a_store_that_does_not_read_one_row_answers_for_the_others() -> None:
    store = Particular()
    rows = [{"code": "a", "at": NOON, "whole": 1}, {"code": "bad", "at": NOON, "whole": 2}]
    store.write(KINDS, iter([stored_rows(KINDS, rows)]))
    reader = ThreadedReader(store, [SelectedFeatures(KINDS, ("whole",))], timeout=10.0)
    found = asyncio.run(reader.read([("a",), ("bad",), ("a",)]))
    asyncio.run(reader.close())
    assert [row[1] for row in found] == [1, None, 1]
    assert found[1] == (None, None)
