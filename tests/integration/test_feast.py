"""Feast beside ours: the same bytes, the same answers, and where its own would be wrong."""

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from tests.redis_places import Redis, line_to, one_redis

from lodestar.adapters import feast_layout
from lodestar.adapters.feast import FeastOnlineStore, FeastRepository, FeastStores
from lodestar.adapters.redis_connection import RedisConnection
from lodestar.errors import ExternalError, NotAllowedError, UsageError
from lodestar.interface.features import OnlineStore
from lodestar.settings.features import FeatureCatalog, FeatureView
from lodestar.testing.online import (
    CONTRACT_VIEWS,
    OnlineStoreContract,
    every_feature_of,
    stored_rows,
)

NOON = datetime(2025, 3, 30, 12, 0, 0, 123_456, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
KINDS, PAIRS, WORDS, _ = CONTRACT_VIEWS
TEXTS = st.text(max_size=20)
INTS = st.integers(-(2**63), 2**63 - 1)


def catalog_of(*views: FeatureView) -> FeatureCatalog:
    return FeatureCatalog({view.namespace: view for view in views})


def changed(view: FeatureView, **values: Any) -> FeatureView:  # noqa: ANN401 -- parts of a declaration
    return FeatureView.model_validate({**view.model_dump(exclude_none=True), **values})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A Redis whose password Feast would take for a number, and cut at its comma."""
    with one_redis(tmp_path_factory.mktemp("redis")) as found:
        found.client().config_set("requirepass", "1e5,x")
        found.password = "1e5,x"  # noqa: S105 -- a test's own
        yield found


def connection_to(server: Redis) -> RedisConnection:
    return RedisConnection(SecretStr(f"redis://:1e5%2Cx@127.0.0.1:{server.port}/0"))


def stores_of(server: Redis, folder: Path, **values: Any) -> FeastStores:  # noqa: ANN401 -- of FeastStores
    given = {
        "project": f"p{uuid4().hex}",
        "registry": SecretStr(f"sqlite:///{folder / 'registry.db'}"),
        "offline": folder,
        "online": connection_to(server),
        **values,
    }
    return FeastStores(**given)


@pytest.fixture
def repository(server: Redis, tmp_path: Path) -> FeastRepository:
    made = FeastRepository(stores_of(server, tmp_path), catalog_of(*CONTRACT_VIEWS))
    made.apply()
    return made


@settings(deadline=None)
@given(left=INTS, right=INTS, first=TEXTS, second=TEXTS)
def test_entity_keys_are_feasts_own(left: int, right: int, first: str, second: str) -> None:
    whole = EntityKey(
        join_keys=["left", "right"],
        entity_values=[Value(int64_val=left), Value(int64_val=right)],
    )
    text = EntityKey(
        join_keys=["second", "first"],
        entity_values=[Value(string_val=second), Value(string_val=first)],
    )
    assert feast_layout.entity_key(PAIRS, (left, right), "shop") == _feast_key(whole)
    turned = changed(WORDS, entity_keys={"second": "string", "first": "string"})
    assert feast_layout.entity_key(WORDS, (first, second), "shop") == _feast_key(text)
    assert feast_layout.entity_key(turned, (second, first), "shop") == _feast_key(text)


def test_fields_are_feasts_own() -> None:
    for name in KINDS.features:
        assert feast_layout.feature_field(KINDS, name) == _mmh3(f"every_kind:{name}")


def _feast_key(key: EntityKey) -> bytes:
    return serialize_entity_key(key, entity_key_serialization_version=3) + b"shop"


@settings(deadline=None)
@given(whole=INTS, number=st.floats(), text=TEXTS, flag=st.booleans())
def test_values_are_feasts_own(whole: int, number: float, text: str, flag: bool) -> None:
    for kind, value, theirs in (
        ("int", whole, Value(int64_val=whole)),
        ("timestamp", whole, Value(int64_val=whole)),
        ("float", number, Value(double_val=number)),
        ("string", text, Value(string_val=text)),
        ("bool", flag, Value(bool_val=flag)),
        ("int", None, Value()),
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
        ("int", Value(string_val="1")),
        ("int", Value(double_val=1.0)),
        ("float", Value(int64_val=1)),
        ("bool", Value(int64_val=1)),
        ("string", Value(bytes_val=b"1")),
        ("timestamp", Value(string_val="2025")),
    ],
)
def test_a_value_of_another_type_is_never_read_as_if_it_fitted(kind: str, stored: Value) -> None:
    with pytest.raises(ValueError, match="no "):
        feast_layout.PARSERS[kind](stored.SerializeToString())


def test_smaller_numbers_and_seconds_of_another_writer_are_read() -> None:
    parse = feast_layout.PARSERS
    assert parse["int"](Value(int32_val=-5).SerializeToString()) == -5
    assert parse["float"](Value(float_val=0.5).SerializeToString()) == 0.5
    assert parse["timestamp"](Value(unix_timestamp_val=7).SerializeToString()) == 7_000_000


ROWS = [
    {
        "code": "a",
        "at": NOON,
        "flag": True,
        "whole": -1,
        "number": 0.1,
        "text": "é",
        "moment": NOON,
    },
    {"code": "b", "at": NOON + MICROSECOND, "text": ""},
]
NAMES = [f"every_kind:{name}" for name in KINDS.features]


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
    values = {name: Value() for name in KINDS.features}
    values["whole"], values["text"] = Value(int64_val=whole), Value(string_val="by Feast")
    key = EntityKey(join_keys=["code"], entity_values=[Value(string_val=code)])
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


def test_a_diff_says_what_apply_then_does(server: Redis, tmp_path: Path) -> None:
    stores = stores_of(server, tmp_path)
    first = FeastRepository(stores, catalog_of(KINDS, PAIRS))
    wanted = (
        "+ every_kind: new, by code: flag, whole, number, text, moment",
        "+ of_pairs: new, by left, right: product",
    )
    assert first.diff().lines == wanted
    assert first.apply().lines == wanted
    assert first.diff().lines == ()
    kinds = changed(
        KINDS,
        ttl="2d",
        owner="shop team",
        features={"flag": "bool", "whole": "float", "colour": "string", "text": "string"},
    )
    second = FeastRepository(stores, catalog_of(kinds, WORDS))
    assert second.diff().lines == (
        "~ every_kind: feature colour: string, new",
        "~ every_kind: feature number: gone",
        "~ every_kind: feature moment: gone",
        "~ every_kind: feature whole: float, was int",
        "~ every_kind: ttl: 2 days, 0:00:00, was none",
        "~ every_kind: owner: shop team, was none",
        "+ of_words: new, by first, second: joined",
        "- of_pairs: no longer declared; its online rows are removed",
    )
    second.apply()
    assert second.diff().lines == ()


def test_a_namespace_that_is_gone_takes_its_rows_and_watermark_with_it(
    server: Redis, tmp_path: Path
) -> None:
    stores = stores_of(server, tmp_path)
    both = FeastRepository(stores, catalog_of(KINDS, PAIRS))
    both.apply()
    store = FeastOnlineStore(both)
    store.write(PAIRS, iter([stored_rows(PAIRS, [{"left": 1, "right": 2, "at": NOON}])]))
    store.set_watermark(PAIRS, NOON)
    FeastRepository(stores, catalog_of(KINDS)).apply()
    keys = pa.record_batch({"left": [1], "right": [2]})
    rows = store.read(keys, every_feature_of(PAIRS))
    assert rows.event_times["of_pairs"].to_pylist() == [None]
    assert store.watermark(PAIRS) is None


def test_the_views_of_others_stay(server: Redis, tmp_path: Path) -> None:
    stores = stores_of(server, tmp_path)
    both = FeastRepository(stores, catalog_of(KINDS, PAIRS))
    both.apply()
    theirs = both.registered(PAIRS)
    theirs.tags = {}
    both.store.registry.apply_feature_view(theirs, stores.project)
    only = FeastRepository(stores, catalog_of(KINDS))
    assert only.diff().lines == ()
    only.apply()
    assert both.registered(PAIRS).name == "of_pairs"


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


def test_one_key_with_two_types_is_refused(server: Redis, tmp_path: Path) -> None:
    numbers = changed(PAIRS, entity_keys={"left": "string"})
    made = FeastRepository(
        stores_of(server, tmp_path),
        catalog_of(changed(WORDS, entity_keys={"left": "int"}), numbers),
    )
    with pytest.raises(UsageError, match="'left' is int in of_words and string in of_pairs"):
        made.diff()


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


@pytest.fixture
def team(server: Redis, tmp_path: Path) -> Path:
    """A folder with a team's own Feast repository, applied."""
    folder = tmp_path / "team"
    folder.mkdir()
    (folder / "feature_store.yaml").write_text(
        f"""
project: team
provider: local
registry: {folder / "registry.db"}
offline_store: {{type: dask}}
online_store:
  type: redis
  connection_string: '127.0.0.1:{server.port},password="1e5\\u002cx"'
entity_key_serialization_version: 3
""",
        encoding="utf-8",
    )
    made = FeastRepository(stores_of(server, folder), catalog_of(KINDS))
    from feast import FeatureStore, Field
    from feast.types import Array, Int64

    from lodestar.adapters.feast_objects import objects_of

    objects = objects_of(made.catalog, folder)
    arrays = objects_of(catalog_of(PAIRS), folder)
    arrays.views[0].features[0] = Field(name="product", dtype=Array(Int64))
    store = FeatureStore(repo_path=str(folder))
    store.apply([*objects.entities, *objects.views, *arrays.entities, *arrays.views])
    return folder


def test_a_teams_own_repository_is_taken_as_it_is(team: Path) -> None:
    found = FeastRepository.existing(team)
    assert list(found.catalog.views) == ["every_kind"]
    view = found.catalog.view("every_kind")
    assert {name: feature.type for name, feature in view.features.items()} == {
        name: feature.type for name, feature in KINDS.features.items()
    }
    assert (view.source.timestamp_col, view.source.created_col) == ("happened_at", "arrived_at")
    assert "'product' of type Array(Int64)" in found.left_out["of_pairs"]
    store = FeastOnlineStore(found)
    store.write(view, iter([stored_rows(view, ROWS)]))
    store.set_watermark(view, NOON)
    answer = found.store.get_online_features(["every_kind:text"], [{"code": "a"}]).to_dict()
    assert answer["text"] == ["é"]
    with pytest.raises(NotAllowedError, match="own definitions"):
        found.apply()


READ = """
import sys
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
from pydantic import SecretStr

from lodestar.adapters.feast import FeastOnlineStore, FeastRepository, FeastStores
from lodestar.adapters.redis_connection import RedisConnection
from lodestar.settings.features import FeatureCatalog
from lodestar.testing.online import CONTRACT_VIEWS, every_feature_of

if sys.argv[2] != "feast":
    sys.modules[sys.argv[2]] = None
view = CONTRACT_VIEWS[0]
registry = SecretStr("sqlite:////nowhere/registry.db")
stores = FeastStores("shop", registry, Path("/"), RedisConnection(SecretStr(sys.argv[1])))
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


def test_a_folder_without_a_repository_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no feature_store\.yaml"):
        FeastRepository.existing(tmp_path)


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
        line.delay, made.timeout = 3.0, 0.5
        began = time.monotonic()
        with pytest.raises(ExternalError, match=r"did not answer within 0\.5 s"):
            store.read(keys, selection)
        assert time.monotonic() - began < 1.5
        assert line.fired.is_set()
        line.delay, made.timeout = 0.0, 10.0
        assert store.read(keys, selection).features.to_pylist() == [{"joined": None}]
        made.close()
        time.sleep(3.0)  # the call given up ends with its answer, not in the next test
