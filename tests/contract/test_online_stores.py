"""The online stores under their port's contract, on real servers."""

from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pytest
from pydantic import SecretStr
from tests.redis_contracts import (
    Alone,
    BehindSentinels,
    InCluster,
    InFeastProject,
    OverTLS,
    OwnKeys,
)
from tests.redis_places import one_redis

from lodestar.adapters.redis.provider import RedisConnection, RedisOnlineStore
from lodestar.errors import DataError, UsageError
from lodestar.interface.features import OnlineStore
from lodestar.settings.features import FeatureView
from lodestar.testing.online import (
    MemoryOnlineStore,
    OnlineStoreContract,
    every_feature_of,
    stored_rows,
)

NOON = datetime(2025, 3, 30, 12, tzinfo=UTC)
USERS = FeatureView.model_validate(
    {
        "namespace": "users",
        "entity_keys": {"user_id": "string"},
        "source": {"table": "users", "created_col": "created"},
        "features": {"age": "int", "ltv": "float", "country": "string", "active": "bool"},
    }
)


class TestMemory(OnlineStoreContract):
    def store(self) -> OnlineStore:
        return MemoryOnlineStore()


class OpenedAgain:
    """What is stored stays where it is while stores come and go."""

    def again(self, store: OnlineStore) -> OnlineStore:
        del store
        return self.store()

    def store(self) -> OnlineStore:
        raise NotImplementedError


class RedisContract(OwnKeys, OpenedAgain, OnlineStoreContract):
    def store(self) -> RedisOnlineStore:
        return RedisOnlineStore(self.connection())


class TestRedis(Alone, RedisContract):
    """One server."""


class TestFeastOverRedis(InFeastProject, OpenedAgain, OnlineStoreContract):
    """Feast's layout."""


@pytest.mark.slow
class TestRedisCluster(InCluster, RedisContract):
    """Keys on several nodes."""


@pytest.mark.slow
class TestRedisBehindSentinels(BehindSentinels, RedisContract):
    """The master of the moment."""


class TestRedisOverTLS(OverTLS, RedisContract):
    """A certificate of our own."""


def test_keys_and_values_are_text_that_a_person_can_read(
    tmp_path: Path,
) -> None:
    with one_redis(tmp_path) as server:
        store = RedisOnlineStore(
            RedisConnection(SecretStr(server.uri), prefix="dev:", timeout=20.0)
        )
        row = {"user_id": "a:b", "at": NOON, "created": NOON, "age": 34, "ltv": 0.1, "active": True}
        store.write(USERS, iter([stored_rows(USERS, [{**row, "country": ""}])]))
        store.set_watermark(USERS, NOON)
        client = server.client()
        found = {key.decode(): client.get(key).decode() for key in client.scan_iter()}
    micros = int(NOON.timestamp()) * 1_000_000
    assert found == {
        "dev:users:@event_time:a%3Ab": f"{micros} {micros}",
        "dev:users:@watermark": f"{micros} active:bool age:int country:string ltv:float "
        "user_id:string",
        "dev:users:age:a%3Ab": "34",
        "dev:users:ltv:a%3Ab": "0.1",
        "dev:users:active:a%3Ab": "true",
        "dev:users:country:a%3Ab": "\\",
    }


def test_an_entity_with_a_value_gone_is_unknown_and_no_half_row(tmp_path: Path) -> None:
    with one_redis(tmp_path) as server:
        store = RedisOnlineStore(RedisConnection(SecretStr(server.uri), timeout=20.0))
        store.write(USERS, iter([stored_rows(USERS, [{"user_id": "u", "at": NOON, "age": 34}])]))
        assert server.client().delete("users:ltv:u") == 1
        rows = store.read(pa.record_batch({"user_id": ["u"]}), every_feature_of(USERS))
    assert set(rows.features.to_pylist()[0].values()) == {None}
    assert rows.event_times["users"].to_pylist() == [None]


def test_an_emptied_redis_knows_nobody_and_has_no_watermark(tmp_path: Path) -> None:
    with one_redis(tmp_path) as server:
        store = RedisOnlineStore(RedisConnection(SecretStr(server.uri), timeout=20.0))
        store.write(USERS, iter([stored_rows(USERS, [{"user_id": "u", "at": NOON, "age": 34}])]))
        store.set_watermark(USERS, NOON)
        server.client().flushall()
        rows = store.read(pa.record_batch({"user_id": ["u"]}), every_feature_of(USERS))
        assert rows.features.column("age").to_pylist() == [None]
        assert rows.event_times["users"].to_pylist() == [None]
        assert store.watermark(USERS) is None


@pytest.mark.parametrize("text", ["thirty", "1.5", "99999999999999999999999"])
def test_a_value_of_another_type_is_an_error_that_names_the_namespace(
    tmp_path: Path, text: str
) -> None:
    with one_redis(tmp_path) as server:
        store = RedisOnlineStore(RedisConnection(SecretStr(server.uri), timeout=20.0))
        store.write(USERS, iter([stored_rows(USERS, [{"user_id": "u", "at": NOON, "age": 34}])]))
        server.client().set("users:age:u", text)
        with pytest.raises(DataError, match="users"):
            store.read(pa.record_batch({"user_id": ["u"]}), every_feature_of(USERS))


def test_a_user_and_a_password_of_any_characters_log_in(tmp_path: Path) -> None:
    password = "p@ss:w/ö%rd,1"  # noqa: S105 -- a test's own server asks for it
    with one_redis(tmp_path) as server:
        server.client().execute_command(
            "ACL", "SETUSER", "shop", "on", f">{password}", "~*", "+@all"
        )
        login = f"shop:{quote(password, safe='')}"
        uri = f"redis://{login}@127.0.0.1:{server.port}"
        connection = RedisConnection(SecretStr(uri), timeout=20.0)
        assert RedisOnlineStore(connection).watermark(USERS) is None


@pytest.mark.parametrize(
    "connection",
    [
        RedisConnection(SecretStr("http://:hunter2@host:1")),
        RedisConnection(SecretStr("redis://:hunter2@host:port")),
        RedisConnection(SecretStr("redis://:hunter2@")),
        RedisConnection(SecretStr("redis://:hunter2@host/x")),
        RedisConnection(SecretStr("redis://:hunter2@host/1"), mode="cluster"),
        RedisConnection(SecretStr("redis://:hunter2@host"), mode="sentinel"),
        RedisConnection(SecretStr("redis://:hunter2@host"), mode="swarm"),  # type: ignore[arg-type]  # so it is refused
        RedisConnection(SecretStr("redis://:hunter2@host"), timeout=0),
        RedisConnection(SecretStr("redis://:hunter2@host"), prefix="{a}"),
        RedisConnection(SecretStr("rediss://:hunter2@host"), ca_file=Path("/no/such/ca.pem")),
    ],
)
def test_a_connection_that_cannot_be_is_refused_at_once_without_its_password(
    connection: RedisConnection,
) -> None:
    with pytest.raises(UsageError) as caught:
        RedisOnlineStore(connection)
    assert "hunter2" not in f"{caught.value} {connection!r}"
