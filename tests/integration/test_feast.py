"""Feast beside ours: the same bytes, the same answers, and where its own would be wrong."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]  # its types are published apart
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from tests.feast_places import (
    NAMES,
    NOON,
    ROWS,
    catalog_of,
    changed,
    connection_to,
    feast_key,
    feast_redis,
    feast_value,
    stores_of,
)
from tests.redis_places import Redis, line_to

from lodestar.adapters.feast import layout as feast_layout
from lodestar.adapters.feast.repository import FeastOnlineStore, FeastRepository
from lodestar.errors import ExternalError, UsageError
from lodestar.interface.features import OnlineStore
from lodestar.testing.online import (
    CONTRACT_VIEWS,
    OnlineStoreContract,
    every_feature_of,
    stored_rows,
)

MICROSECOND = timedelta(microseconds=1)
KINDS, PAIRS, WORDS, _ = CONTRACT_VIEWS
TEXTS = st.text(max_size=20)
INTS = st.integers(-(2**63), 2**63 - 1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with feast_redis(tmp_path_factory.mktemp("redis")) as found:
        yield found


@pytest.fixture
def repository(server: Redis, tmp_path: Path) -> FeastRepository:
    made = FeastRepository(stores_of(server, tmp_path), catalog_of(*CONTRACT_VIEWS))
    made.apply()
    return made


@settings(deadline=None)
@given(left=INTS, right=INTS, first=TEXTS, second=TEXTS)
def test_entity_keys_are_feasts_own(left: int, right: int, first: str, second: str) -> None:
    whole = feast_key(
        join_keys=["left", "right"],
        entity_values=[feast_value(int64_val=left), feast_value(int64_val=right)],
    )
    text = feast_key(
        join_keys=["second", "first"],
        entity_values=[feast_value(string_val=second), feast_value(string_val=first)],
    )
    assert feast_layout.entity_key(PAIRS, (left, right), "shop") == _feast_key(whole)
    turned = changed(WORDS, entity_keys={"second": "string", "first": "string"})
    assert feast_layout.entity_key(WORDS, (first, second), "shop") == _feast_key(text)
    assert feast_layout.entity_key(turned, (second, first), "shop") == _feast_key(text)


@settings(deadline=None)
@given(left=INTS, first=TEXTS, project=st.sampled_from(["shop", "workshop", "s"]))
def test_a_key_is_known_by_its_columns_and_its_whole_project(
    left: int, first: str, project: str
) -> None:
    known = feast_layout.is_entity_key
    numbers = feast_layout.entity_key(PAIRS, (left, 7), project)
    texts = feast_layout.entity_key(WORDS, (first, "shop"), project)
    assert known(numbers, ["left", "right"], project)
    assert known(texts, ["first", "second"], project)
    assert not known(texts, ["left", "right"], project)
    for other in ("shop", "workshop", "s", "op", ""):
        assert known(numbers, ["left", "right"], other) is (other == project)
        assert known(texts, ["first", "second"], other) is (other == project)
    assert not known(numbers[:12], ["left", "right"], project)


def test_fields_are_feasts_own() -> None:
    from feast.infra.online_stores.helpers import _mmh3

    for name in KINDS.features:
        assert feast_layout.feature_field(KINDS, name) == _mmh3(f"every_kind:{name}")


def _feast_key(key: Any) -> bytes:  # noqa: ANN401 -- Feast's message
    from feast.infra.key_encoding_utils import serialize_entity_key

    return serialize_entity_key(key, entity_key_serialization_version=3) + b"shop"


@settings(deadline=None)
@given(whole=INTS, number=st.floats(), text=TEXTS, flag=st.booleans())
def test_values_are_feasts_own(whole: int, number: float, text: str, flag: bool) -> None:
    for kind, value, theirs in (
        ("int", whole, feast_value(int64_val=whole)),
        ("timestamp", whole, feast_value(int64_val=whole)),
        ("float", number, feast_value(double_val=number)),
        ("string", text, feast_value(string_val=text)),
        ("bool", flag, feast_value(bool_val=flag)),
        ("int", None, feast_value()),
    ):
        assert feast_layout.value_bytes(kind, value) == theirs.SerializeToString()
        back = feast_layout.PARSERS[kind](theirs.SerializeToString())
        assert repr(back) == repr(value)


@settings(deadline=None)
@given(
    moment=st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 -- hypothesis adds the zone
)
def test_event_times_are_feasts_own(moment: datetime) -> None:
    theirs = Timestamp()
    theirs.FromDatetime(moment)
    micros = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // MICROSECOND
    assert feast_layout.time_bytes(micros) == theirs.SerializeToString()
    assert feast_layout.PARSERS["event time"](theirs.SerializeToString()) == micros


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        ("int", {"string_val": "1"}),
        ("int", {"double_val": 1.0}),
        ("float", {"int64_val": 1}),
        ("bool", {"int64_val": 1}),
        ("string", {"bytes_val": b"1"}),
        ("timestamp", {"string_val": "2025"}),
    ],
)
def test_a_value_of_another_type_is_never_read_as_if_it_fitted(
    kind: str, stored: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="no "):
        feast_layout.PARSERS[kind](feast_value(**stored).SerializeToString())


def test_smaller_numbers_and_seconds_of_another_writer_are_read() -> None:
    parse = feast_layout.PARSERS
    assert parse["int"](feast_value(int32_val=-5).SerializeToString()) == -5
    assert parse["float"](feast_value(float_val=0.5).SerializeToString()) == 0.5
    assert parse["timestamp"](feast_value(unix_timestamp_val=7).SerializeToString()) == 7_000_000


def test_feast_answers_with_what_we_wrote(repository: FeastRepository) -> None:
    store = FeastOnlineStore(repository)
    assert store.write(KINDS, iter([stored_rows(KINDS, ROWS)])) == 2
    store.set_watermark(KINDS, NOON)
    asked = [{"code": code} for code in ("a", "b", "nobody")]
    answer = repository.store.get_online_features(NAMES, asked).to_dict()
    ours = store.read(pa.record_batch({"code": ["a", "b", "nobody"]}), every_feature_of(KINDS))
    theirs = {name: answer[name] for name in KINDS.features}
    micros = (NOON - datetime(1970, 1, 1, tzinfo=UTC)) // MICROSECOND
    assert theirs.pop("moment") == [micros, None, None]
    assert theirs == ours.features.drop_columns(["moment"]).to_pydict()


def test_we_answer_with_what_feast_wrote(repository: FeastRepository) -> None:
    _write_by_feast(repository, "a", NOON, 7)
    rows = FeastOnlineStore(repository).read(
        pa.record_batch({"code": ["a", "b"]}), every_feature_of(KINDS)
    )
    assert rows.features.column("whole").to_pylist() == [7, None]
    assert rows.features.column("text").to_pylist() == ["by Feast", None]
    assert rows.event_times["every_kind"].to_pylist() == [NOON, None]


def _write_by_feast(repository: FeastRepository, code: str, at: datetime, whole: int) -> None:
    store = repository.store
    values = {name: feast_value() for name in KINDS.features}
    values["whole"], values["text"] = (
        feast_value(int64_val=whole),
        feast_value(string_val="by Feast"),
    )
    key = feast_key(join_keys=["code"], entity_values=[feast_value(string_val=code)])
    view = repository.registered(KINDS)
    store.provider.online_write_batch(store.config, view, [(key, values, at, None)], None)


def test_an_entity_that_feast_calls_present_is_missing(repository: FeastRepository) -> None:
    repository.record(KINDS, NOON)
    answer = repository.store.get_online_features(NAMES, [{"code": "nobody"}])
    (whole,) = [
        result
        for name, result in zip(
            answer.proto.metadata.feature_names.val, answer.proto.results, strict=True
        )
        if name == "whole"
    ]
    assert list(whole.statuses) == [1]  # PRESENT
    rows = FeastOnlineStore(repository).read(
        pa.record_batch({"code": ["nobody"]}), every_feature_of(KINDS)
    )
    assert rows.event_times["every_kind"].to_pylist() == [None]


def test_a_corrected_version_that_feast_drops_is_kept(repository: FeastRepository) -> None:
    _write_by_feast(repository, "a", NOON, 1)
    _write_by_feast(repository, "a", NOON, 2)
    store = FeastOnlineStore(repository)
    keys, selection = pa.record_batch({"code": ["a"]}), every_feature_of(KINDS)
    assert store.read(keys, selection).features.column("whole").to_pylist() == [1]
    row = {"code": "a", "at": NOON, "whole": 3, "created": NOON}
    store.write(KINDS, iter([stored_rows(KINDS, [row])]))
    assert store.read(keys, selection).features.column("whole").to_pylist() == [3]


def test_a_changed_declaration_is_materialised_from_the_beginning(
    repository: FeastRepository, server: Redis, tmp_path: Path
) -> None:
    store = FeastOnlineStore(repository)
    store.set_watermark(KINDS, NOON)
    assert store.watermark(KINDS) == NOON
    wider = changed(KINDS, features={**KINDS.features, "colour": "string"})
    assert store.watermark(wider) is None


def test_the_registry_hears_of_a_watermark(repository: FeastRepository) -> None:
    store = FeastOnlineStore(repository)
    store.set_watermark(KINDS, NOON)
    store.set_watermark(KINDS, NOON + timedelta(days=1))
    view = repository.registered(KINDS)
    assert view.most_recent_end_time == NOON + timedelta(days=1)
    assert store.watermark(KINDS) == NOON + timedelta(days=1)


def test_a_namespace_that_was_never_applied_is_told_so(server: Redis, tmp_path: Path) -> None:
    made = FeastRepository(stores_of(server, tmp_path), catalog_of(KINDS))
    with pytest.raises(UsageError, match="features apply"):
        FeastOnlineStore(made).set_watermark(KINDS, NOON)


def test_the_registry_may_be_in_postgresql(
    server: Redis, tmp_path: Path, postgres_uri: str
) -> None:
    stores = stores_of(
        server, tmp_path, registry=SecretStr(postgres_uri), offline=SecretStr(postgres_uri)
    )
    made = FeastRepository(stores, catalog_of(KINDS))
    assert made.apply().lines
    again = FeastRepository(stores, catalog_of(KINDS))
    assert again.diff().lines == ()
    assert again.registered(KINDS).batch_source.get_table_query_string() == "every_kind"
    made.close()
    again.close()


def test_a_wrong_password_of_the_registry_is_an_error_without_it(
    server: Redis, tmp_path: Path, postgres_uri: str
) -> None:
    user, _, place = postgres_uri.rpartition("@")
    wrong = f"{user.rpartition(':')[0]}:hunter2@{place}"
    made = FeastRepository(
        stores_of(server, tmp_path, registry=SecretStr(wrong)), catalog_of(KINDS)
    )
    with pytest.raises(ExternalError) as caught:
        made.diff()
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in f"{error} {error!r}"
        error = error.__cause__


READ = """
import sys
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
from pydantic import SecretStr

from lodestar.adapters.feast.repository import FeastOnlineStore, FeastRepository, FeastStores
from lodestar.adapters.redis.connection import RedisConnection
from lodestar.settings.features import FeatureCatalog
from lodestar.testing.online import CONTRACT_VIEWS, every_feature_of

if sys.argv[2] != "feast":
    sys.modules[sys.argv[2]] = None
view = CONTRACT_VIEWS[0]
registry = SecretStr("sqlite:////nowhere/registry.db")
connection = RedisConnection(SecretStr(sys.argv[1]), timeout=20.0)
stores = FeastStores("shop", registry, Path("/"), connection)
store = FeastOnlineStore(FeastRepository(stores, FeatureCatalog({view.namespace: view})))
rows = store.read(pa.record_batch({"code": ["a"]}), every_feature_of(view))
print(rows.features.column("whole").to_pylist(), "feast" in sys.modules)
"""


def _ran(server: Redis, package: str) -> "subprocess.CompletedProcess[str]":
    uri = connection_to(server).uri.get_secret_value()
    command = [sys.executable, "-c", READ, uri, package]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_reading_redis_does_without_feast_and_its_registry(server: Redis) -> None:
    done = _ran(server, "feast")
    assert done.stdout.split() == ["[None]", "False"], done.stderr


@pytest.mark.parametrize(("package", "extra"), [("redis", "redis"), ("mmh3", "feast")])
def test_a_package_that_is_missing_names_its_extra(server: Redis, package: str, extra: str) -> None:
    done = _ran(server, package)
    assert f"UsageError: the Python package {package} is not installed" in done.stderr
    assert f"pip install 'lodestar-ml[{extra}]'" in done.stderr


class ThroughFeast(OnlineStoreContract):
    """What Feast's own code reads and writes, with its own limits."""

    repository: FeastRepository

    def store(self) -> OnlineStore:
        return FeastOnlineStore(self.repository)

    def test_of_equal_event_times_the_last_created_stays(self) -> None:
        pytest.skip("Feast's stores do not give back when a version was created")

    def test_writers_at_the_same_time_leave_the_newest_version(self) -> None:
        pytest.skip("Feast's stores do not compare and set in one step")


@pytest.mark.slow
@pytest.mark.faults  # a schema and a registry for every test
class TestFeastOverPostgres(ThroughFeast):
    @pytest.fixture(autouse=True)
    def _repository(self, server: Redis, tmp_path: Path, postgres_uri: str) -> Iterator[None]:
        uri = SecretStr(postgres_uri)
        stores = stores_of(server, tmp_path, registry=uri, online=uri, timeout=20.0)
        self.repository = FeastRepository(stores, catalog_of(*CONTRACT_VIEWS))
        self.repository.apply()
        yield
        self.repository.close()

    def test_feast_itself_lets_an_older_version_replace_a_newer_one(self) -> None:
        _write_by_feast(self.repository, "a", NOON, 1)
        _write_by_feast(self.repository, "a", NOON - timedelta(days=9), 2)
        assert self._whole(self.store(), "a") == [2]

    def test_texts_as_keys_may_hold_anything(self) -> None:
        pytest.skip("PostgreSQL's text holds no NUL")

    @pytest.mark.parametrize("values", [{"text": "서울 🚀", "whole": -1, "number": 0.1 + 0.2}])
    def test_every_kind_of_value_comes_back_exactly(self, values: dict[str, Any]) -> None:
        super().test_every_kind_of_value_comes_back_exactly(values)


class TestFeastOverSqlite(ThroughFeast):
    @pytest.fixture(autouse=True)
    def _repository(self, server: Redis, tmp_path: Path) -> Iterator[None]:
        online = SecretStr(f"sqlite:///{tmp_path / 'online.db'}")
        stores = stores_of(server, tmp_path, online=online, timeout=20.0)
        self.repository = FeastRepository(stores, catalog_of(*CONTRACT_VIEWS))
        self.repository.apply()
        yield
        self.repository.close()

    def test_rows_come_in_the_order_of_the_keys_each_as_often_as_asked(self) -> None:
        pytest.skip("Feast keeps event times in SQLite as whole seconds")

    def test_event_times_before_1970_are_in_order_too(self) -> None:
        pytest.skip("Feast keeps event times in SQLite as whole seconds")

    def test_several_namespaces_are_read_at_once_each_by_its_own_keys(self) -> None:
        pytest.skip("Feast keeps event times in SQLite as whole seconds")


@pytest.mark.slow
def test_a_store_that_hangs_is_given_up_in_time_and_works_again_after(
    server: Redis, tmp_path: Path, postgres_uri: str
) -> None:
    login, _, place = postgres_uri.rpartition("@")
    port, _, database = place.partition(":")[2].partition("/")
    with line_to(int(port)) as line:
        online = SecretStr(f"{login}@127.0.0.1:{line.port}/{database}")
        stores = stores_of(server, tmp_path, online=online, timeout=10.0)
        made = FeastRepository(stores, catalog_of(WORDS))
        made.apply()
        store = FeastOnlineStore(made)
        keys = pa.record_batch({"first": ["a"], "second": ["b"]})
        selection = every_feature_of(WORDS)
        assert store.read(keys, selection).features.to_pylist() == [{"joined": None}]
        line.delay, made.timeout = 5.0, 0.5
        began = time.monotonic()
        with pytest.raises(ExternalError, match=r"did not answer within 0\.5 s"):
            store.read(keys, selection)
        assert time.monotonic() - began < 4.5
        assert line.fired.is_set()
        line.delay, made.timeout = 0.0, 10.0
        assert store.read(keys, selection).features.to_pylist() == [{"joined": None}]
        made.close()
        time.sleep(5.0)  # the call given up ends with its answer, not in the next test


def test_feast_leaves_our_servers_metrics_where_they_are() -> None:
    code = (
        "import os\n"
        "from lodestar.adapters.feast.project import imported_feast\n"
        "imported_feast()\n"
        "print(sorted(name for name in os.environ if name.startswith('PROMETHEUS')))\n"
        "from prometheus_client.values import ValueClass\n"
        "print(ValueClass.__name__)\n"
    )
    # Feast, which other tests import here, has set them.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=kept, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.splitlines() == ["[]", "MutexValue"], done.stderr
