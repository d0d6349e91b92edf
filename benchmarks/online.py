"""Reading online, one row and 64 at a time: 9 features of 4 namespaces, for keys that requests bring.

The same values lie in one Redis in both layouts, ours and Feast's. Compared are our two stores, their
readers on an event loop (uvloop), Feast's own `get_online_features`, and for each layout the limit: one
bare pipelined round trip of redis-py for the same keys, whose answers nobody parses. All ways answer
each key, in random order.
"""

import argparse
import asyncio
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import redis
import uvloop
from measure import ROOT, end_tidily, print_machine, print_table, print_verdict
from pydantic import SecretStr

from lodestar.adapters.feast.layout import entity_key, event_field, feature_field
from lodestar.adapters.feast.repository import FeastOnlineStore, FeastRepository, FeastStores
from lodestar.adapters.redis.provider import RedisConnection, RedisOnlineStore
from lodestar.infra.endpoint import HOST, free_port
from lodestar.infra.programs import redis_program
from lodestar.interface.features import OnlineReader, OnlineRows, SelectedFeatures
from lodestar.settings.features import FeatureView, load_features
from lodestar.testing.online_reader import as_rows

SEED = 20_250_713
ENTITIES, READS, QUICK = 10_000, 5_000, 500
TOGETHER = 64  # rows of a micro-batch
CHECKED = 300
NOON = datetime(2025, 3, 30, 12, tzinfo=UTC)
PASSWORD = "benchmark"  # noqa: S105 -- of a server that ends with this script
DIRECT, DIRECT_LIMIT = "ours, direct Redis", "bare round trip, 1 MGET"
OURS_FEAST, FEAST_LIMIT = "ours, Feast's layout", "bare round trip, 3 HMGET"
DIRECT_LOOP, FEAST_LOOP = "ours, direct Redis, event loop", "ours, Feast's layout, event loop"
FEAST = "feast.get_online_features"


@dataclass(frozen=True)
class Way:
    """How entities become a request, which is not timed, and how that is answered."""

    request: Callable[[Sequence[str]], Any]
    answer: Callable[[Any], Any]
    awaited: bool = False


@dataclass(frozen=True)
class Bench:
    """Both stores, filled with the same rows, their readers, and Feast's own object."""

    direct: RedisOnlineStore
    feast: FeastOnlineStore
    direct_reader: OnlineReader
    feast_reader: OnlineReader
    repository: FeastRepository
    client: Any
    selection: list[SelectedFeatures]

    @property
    def key_names(self) -> list[str]:
        return sorted({key for one in self.selection for key in one.view.keys})

    def keys(self, entities: Sequence[str]) -> pa.RecordBatch:
        return pa.record_batch(dict.fromkeys(self.key_names, entities))


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="fewer reads")
    reads = QUICK if options.parse_args().quick else READS
    end_tidily()
    print_machine()
    with tempfile.TemporaryDirectory(prefix="lodestar-bench-") as name, _redis(Path(name)) as port:
        bench = _filled(Path(name), port)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_check(bench))
            for rows, turns in ((1, reads), (TOGETHER, reads // 10)):
                _report(runner.run(timed(_ways(bench), turns, rows)), turns, rows)


@contextmanager
def _redis(folder: Path) -> Iterator[int]:
    port = free_port()
    words = f"--port {port} --bind {HOST} --requirepass {PASSWORD} --dir {folder} --appendonly no"
    server = subprocess.Popen([str(redis_program()), *words.split()], stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(host=HOST, port=port, password=PASSWORD)
        for _ in range(100):
            try:
                client.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.1)
        yield port
    finally:
        server.kill()
        server.wait()


def _filled(folder: Path, port: int) -> Bench:
    catalog = load_features(ROOT)
    connection = RedisConnection(SecretStr(f"redis://:{PASSWORD}@{HOST}:{port}/0"), timeout=10)
    registry = SecretStr(f"sqlite:///{folder / 'registry.db'}")
    repository = FeastRepository(FeastStores("shop", registry, folder, connection), catalog)
    repository.apply()
    direct, feast = RedisOnlineStore(connection), FeastOnlineStore(repository)
    draw = random.Random(SEED)  # noqa: S311 -- made-up values
    for view in catalog.views.values():
        rows = rows_of(view, draw)
        for store in (direct, feast):
            store.write(view, iter([rows]))
            store.set_watermark(view, NOON)
    client = redis.Redis(host=HOST, port=port, password=PASSWORD)
    selection = [SelectedFeatures(view, tuple(view.features)) for view in catalog.views.values()]
    readers = direct.reader(selection), feast.reader(selection)
    return Bench(direct, feast, *readers, repository, client, selection)


def rows_of(view: FeatureView, draw: random.Random, entities: int = ENTITIES) -> pa.RecordBatch:
    """Made-up values of so many entities."""
    values: dict[str, Callable[[], object]] = {
        "int": lambda: draw.randrange(100),
        "float": lambda: round(draw.uniform(0, 500), 2),
        "string": lambda: draw.choice(("DE", "garden tools", "Ünlü")),
    }
    times = pa.array(
        [NOON - timedelta(seconds=n) for n in range(entities)], pa.timestamp("us", "UTC")
    )
    columns: dict[str, Any] = {key: [f"id_{n:06d}" for n in range(entities)] for key in view.keys}
    columns[view.source.timestamp_col] = times
    if view.source.created_col:
        columns[view.source.created_col] = times
    for name, feature in view.features.items():
        columns[name] = [values[feature.type]() for _ in range(entities)]
    return pa.record_batch(columns)


def _ways(bench: Bench) -> dict[str, Way]:
    names = [f"{one.view.namespace}:{name}" for one in bench.selection for name in one.features]
    feast = bench.repository.store
    width = len(bench.direct_reader.keys)

    def tuples(entities: Sequence[str]) -> list[tuple[str, ...]]:
        return [(entity,) * width for entity in entities]

    return {
        DIRECT: Way(bench.keys, lambda keys: bench.direct.read(keys, bench.selection)),
        DIRECT_LOOP: Way(tuples, bench.direct_reader.read, awaited=True),
        DIRECT_LIMIT: Way(
            lambda entities: [("MGET", *[k for e in entities for k in _direct_keys(bench, e)])],
            lambda commands: _bare(bench, commands),
        ),
        OURS_FEAST: Way(bench.keys, lambda keys: bench.feast.read(keys, bench.selection)),
        FEAST_LOOP: Way(tuples, bench.feast_reader.read, awaited=True),
        FEAST_LIMIT: Way(
            lambda entities: [one for entity in entities for one in _feast_commands(bench, entity)],
            lambda commands: _bare(bench, commands),
        ),
        FEAST: Way(
            lambda entities: [dict.fromkeys(bench.key_names, entity) for entity in entities],
            lambda rows: feast.get_online_features(names, rows),
        ),
    }


def _bare(bench: Bench, commands: Sequence[Sequence[Any]]) -> list[Any]:
    with bench.client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        return list(pipe.execute())


def _direct_keys(bench: Bench, entity: str) -> list[str]:
    return [
        f"{one.view.namespace}:{name}:{entity}"
        for one in bench.selection
        for name in ("@event_time", *one.features)
    ]


def _feast_commands(bench: Bench, entity: str) -> list[tuple[Any, ...]]:
    by_key: dict[bytes, list[bytes]] = {}
    for one in bench.selection:
        key = entity_key(one.view, (entity,) * len(one.view.keys), "shop")
        fields = [event_field(one.view), *[feature_field(one.view, name) for name in one.features]]
        by_key.setdefault(key, []).extend(fields)
    return [("HMGET", key, *fields) for key, fields in by_key.items()]


async def _check(bench: Bench) -> None:
    """All ways must give the same values, bit by bit; an unknown entity is nothing to any."""
    ways = _ways(bench)
    for entity in [*[f"id_{n:06d}" for n in range(CHECKED)], "nobody"]:
        said = {name: await answered(way, way.request([entity])) for name, way in ways.items()}
        ours: OnlineRows = said[DIRECT]
        by_feast_layout: OnlineRows = said[OURS_FEAST]
        theirs = said[FEAST].to_dict()
        values = ours.features.to_pydict()
        if values != by_feast_layout.features.to_pydict() or values != {
            name: theirs[name] for name in values
        }:
            raise RuntimeError(f"the ways disagree about {entity}")
        if ours.event_times != by_feast_layout.event_times:
            raise RuntimeError(f"the event times of {entity} differ")
        keys = bench.direct_reader.keys
        rows = as_rows(bench.direct, bench.selection, keys, [(entity,) * len(keys)])
        if said[DIRECT_LOOP] != rows or said[FEAST_LOOP] != rows:
            raise RuntimeError(f"the readers disagree with the stores about {entity}")
    print(f"values and event times of {CHECKED} entities and an unknown one are equal in all ways")


async def answered(way: Way, request: object) -> Any:  # noqa: ANN401 -- whatever the way gives
    """What a way says."""
    answer = way.answer(request)
    return await answer if way.awaited else answer


async def timed(
    ways: Mapping[str, Way], turns: int, rows: int, entities: int = ENTITIES
) -> dict[str, list[float]]:
    """Seconds of each way's answers; all ways answer each key, in random order."""
    draw = random.Random(SEED + rows)  # noqa: S311 -- which entities are asked for
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-200 // rows, turns):
        asked = [f"id_{draw.randrange(entities):06d}" for _ in range(rows)]
        # What ran before leaves the processor's caches warm or cold, so that is drawn as well.
        for name, way in draw.sample(list(ways.items()), len(ways)):
            request = way.request(asked)
            began = time.perf_counter()
            answer = way.answer(request)
            if way.awaited:
                await answer
            if turn >= 0:
                taken[name].append(time.perf_counter() - began)
    return taken


def _report(taken: Mapping[str, Sequence[float]], turns: int, rows: int) -> None:
    middle = {name: statistics.median(times) * 1e6 for name, times in taken.items()}
    print_table(
        f"Rows at a time: {rows}; 9 features of 4 namespaces, {turns} reads each, µs",
        ("way", "p50", "p99", "per row", "÷ Feast"),
        [
            (
                name,
                f"{middle[name]:.0f}",
                f"{statistics.quantiles(times, n=100)[98] * 1e6:.0f}",
                f"{middle[name] / rows:.1f}",
                f"{middle[name] / middle[FEAST]:.2f}",
            )
            for name, times in taken.items()
        ],
    )
    pairs = [(DIRECT, DIRECT_LIMIT), (OURS_FEAST, FEAST_LIMIT)] if rows == 1 else []
    pairs += [(DIRECT_LOOP, DIRECT_LIMIT), (FEAST_LOOP, FEAST_LIMIT)]
    for ours, limit in pairs:
        print_verdict(f"p50 of {ours} ÷ Feast", middle[ours] / middle[FEAST], 0.5, least=False)
        print_verdict(f"p50 of {ours} ÷ {limit}", middle[ours] / middle[limit], 2, least=False)


if __name__ == "__main__":
    main()
