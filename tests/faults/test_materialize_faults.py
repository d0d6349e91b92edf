"""`lodestar features materialize`, killed at any moment and run again, in both layouts of Redis."""

import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Lodestar
from tests.redis_places import Redis, one_redis

from lodestar.factory.environment import EnvironmentFactory
from lodestar.interface.features import OnlineStore, TimeRange
from lodestar.settings.features import FeatureView
from lodestar.settings.loading import load_config
from lodestar.testing.online import every_feature_of

pytestmark = pytest.mark.faults
TEAM = {"APP_ENV": "team"}
ENTITIES, VERSIONS = 40_000, 3
LAST = datetime(2025, 3, 30, 12, tzinfo=UTC)
UNTIL = ("--until", "2025-03-30T12:00:00")
NAMESPACES = ("early", "later")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    with one_redis(tmp_path / "redis") as found:
        yield found


@pytest.fixture(params=["feast", "redis"])
def project(
    request: pytest.FixtureRequest, lodestar: Lodestar, server: Redis, tmp_path: Path
) -> Path:
    """Two namespaces in files, one of which arrived late in part; Redis by way of Feast and without."""
    made = tmp_path / "project"
    for folder in ("config", "features", "data"):
        (made / folder).mkdir(parents=True)
    base = Path(__file__).parents[2] / "config" / "base.yaml"
    (made / "config" / "base.yaml").write_text(base.read_text())
    (made / "config" / "team.yaml").write_text(
        "environment: {augmenter: feature_store, serving: allowed}\n"
        "feature_store:\n"
        f"  provider: {request.param}\n"
        "  offline: files\n"
        "  feast: {project: shop, registry: 'sqlite:///registry.db'}\n"
        f"  redis: {{uri: '{server.uri}', timeout: 10.0}}\n"
    )
    for number, name in enumerate(NAMESPACES):
        (made / "features" / f"{name}.yaml").write_text(
            f"namespace: {name}\nentity_keys: {{user_id: int}}\nttl: 30d\n"
            f"source: {{table: {name}, created_col: created}}\n"
            f"features: {{{name}_visits: int, {name}_name: string}}\n"
        )
        pq.write_table(versions(name, number), made / "data" / f"{name}.parquet")
    if request.param == "feast":
        lodestar("features", "apply", cwd=made, env=TEAM).succeeded()
    return made


def versions(name: str, seed: int) -> pa.Table:
    """Three versions per user: of the last hours, older than the ttl, and some not yet arrived."""
    draw = np.random.default_rng(seed)
    rows = ENTITIES * VERSIONS
    last = int(LAST.timestamp()) * 1_000_000
    event = last - draw.integers(0, 40 * 86_400 * 1_000_000, rows)
    created = event + draw.integers(0, 86_400 * 1_000_000, rows)
    visits = draw.integers(0, 1_000_000, rows)
    stamp = pa.timestamp("us", "UTC")
    return pa.table(
        {
            "user_id": np.tile(np.arange(ENTITIES), VERSIONS),
            "event_timestamp": pa.array(event).cast(stamp),
            "created": pa.array(created).cast(stamp),
            f"{name}_visits": pa.array(visits, mask=visits % 17 == 0),
            f"{name}_name": pa.array([f"n{number % 97}" for number in visits]),
        }
    )


@pytest.mark.parametrize("share", [0.2, 1.4])
def test_a_killed_materialisation_resumes_to_the_offline_answer_of_every_key(
    lodestar: Lodestar, project: Path, server: Redis, share: float
) -> None:
    """Killed within the first namespace, and within the second when the first is whole."""
    factory = EnvironmentFactory(load_config(project, "team", variables={}))
    store, views = the_store(factory), [factory.features.view(name) for name in NAMESPACES]
    whole, broken = int(share), views[int(share)]
    process = lodestar.start("features", "materialize", *UNTIL, cwd=project, env=TEAM)
    for view in views[:whole]:
        reached(partial(is_written, store, view))
    due = written(server) + share % 1 * ENTITIES
    reached(lambda: written(server) > due)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    assert [store.watermark(view) is not None for view in views[: whole + 1]] == [True] * whole + [
        False
    ]
    assert 0 < len(online(store, broken)) < len(offline(factory, broken))
    for _ in range(2):
        lodestar("features", "materialize", *UNTIL, cwd=project, env=TEAM).succeeded()
        for view in views:
            assert online(store, view) == offline(factory, view)
            assert store.watermark(view) == LAST


def the_store(factory: EnvironmentFactory) -> OnlineStore:
    found = factory.online_store()
    assert found is not None
    return found


def written(server: Redis) -> int:
    """How many rows Redis was told to keep."""
    told = server.client().info("commandstats")
    return int(told.get("cmdstat_evalsha", {}).get("calls", 0))


def is_written(store: OnlineStore, view: FeatureView) -> bool:
    return store.watermark(view) is not None


def reached(goal: Callable[[], bool]) -> None:
    """Wait; importing Feast alone takes seconds."""
    ends = time.monotonic() + 120
    while not goal():
        assert time.monotonic() < ends
        time.sleep(0.01)


def online(store: OnlineStore, view: FeatureView) -> dict[int, tuple[object, ...]]:
    """What the store knows of every user."""
    keys = pa.record_batch({"user_id": np.arange(ENTITIES)})
    found = store.read(keys, every_feature_of(view))
    known = found.event_times[view.namespace].is_valid().to_pylist()
    rows = zip(*(column.to_pylist() for column in found.features.columns), strict=True)
    return {user: row for user, (row, there) in enumerate(zip(rows, known, strict=True)) if there}


def offline(factory: EnvironmentFactory, view: FeatureView) -> dict[int, tuple[object, ...]]:
    """What was known of every user at the end."""
    times = TimeRange(LAST - timedelta(days=30), LAST)
    with factory.sources.tables().latest(view, times, known_by=LAST) as rows:
        table = rows.read_all()
    columns = [table.column(name).to_pylist() for name in view.features]
    return dict(zip(table["user_id"].to_pylist(), zip(*columns, strict=True), strict=True))
