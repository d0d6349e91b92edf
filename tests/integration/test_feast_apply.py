"""What `features apply` would change, says so, and then does; on real registries and stores."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from uuid import uuid4

import pyarrow as pa
import pytest
from pydantic import SecretStr
from tests.feast_places import catalog_of, changed, feast_redis, stores_of
from tests.redis_places import Redis

from lodestar.adapters.feast.config import WarehouseTables
from lodestar.adapters.feast.repository import FeastOnlineStore, FeastRepository, FeastStores
from lodestar.errors import UsageError
from lodestar.settings.features import FeatureView
from lodestar.testing.online import CONTRACT_VIEWS, every_feature_of, stored_rows

NOON = datetime(2025, 3, 30, 12, 0, 0, 123_456, tzinfo=UTC)
KINDS, PAIRS, WORDS, _ = CONTRACT_VIEWS
ROW = {"code": "a", "at": NOON, "whole": 1, "text": "x"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with feast_redis(tmp_path_factory.mktemp("redis")) as found:
        yield found


@pytest.fixture(params=["redis", "sqlite"])
def stores(request: pytest.FixtureRequest, server: Redis, tmp_path: Path) -> FeastStores:
    if request.param == "redis":
        return stores_of(server, tmp_path)
    online = SecretStr(f"sqlite:///{tmp_path / 'online.db'}")
    return stores_of(server, tmp_path, online=online, timeout=20.0)


def filled(stores: FeastStores, *views: FeatureView) -> FeastOnlineStore:
    """These namespaces applied, the first with one row and a watermark."""
    repository = FeastRepository(stores, catalog_of(*views))
    repository.apply()
    store = FeastOnlineStore(repository)
    store.write(views[0], iter([stored_rows(views[0], [ROW])]))
    store.set_watermark(views[0], NOON)
    return store


def texts(store: FeastOnlineStore) -> list[str | None]:
    rows = store.read(pa.record_batch({"code": ["a"]}), every_feature_of(KINDS))
    return list(rows.features.column("text").to_pylist())


def test_a_diff_says_what_apply_then_does(server: Redis, tmp_path: Path) -> None:
    stores = stores_of(server, tmp_path)
    first = FeastRepository(stores, catalog_of(KINDS, PAIRS))
    wanted = (
        "+ every_kind: new, by code: flag, whole, number, text, moment",
        "+ of_pairs: new, by left, right: product",
        "+ entity code: new, string",
        "+ entity left: new, int",
        "+ entity right: new, int",
    )
    assert first.diff().lines == wanted
    assert first.apply().lines == wanted
    assert first.diff().lines == ()
    kinds = changed(
        KINDS,
        ttl="2d",
        owner="shop team",
        features={
            "flag": {"type": "bool", "sensitive": True},
            "whole": "float",
            "colour": "string",
            "text": {"type": "string", "description": "as written"},
        },
    )
    second = FeastRepository(stores, catalog_of(kinds, WORDS))
    changes = second.diff()
    assert changes.lines == (
        "~ every_kind: feature colour: string, new",
        "~ every_kind: description of text: as written, new",
        "~ every_kind: sensitivity of flag: sensitive, new",
        "- every_kind: feature number: gone",
        "- every_kind: feature moment: gone",
        "-/+ every_kind: feature whole: float, was int",
        "~ every_kind: ttl: 2d, was none",
        "~ every_kind: owner: shop team, was none",
        "+ of_words: new, by first, second: joined",
        "- of_pairs: no longer declared; its online rows are removed",
        "+ entity first: new, string",
        "+ entity second: new, string",
        "- entity left: no namespace has it any more",
        "- entity right: no namespace has it any more",
    )
    assert [change.what.partition(":")[0] for change in changes.breaking] == [
        "feature number",
        "feature moment",
        "feature whole",
        "no longer declared; its online rows are removed",
    ]
    second.apply()
    assert second.diff().lines == ()
    assert FeastRepository(stores, catalog_of(kinds, WORDS)).diff().lines == ()


def test_what_others_changed_meanwhile_is_not_applied(server: Redis, tmp_path: Path) -> None:
    stores = stores_of(server, tmp_path)
    mine, theirs = (FeastRepository(stores, catalog_of(KINDS)) for _ in range(2))
    agreed = mine.diff()
    theirs.apply()
    mine.reopen()  # what it has seen of the registry is a minute old at most
    with pytest.raises(UsageError, match="has changed since"):
        mine.apply(agreed)


def test_a_namespace_that_is_gone_takes_its_rows_and_watermark_with_it(
    stores: FeastStores,
) -> None:
    store = filled(stores, KINDS, PAIRS)
    assert texts(store) == ["x"]
    FeastRepository(stores, catalog_of(PAIRS)).apply()
    FeastRepository(stores, catalog_of(KINDS, PAIRS)).apply()
    store.close()
    assert texts(store) == [None]
    assert store.watermark(KINDS) is None


def test_what_is_removed_from_one_project_stays_in_another_whose_name_ends_alike(
    server: Redis, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    tail = uuid4().hex
    one = stores_of(server, tmp_path / "a", project=tail)
    other = stores_of(server, tmp_path / "b", project=f"work{tail}")
    theirs, mine = filled(other, KINDS, PAIRS), filled(one, KINDS, PAIRS)
    FeastRepository(one, catalog_of(PAIRS)).apply()
    assert (texts(mine), texts(theirs)) == ([None], ["x"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": {**KINDS.features, "whole": "float"}}, "feature whole: float, was int"),
        ({"entity_keys": {"code": "int"}}, "keys: code int, was code string"),
        (
            {"source": {**KINDS.source.model_dump(exclude_none=True), "table": "kinds_2"}},
            "table: ",
        ),
        (
            {"source": {"table": "every_kind", "timestamp_col": "happened_at"}},
            "created column: none, was arrived_at",
        ),
    ],
)
def test_a_namespace_whose_rows_mean_something_else_begins_anew(
    stores: FeastStores, change: dict[str, object], said: str
) -> None:
    store = filled(stores, KINDS)
    other = changed(KINDS, **change)
    second = FeastRepository(stores, catalog_of(other))
    (broken,) = second.diff().breaking
    assert str(broken).startswith(f"-/+ every_kind: {said}")
    second.apply()
    assert second.diff().lines == ()
    assert FeastOnlineStore(second).watermark(other) is None
    store.close()
    assert texts(store) == [None]


def test_a_new_feature_leaves_the_rows_and_makes_them_due_again(stores: FeastStores) -> None:
    store = filled(stores, KINDS)
    wider = changed(KINDS, features={**KINDS.features, "colour": "string"})
    second = FeastRepository(stores, catalog_of(wider))
    assert second.diff().breaking == ()
    second.apply()
    assert FeastOnlineStore(second).watermark(wider) is None
    assert texts(store) == ["x"]


def test_other_words_about_a_namespace_leave_its_watermark(stores: FeastStores) -> None:
    filled(stores, KINDS)
    told = changed(KINDS, description="of every kind", owner="shop team", ttl="9d")
    second = FeastRepository(stores, catalog_of(told))
    second.apply()
    watermark = FeastOnlineStore(second).watermark(told)
    assert watermark is not None
    assert watermark.replace(microsecond=0) == NOON.replace(microsecond=0)


def test_rows_are_not_written_before_the_declaration_is_applied(stores: FeastStores) -> None:
    store = filled(stores, KINDS)
    wider = changed(KINDS, features={**KINDS.features, "colour": "string"})
    due = FeastOnlineStore(FeastRepository(stores, catalog_of(wider, WORDS)))
    for view, row in ((wider, ROW), (WORDS, {"first": "a", "second": "b", "at": NOON})):
        with pytest.raises(UsageError, match="features apply"):
            due.write(view, iter([stored_rows(view, [row])]))
    assert texts(store) == ["x"]


def test_the_views_and_entities_of_others_stay(server: Redis, tmp_path: Path) -> None:
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
    with pytest.raises(UsageError, match="somebody else has registered a view 'of_pairs'"):
        both.diff()


def test_an_entity_of_others_with_another_type_is_not_changed(
    server: Redis, tmp_path: Path
) -> None:
    from feast import Entity, ValueType

    stores = stores_of(server, tmp_path)
    repository = FeastRepository(stores, catalog_of(KINDS))
    theirs = Entity(name="code", join_keys=["code"], value_type=ValueType.INT64)
    repository.store.registry.apply_entity(theirs, stores.project)
    with pytest.raises(UsageError, match="an entity 'code' that is int"):
        repository.apply()


def test_one_key_with_two_types_is_refused(server: Redis, tmp_path: Path) -> None:
    numbers = changed(PAIRS, entity_keys={"left": "string"})
    made = FeastRepository(
        stores_of(server, tmp_path),
        catalog_of(changed(WORDS, entity_keys={"left": "int"}), numbers),
    )
    with pytest.raises(UsageError, match="'left' is int in of_words and string in of_pairs"):
        made.diff()


@pytest.mark.parametrize("kind", ["bigquery", "snowflake"])
def test_tables_of_a_warehouse_are_registered_as_its_own(
    server: Redis, tmp_path: Path, kind: Literal["bigquery", "snowflake"]
) -> None:
    stores = stores_of(server, tmp_path, offline=WarehouseTables(kind, "acme", "shop"))
    assert FeastRepository(stores, catalog_of(KINDS)).apply().items
    again = FeastRepository(stores, catalog_of(KINDS))
    assert again.diff().lines == ()
    (view,) = again.store.registry.list_feature_views(stores.project)
    table = view.batch_source.get_table_query_string()
    assert table.replace('"', "").strip("`") == f"acme.shop.{KINDS.source.table}"
    source = {**KINDS.source.model_dump(), "table": "elsewhere.facts"}
    moved = FeastRepository(stores, catalog_of(changed(KINDS, source=source))).diff()
    (change,) = moved.lines
    assert change.startswith("-/+ every_kind: table: ")
    assert "acme.elsewhere.facts" in change.replace('"', "")
