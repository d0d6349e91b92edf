"""A batch at a time and a request at that time see the same features, whatever the policies say."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
from hypothesis import event, given, settings
from tests.examples import examples

from lodestar.adapters.joins.point_in_time import PointInTimeJoin
from lodestar.adapters.online.threaded_reader import ThreadedReader
from lodestar.core.augmenter import Augmenter, RunMode
from lodestar.core.feature_store import ComposedFeatureStore
from lodestar.core.features import select_features
from lodestar.core.policies import RowPolicies, SettledRow
from lodestar.errors import DataError
from lodestar.interface.features import TimeRange
from lodestar.schema import TIMESTAMP, Column, FrameSchema
from lodestar.settings.features import FeatureCatalog, FeatureView
from lodestar.settings.selection import FeatureSelection
from lodestar.testing.online import MemoryOnlineStore

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
# Ages around each other's limits, to the microsecond.
LIMITS = ("3s", "10s", "1us", "20s", "36500000d")
AGES = [
    timedelta(seconds=seconds, microseconds=micros)
    for seconds in (0, 3, 10, 20)
    for micros in (-1, 0, 1)
    if (seconds, micros) != (0, -1)
]
KINDS = {
    "int": (pa.int64(), st.sampled_from([None, 0, 7, 2**53 + 1])),
    "float": (pa.float64(), st.sampled_from([None, math.nan, 0.0, -0.0, 1.5])),
    "string": (pa.string(), st.sampled_from([None, "", "a"])),
    "bool": (pa.bool_(), st.sampled_from([None, True, False])),
    "timestamp": (TIMESTAMP, st.sampled_from([None, EPOCH, NOW])),
}
STAND_INS: dict[str, Any] = {
    "int": -1,
    "float": 2,
    "string": "?",
    "bool": False,
    "timestamp": "2000-01-01T00:00:00+09:00",
}


@dataclass(frozen=True)
class World:
    """Declarations, the versions of each entity, what a recipe selects, and what training saw."""

    views: tuple[FeatureView, ...]
    tables: dict[str, pa.Table]
    selection: list[dict[str, Any]]
    trained: FrameSchema | None
    asked: list[tuple[str | None, int | None]]

    def versions(
        self, view: FeatureView, features: Sequence[str], times: TimeRange
    ) -> pa.RecordBatchReader:
        """As the port `FeatureTables` says; which times are asked for does not matter here."""
        del times
        keys = [*view.keys, view.source.timestamp_col]
        found: pa.RecordBatchReader = (
            self.tables[view.namespace].select([*keys, *features]).to_reader()
        )
        return found

    def latest(
        self, view: FeatureView, times: TimeRange, *, known_by: datetime
    ) -> pa.RecordBatchReader:
        raise NotImplementedError

    @property
    def spine(self) -> pa.Table:
        return pa.table(
            {
                "user_id": pa.array([user for user, _ in self.asked], pa.string()),
                "shop_id": pa.array([shop for _, shop in self.asked], pa.int64()),
                "at": pa.array([NOW] * len(self.asked), TIMESTAMP),
            }
        )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    views, tables, selection, columns = [], {}, [], []
    for namespace, key, kind, entities in (
        ("users", "user_id", "string", ["a", "b"]),
        ("shops", "shop_id", "int", [1, 2]),
    ):
        kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3))
        features = {f"{namespace}_{place}": one for place, one in enumerate(kinds)}
        view = FeatureView.model_validate(
            {
                "namespace": namespace,
                "entity_keys": {key: kind},
                "source": {"table": namespace},
                "ttl": draw(st.sampled_from([None, *LIMITS])),
                "features": features,
            }
        )
        rows = []
        for entity in entities:
            ages = draw(st.lists(st.sampled_from([*AGES, -MICROSECOND]), max_size=3, unique=True))
            for age in ages:
                values = {name: draw(KINDS[one][1]) for name, one in features.items()}
                rows.append({key: entity, "event_timestamp": NOW - age, **values})
        schema = pa.schema(
            [
                (key, pa.string() if kind == "string" else pa.int64()),
                ("event_timestamp", TIMESTAMP),
                *((name, KINDS[one][0]) for name, one in features.items()),
            ]
        )
        names = draw(st.permutations(sorted(features)))
        policies = {name: draw(rules(features[name])) for name in names}
        views.append(view)
        tables[namespace] = pa.Table.from_pylist(rows, schema)
        selection.append({"feature_namespace": namespace, "features": names, "policies": policies})
        columns += [Column(name, features[name], draw(st.booleans())) for name in names]
    asked = draw(
        st.lists(
            st.tuples(st.sampled_from(["a", "b", "?", None]), st.sampled_from([1, 2, 3, None])),
            min_size=1,
            max_size=4,
        )
    )
    trained = draw(st.sampled_from([None, FrameSchema(tuple(columns))]))
    return World(tuple(views), tables, selection, trained, asked)


@st.composite
def rules(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    on_missing = draw(st.sampled_from(["as_trained", "null", "error", "value", "value"]))
    if on_missing != "as_trained":
        found["on_missing"] = STAND_INS[kind] if on_missing == "value" else on_missing
    age = draw(st.sampled_from([None, *LIMITS]))
    return found if age is None else {**found, "max_age": age}


def by_augmenter(world: World, run_mode: RunMode) -> tuple[list[str], dict[str, int]] | str:
    """The features' values, and how many were filled; or the first refused feature's name."""
    catalog = FeatureCatalog({view.namespace: view for view in world.views})
    store = ComposedFeatureStore(world, PointInTimeJoin(world), online(world))
    augmenter = Augmenter(world.selection, world.trained).bound(store, catalog, timestamp="at")
    filled: dict[str, int] = {}
    try:
        with augmenter.augment(
            world.spine.to_reader(), run_mode=run_mode, now=NOW, filled=filled
        ) as rows:
            table = rows.read_all()
    except DataError as error:
        return str(error.what).split("'")[1]
    assert table.column_names == ["user_id", "shop_id", "at", *augmenter.features]
    plain = [
        table[name].cast(pa.int64()) if table[name].type == TIMESTAMP else table[name]
        for name in augmenter.features
    ]
    values = zip(*[column.to_pylist() for column in plain], strict=True)
    return [repr(row) for row in values], filled


def by_rows(world: World) -> list[SettledRow]:
    catalog = FeatureCatalog({view.namespace: view for view in world.views})
    selected = select_features(
        catalog, [FeatureSelection.model_validate(item) for item in world.selection]
    )
    reader = ThreadedReader(online(world), selected, timeout=20.0)

    async def read() -> list[tuple[Any, ...]]:
        try:
            return await reader.read(world.asked)
        finally:
            await reader.close()

    assert reader.keys == ("user_id", "shop_id")
    policies = RowPolicies(world.selection, world.views, world.trained)
    now_us = (NOW - EPOCH) // MICROSECOND
    return [policies.settle(row, now_us) for row in asyncio.run(read())]


def online(world: World) -> MemoryOnlineStore:
    """What a materialisation up to now leaves there: each entity's latest version."""
    store = MemoryOnlineStore()
    for view in world.views:
        rows = world.tables[view.namespace].to_pylist()
        known = [row for row in rows if row["event_timestamp"] <= NOW]
        table = pa.Table.from_pylist(known, world.tables[view.namespace].schema)
        store.write(view, iter(table.to_batches()))
    return store


def by_hand(world: World) -> list[SettledRow]:
    """The rules once more, in plain Python over the versions themselves."""
    return [
        _settled(world, dict(zip(("users", "shops"), asked, strict=True))) for asked in world.asked
    ]


def _settled(world: World, asked: dict[str, Any]) -> SettledRow:
    values: list[Any] = []
    missing, stale, refused = [], [], []
    for view, item in zip(world.views, world.selection, strict=True):
        rows = [
            row
            for row in world.tables[view.namespace].to_pylist()
            if row[view.keys[0]] == asked[view.namespace] and row["event_timestamp"] <= NOW
        ]
        latest = max(rows, key=lambda row: row["event_timestamp"], default=None)
        if latest and view.ttl is not None and NOW - latest["event_timestamp"] > view.ttl:
            latest = None
        ages = FeatureSelection.model_validate(item).ages
        for name in item["features"]:
            kind = view.features[name].type
            late = bool(latest and name in ages and NOW - latest["event_timestamp"] > ages[name])
            value = None if latest is None or late else latest[name]
            rule = item["policies"][name].get("on_missing", "as_trained")
            nullable = world.trained is None or next(
                one.nullable for one in world.trained.columns if one.name == name
            )
            stays = rule in {"as_trained", "null"} and nullable
            empty = value is None or value != value  # noqa: PLR0124 -- NaN
            if empty and not (stays and latest and not late):
                missing.append(name)
                stale += [name] if late else []
                refused += (
                    [name] if rule == "error" or (not stays and rule != STAND_INS[kind]) else []
                )
                value = _stand_in(kind) if rule == STAND_INS[kind] else None
            values.append((value - EPOCH) // MICROSECOND if isinstance(value, datetime) else value)
    return SettledRow(tuple(values), tuple(missing), tuple(stale), tuple(refused))


def _stand_in(kind: str) -> Any:  # noqa: ANN401 -- of any kind
    given = STAND_INS[kind]
    if kind == "timestamp":
        return datetime.fromisoformat(given)
    return float(given) if kind == "float" else given


@settings(deadline=None, max_examples=examples(150))
@given(worlds())
def test_a_batch_a_request_and_plain_python_settle_the_same_values_at_the_same_time(
    world: World,
) -> None:
    expected = by_hand(world)
    rows = by_rows(world)
    assert repr(rows) == repr(expected)
    batch = by_augmenter(world, "batch")
    assert batch == by_augmenter(world, "serving")
    refused = [name for row in expected for name in row.refused]
    event("refused" if refused else "settled")
    if isinstance(batch, str):
        assert batch in refused
        return
    assert not refused
    values, filled = batch
    assert values == [repr(row.values) for row in expected]
    stood_in = {
        name: sum(name in row.missing for row in expected)
        for item in world.selection
        for name, policy in item["policies"].items()
        if policy.get("on_missing") not in {None, "null", "error"}
    }
    assert filled == {name: count for name, count in stood_in.items() if count}
