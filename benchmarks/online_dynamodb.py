"""Reading online from DynamoDB, one row and 25 at a time: 9 features of 4 namespaces.

The same values lie in one DynamoDB, moto's server in a process of its own, in both layouts, ours and
Feast's. Compared are our stores, our reader on an event loop (uvloop), Feast's own
`get_online_features`, and the limit: one bare BatchGetItem of boto3 for the same items, whose answer
nobody parses. moto takes milliseconds for what AWS answers in one: the figures are of the client's work
and its round trips, and not of AWS.
"""

import argparse
import asyncio
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import boto3
import pyarrow as pa
import uvloop
from measure import ROOT, end_tidily, print_machine, print_table, print_verdict
from online import NOON, SEED, Way, answered, rows_of, timed
from pydantic import SecretStr

from lodestar.adapters.dynamodb.provider import DynamoDBOnlineStore
from lodestar.adapters.feast.repository import FeastOnlineStore, FeastRepository, FeastStores
from lodestar.infra.endpoint import HOST, free_port
from lodestar.interface.features import OnlineReader, SelectedFeatures
from lodestar.settings.dynamodb import DynamoDBStore
from lodestar.settings.features import load_features
from lodestar.testing.online_reader import as_rows

ENTITIES, READS, QUICK = 1_000, 600, 60
TOGETHER = 25  # rows whose items are one BatchGetItem
WRITTEN = 1_000
CHECKED = 50
REGION = "eu-central-1"
DIRECT, LOOP, LIMIT = "ours, store", "ours, event loop", "bare BatchGetItem"
FEAST_LOOP, FEAST = "ours, Feast's layout, event loop", "feast.get_online_features"


@dataclass(frozen=True)
class Bench:
    """The stores, filled with the same rows, their readers, Feast's own object and a plain client."""

    direct: DynamoDBOnlineStore
    reader: OnlineReader
    feast_reader: OnlineReader
    repository: FeastRepository
    client: Any
    selection: list[SelectedFeatures]


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="fewer reads")
    reads = QUICK if options.parse_args().quick else READS
    end_tidily()
    print_machine()
    # Feast takes credentials from here alone; moto takes any.
    os.environ.update(AWS_ACCESS_KEY_ID="benchmark", AWS_SECRET_ACCESS_KEY="benchmark")  # noqa: S106 -- as above
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    with tempfile.TemporaryDirectory(prefix="lodestar-bench-") as name, _moto() as url:
        bench = _filled(Path(name), url)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_check(bench))
            for rows, turns in ((1, reads), (TOGETHER, reads // 5)):
                taken = runner.run(timed(_ways(bench), turns, rows, ENTITIES))
                _report(taken, turns, rows)
            for rows in (1, TOGETHER):
                _report_processor(runner, _ways(bench), max(20, reads // 5), rows)
        _writes(url)
        bench.repository.close()


@contextmanager
def _moto() -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://{HOST}:{port}"
    try:
        for _ in range(200):
            try:
                with urlopen(f"{url}/moto-api/", timeout=5):  # noqa: S310 -- of this machine
                    break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        server.kill()
        server.wait()


def _section(url: str, **values: Any) -> DynamoDBStore:  # noqa: ANN401 -- of the section
    given = {"region": REGION, "endpoint_url": url, "timeout": 30.0, "writes": "batch", **values}
    return DynamoDBStore.model_validate({**given, "tables": {"backups": False}})


def _filled(folder: Path, url: str) -> Bench:
    catalog = load_features(ROOT)
    registry = SecretStr(f"sqlite:///{folder / 'registry.db'}")
    stores = FeastStores("shop", registry, folder, _section(url, table_prefix="feast."))
    repository = FeastRepository(stores, catalog)
    repository.apply()
    direct, feast = DynamoDBOnlineStore(_section(url)), FeastOnlineStore(repository)
    draw = random.Random(SEED)  # noqa: S311 -- made-up values
    for view in catalog.views.values():
        rows = rows_of(view, draw, ENTITIES)
        for store in (direct, feast):
            store.write(view, iter([rows]))
            store.set_watermark(view, NOON)
    client = boto3.client("dynamodb", region_name=REGION, endpoint_url=url)
    selection = [SelectedFeatures(view, tuple(view.features)) for view in catalog.views.values()]
    readers = direct.reader(selection), feast.reader(selection)
    return Bench(direct, *readers, repository, client, selection)


def _ways(bench: Bench) -> dict[str, Way]:
    names = [f"{one.view.namespace}:{name}" for one in bench.selection for name in one.features]
    feast = bench.repository.store
    keys = bench.reader.keys

    def tuples(entities: Sequence[str]) -> list[tuple[str, ...]]:
        return [(entity,) * len(keys) for entity in entities]

    return {
        DIRECT: Way(
            lambda entities: pa.record_batch(dict.fromkeys(keys, entities)),
            lambda batch: bench.direct.read(batch, bench.selection),
        ),
        LOOP: Way(tuples, bench.reader.read, awaited=True),
        LIMIT: Way(
            lambda entities: _items_of(bench, entities),
            lambda items: bench.client.batch_get_item(RequestItems=items),
        ),
        FEAST_LOOP: Way(tuples, bench.feast_reader.read, awaited=True),
        FEAST: Way(
            lambda entities: [dict.fromkeys(keys, entity) for entity in entities],
            lambda rows: feast.get_online_features(names, rows),
        ),
    }


def _items_of(bench: Bench, entities: Sequence[str]) -> dict[str, Any]:
    found = {}
    for one in bench.selection:
        texts = {":".join([entity] * len(one.view.keys)) for entity in entities}
        keys = [{"@entity": {"S": text}} for text in texts]
        found[f"lodestar.{one.view.namespace}"] = {"Keys": keys}
    return found


async def _check(bench: Bench) -> None:
    """All ways must give the same values, bit by bit; an unknown entity is nothing to any."""
    ways = _ways(bench)
    keys = bench.reader.keys
    for entity in [*[f"id_{n:06d}" for n in range(CHECKED)], "nobody"]:
        said = {name: await answered(way, way.request([entity])) for name, way in ways.items()}
        values = said[DIRECT].features.to_pydict()
        theirs = said[FEAST].to_dict()
        if values != {name: theirs[name] for name in values}:
            raise RuntimeError(f"Feast and we disagree about {entity}")
        rows = as_rows(bench.direct, bench.selection, keys, [(entity,) * len(keys)])
        if said[LOOP] != rows or said[FEAST_LOOP] != rows:
            raise RuntimeError(f"the readers disagree with the store about {entity}")
    print(f"values of {CHECKED} entities and an unknown one are equal in all ways")


def _report(taken: Mapping[str, Sequence[float]], turns: int, rows: int) -> None:
    middle = {name: statistics.median(times) * 1e3 for name, times in taken.items()}
    print_table(
        f"Rows at a time: {rows}; 9 features of 4 namespaces, {turns} reads each, ms",
        ("way", "p50", "p95", "÷ Feast", "÷ bare"),
        [
            (
                name,
                f"{middle[name]:.2f}",
                f"{statistics.quantiles(times, n=20)[18] * 1e3:.2f}",
                f"{middle[name] / middle[FEAST]:.2f}",
                f"{middle[name] / middle[LIMIT]:.2f}",
            )
            for name, times in taken.items()
        ],
    )
    ratio = middle[LOOP] / middle[LIMIT]
    print_verdict(f"p50 of {LOOP} ÷ {LIMIT}", ratio, 1.5, least=False)


def _report_processor(
    runner: asyncio.Runner, ways: Mapping[str, Way], turns: int, rows: int
) -> None:
    """What a read costs this process, without moto's own work."""

    async def spent(way: Way) -> float:
        requests = [
            way.request([f"id_{(turn * rows + n) % ENTITIES:06d}" for n in range(rows)])
            for turn in range(turns)
        ]
        began = _processor()
        for request in requests:
            await answered(way, request)
        return (_processor() - began) / turns * 1e3

    costs: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(5):
        for name, way in ways.items():
            costs[name].append(runner.run(spent(way)))
    middle = {name: statistics.median(each) for name, each in costs.items()}
    print_table(
        f"Rows at a time: {rows}; processor time of the client for one read, ms",
        ("way", "ms", "÷ Feast", "÷ bare"),
        [
            (
                name,
                f"{cost:.2f}",
                f"{cost / middle[FEAST]:.2f}",
                f"{cost / middle[LIMIT]:.2f}",
            )
            for name, cost in middle.items()
        ],
    )
    for ours in (LOOP, FEAST_LOOP):
        ratio = middle[ours] / middle[FEAST]
        print_verdict(f"processor time of {ours} ÷ Feast", ratio, 0.5, least=False)


def _writes(url: str) -> None:
    """Rows per second of each way to write, and the processor time that a row costs the client."""
    view = next(iter(load_features(ROOT).views.values()))
    rows = rows_of(view, random.Random(SEED), WRITTEN)  # noqa: S311 -- made-up values
    found = []
    for writes in ("conditional", "batch"):
        store = DynamoDBOnlineStore(_section(url, table_prefix=f"{writes}.", writes=writes))
        store.write(view, iter([rows.slice(0, 10)]))
        began, spent = time.perf_counter(), _processor()
        store.write(view, iter([rows]))
        wall, processor = time.perf_counter() - began, _processor() - spent
        found.append((writes, f"{WRITTEN / wall:,.0f}", f"{processor / WRITTEN * 1e6:,.0f}"))
        store.close()
    print_table(
        f"Writing {WRITTEN:,} rows of {view.namespace}",
        ("writes", "rows/s to moto", "client's processor time per row, µs"),
        found,
    )


def _processor() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
