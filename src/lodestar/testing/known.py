"""What was known when, in plain Python: slow, short, and what every engine's answers are held to."""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from lodestar.interface.features import SelectedFeatures
from lodestar.schema import ARROW_TYPES, TIMESTAMP
from lodestar.settings.features import FeatureView

__all__ = [
    "Case",
    "Stored",
    "a_case",
    "asking",
    "known_at",
    "known_to",
    "latest_known",
    "same_rows",
    "some_versions",
    "some_view",
]

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Stored:
    """A feature table: what is declared of it, and its rows."""

    view: FeatureView
    table: pa.Table


@dataclass(frozen=True)
class Case:
    """Feature tables and rows that ask for their features, as of `asked_at`."""

    stored: tuple[Stored, ...]
    spine: pa.Table
    selection: tuple[SelectedFeatures, ...]


def known_at(
    versions: Iterable[Mapping[str, Any]],
    entity: Mapping[str, Any],
    at: datetime,
    view: FeatureView,
) -> Mapping[str, Any] | None:
    """The version of an entity's features that counts at a time, if any; all times have a zone.

    Of the versions with `at - ttl <= event <= at` that had arrived (`created <= at`), the one with the
    latest event time counts; of equal ones the latest created; of those equal in both, the one with
    the greater values, feature by feature in the order declared (null is least, NaN greatest).
    """
    known = [version for version in versions if _counts(version, entity, at, view)]
    return max(known, key=lambda version: _standing(version, view), default=None)


def known_to(case: Case, *, timestamp: str = "asked_at") -> pa.Table:
    """The case's spine with its features, row by row."""
    rows = case.spine.to_pylist()
    columns = dict(zip(case.spine.column_names, case.spine.columns, strict=True))
    stored = {each.view.namespace: each.table.to_pylist() for each in case.stored}
    for selected in case.selection:
        view = selected.view
        found = [known_at(stored[view.namespace], row, row[timestamp], view) or {} for row in rows]
        for name in selected.features:
            kind = ARROW_TYPES[view.features[name].type]
            columns[name] = pa.array([version.get(name) for version in found], kind)
    return pa.table(columns)


def latest_known(
    stored: Stored, since: datetime | None, until: datetime, known_by: datetime
) -> list[Mapping[str, Any]]:
    """Per entity the last version with an event time in the range that had arrived by `known_by`."""
    view, created = stored.view, stored.view.source.created_col
    latest: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for version in stored.table.to_pylist():
        entity = tuple(version[key] for key in view.keys)
        event = version[view.source.timestamp_col]
        if None in entity or event is None or event > until or (since and event < since):
            continue
        if created and (version[created] is None or version[created] > known_by):
            continue
        rival = latest.get(entity)
        if rival is None or _standing(rival, view) < _standing(version, view):
            latest[entity] = version
    return list(latest.values())


def same_rows(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables hold the same values in the same order; NaN is NaN, -0.0 is not 0.0."""
    return one.column_names == other.column_names and repr(one.to_pylist()) == repr(
        other.to_pylist()
    )


def a_case(seed: int, *, empty_text: bool = True) -> Case:
    """Two small tables full of what goes wrong, the same for the same seed.

    Few entities, of one and of two key columns; few moments, so that times tie and meet the ttl's
    ends to the microsecond; late arrivals; restated values; nulls in keys, values and times; rows
    that are there twice; entities that one side alone has. `empty_text`: also "".
    """
    draw = random.Random(seed)  # noqa: S311 -- draws cases, no secrets
    texts = ["u1", "u2", "u|1", "1|u", None, *([""] * empty_text)]
    one, two = _one_key(draw), _two_keys(draw)
    stored = (
        Stored(
            one, pa.Table.from_pylist([_version(draw, one, texts) for _ in range(80)], _arrow(one))
        ),
        Stored(
            two, pa.Table.from_pylist([_version(draw, two, texts) for _ in range(80)], _arrow(two))
        ),
    )
    rows = [
        {
            **_entity(draw, one, texts),
            **_entity(draw, two, texts),
            "asked_at": _moment(draw),
            "row": number,
        }
        for number in range(60)
    ]
    schema = pa.schema(
        [
            ("user_id", pa.string()),
            ("left_id", pa.int64()),
            ("right_id", pa.int64()),
            ("asked_at", TIMESTAMP),
            ("row", pa.int64()),
        ]
    )
    selection = tuple(
        SelectedFeatures(each.view, tuple(draw.sample([*each.view.features], draw.randint(1, 2))))
        for each in stored
    )
    return Case(stored, pa.Table.from_pylist(rows, schema), selection)


def some_view(**changes: Any) -> FeatureView:  # noqa: ANN401 -- any field of a declaration
    """Declare users' points and city, from the table `user_facts`, with arrival times, for 30 days."""
    declared = {
        "namespace": "user",
        "entity_keys": {"user_id": "string"},
        "source": {"table": "user_facts", "created_col": "created_timestamp"},
        "ttl": timedelta(days=30),
        "features": {"points": "int", "city": "string"},
    }
    return FeatureView.model_validate(declared | changes)


def some_versions(rows: Sequence[tuple[Any, ...]], **changes: Any) -> Stored:  # noqa: ANN401 -- as some_view
    """Make rows of (user, event time, created, points); the city follows from the points."""
    users, events, created, points = zip(*rows, strict=True) if rows else ((), (), (), ())
    columns = {
        "user_id": pa.array(users, pa.string()),
        "event_timestamp": pa.array(events, TIMESTAMP),
        "created_timestamp": pa.array(created, TIMESTAMP),
        "points": pa.array(points, pa.int64()),
        "city": pa.array([f"city {number}" for number in points], pa.string()),
    }
    return Stored(some_view(**changes), pa.table(columns))


def asking(*asked: tuple[str | None, datetime]) -> pa.Table:
    """Make a spine of (user, asked_at)."""
    users, times = zip(*asked, strict=True) if asked else ((), ())
    return pa.table(
        {"user_id": pa.array(users, pa.string()), "asked_at": pa.array(times, TIMESTAMP)}
    )


_TTL = timedelta(hours=2)
_SHARE_UNKNOWN = 0.05


def _counts(
    version: Mapping[str, Any], entity: Mapping[str, Any], at: datetime, view: FeatureView
) -> bool:
    source = view.source
    if any(version[key] is None or version[key] != entity[key] for key in view.keys):
        return False
    event = version[source.timestamp_col]
    if event is None or event > at or (view.ttl is not None and at - event > view.ttl):
        return False
    created = event if source.created_col is None else version[source.created_col]
    return created is not None and created <= at


def _standing(version: Mapping[str, Any], view: FeatureView) -> tuple[Any, ...]:
    source = view.source
    times = [version[name] for name in (source.timestamp_col, source.created_col) if name]
    return (*times, *(_rank(version[name]) for name in view.features))


def _rank(value: Any) -> tuple[Any, ...]:  # noqa: ANN401 -- any feature's value
    if value is None:
        return (0,)
    if isinstance(value, float):
        unknown = math.isnan(value)
        return (1, unknown, 0.0 if unknown else value, math.copysign(1.0, value) * (not unknown))
    return (1, value)


def _one_key(draw: random.Random) -> FeatureView:
    return FeatureView.model_validate(
        {
            "namespace": "user",
            "entity_keys": {"user_id": "string"},
            "source": {"table": "user_facts", "created_col": draw.choice([None, "created"])},
            "ttl": draw.choice([None, _TTL]),
            "features": {"age": "float", "score": "float", "note": "string"},
        }
    )


def _two_keys(draw: random.Random) -> FeatureView:
    return FeatureView.model_validate(
        {
            "namespace": "pair",
            "entity_keys": {"left_id": "int", "right_id": "int"},
            "source": {"table": "pair_facts", "created_col": "created"},
            "ttl": draw.choice([None, _TTL]),
            "features": {"seen": "int", "good": "bool", "since": "timestamp"},
        }
    )


def _arrow(view: FeatureView) -> pa.Schema:
    source = view.source
    times = source.times
    kinds: dict[str, str] = {**view.entity_keys, **dict.fromkeys(times, "timestamp")}
    kinds |= {name: feature.type for name, feature in view.features.items()}
    return pa.schema([(name, ARROW_TYPES[kind]) for name, kind in kinds.items()])


def _moment(draw: random.Random) -> datetime:
    return NOON + timedelta(hours=draw.randint(-3, 3), microseconds=draw.choice([-1, 0, 0, 0, 1]))


def _entity(draw: random.Random, view: FeatureView, texts: Sequence[str | None]) -> dict[str, Any]:
    return {
        key: draw.choice(texts if kind == "string" else [1, 11, 111, -1, None])
        for key, kind in view.entity_keys.items()
    }


def _version(draw: random.Random, view: FeatureView, texts: Sequence[str | None]) -> dict[str, Any]:
    event, created = view.source.timestamp_col, view.source.created_col
    values: dict[str, Sequence[Any]] = {
        "string": texts,
        "float": [0.5, 0.0, -1.5, math.nan, None],
        "int": [1, 2, None],
        "bool": [True, False, None],
        "timestamp": [NOON, NOON + _TTL, None],
    }
    happened = None if draw.random() < _SHARE_UNKNOWN else _moment(draw)
    arrived = None if draw.random() < _SHARE_UNKNOWN else (happened or NOON) + draw.choice(_LAGS)
    return {
        **_entity(draw, view, texts),
        event: happened,
        **({created: arrived} if created else {}),
        **{name: draw.choice(values[each.type]) for name, each in view.features.items()},
    }


_LAGS = [
    timedelta(),
    timedelta(),
    timedelta(microseconds=1),
    timedelta(hours=1),
    timedelta(hours=4),
]
