"""The readers of online stores under their port's contract, on real servers."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from uuid import uuid4

import pyarrow as pa
import pytest
import uvloop
from pydantic import SecretStr
from tests.redis_contracts import (
    Alone,
    BehindSentinels,
    InCluster,
    InFeastProject,
    OverTLS,
    OwnKeys,
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
    """Stores that make their readers themselves."""

    def reader(self, store: OnlineStore, selection: Sequence[SelectedFeatures]) -> OnlineReader:
        assert isinstance(store, MakesReaders)
        return store.reader(selection)


class RedisContract(OwnKeys, OwnReaderContract):
    def store(self) -> RedisStore:
        return RedisOnlineStore(self.connection())


class TestRedis(Alone, RedisContract):
    """One server."""


class TestRedisOnUvloop(TestRedis):
    loop_factory = staticmethod(uvloop.new_event_loop)


class TestRedisByDatabase(TestRedis):
    """A database of its own is selected before anything is asked."""

    @pytest.fixture(autouse=True)
    def _server(self, redis_uri: str) -> None:
        self.uri = redis_uri.removesuffix("/0") + "/3"


class TestFeastOverRedis(InFeastProject, OwnReaderContract):
    """Feast's layout."""


class TestFeastOverRedisOnUvloop(TestFeastOverRedis):
    loop_factory = staticmethod(uvloop.new_event_loop)


class TestRedisOverTLS(OverTLS, RedisContract):
    """A certificate of our own."""


class TestRedisOverTLSOnUvloop(TestRedisOverTLS):
    loop_factory = staticmethod(uvloop.new_event_loop)


@pytest.mark.slow
class TestRedisCluster(InCluster, RedisContract):
    """Keys on several nodes."""


@pytest.mark.slow
class TestRedisBehindSentinels(BehindSentinels, RedisContract):
    """The master of the moment."""


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
