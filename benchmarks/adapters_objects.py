"""Rows in and out of object stores: ours against pandas with the same fsspec file system.

The stores are the emulators of the tests, on the same machine: what a way costs in processor time and
memory is its own, what it takes in seconds is the emulator's as well.
"""

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import (
    ROOT,
    Cost,
    compile_bytecode,
    end_tidily,
    interleaved,
    median,
    print_machine,
    print_table,
    print_verdict,
    run,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from tests.object_stores import Box

CHUNK = 32_768
MILLION = 1_000_000
DRIVERS = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}


@dataclass(frozen=True)
class Job:
    """What a child process does: one way, one direction, one object."""

    way: str
    rows: int
    uri: str
    sections: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, Any]

    def command(self) -> list[str]:
        """How it is started."""
        said = [self.way, self.rows, self.uri, self.sections, self.options]
        return [sys.executable, __file__, "--child", json.dumps(said)]


def main() -> None:
    """Measure every store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and rows")
    parser.add_argument("--store", choices=["s3", "gs", "az"], help="one store alone")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        _child(Job(*json.loads(given.child)))
        return
    sys.path.insert(0, str(ROOT))
    from tests.object_stores import AzureBox, GcsBox, S3Box, azurite, gcs_emulator, moto

    end_tidily()
    print_machine()
    compile_bytecode()
    stores = {"s3": (moto, S3Box), "gs": (gcs_emulator, GcsBox), "az": (azurite, AzureBox)}
    for name, (server, kind) in stores.items():
        if given.store in {None, name}:
            with server() as endpoint:
                box = kind(endpoint)
                box.make()
                _measure(box, MILLION // (20 if given.quick else 1), 1 if given.quick else 3)


def _measure(box: "Box", rows: int, repeats: int) -> None:
    folder = Path.cwd()
    options = _storage_options(box)

    def job(way: str, key: str, size: int = rows) -> Job:
        return Job(way, size, box.uri(key), box.sections(), options)

    def way(name: str, key: str, size: int = rows) -> Callable[[], Cost]:
        return partial(run, job(name, key, size).command(), folder)

    writes = interleaved(
        {
            "write: ours": way("write-ours", "ours.parquet"),
            "write: pandas": way("write-pandas", "pandas.parquet"),
        },
        repeats,
        warm_up=False,
    )
    for name in ("ours", "pandas"):
        run(job(f"write-{name}", f"{name}-5.parquet", 5 * rows).command(), folder)
    reads = interleaved(
        {
            "read: ours, whole": way("read-ours", "pandas.parquet"),
            "read: pandas": way("read-pandas", "pandas.parquet"),
            "read: ours, streamed": way("stream", "pandas.parquet"),
            "our object, streamed": way("stream", "ours.parquet"),
        },
        repeats,
        warm_up=False,
    )
    larger = {
        "5 × the rows, streamed": [way("stream", "pandas-5.parquet", 5 * rows)()],
        "our object, 5 × the rows": [way("stream", "ours-5.parquet", 5 * rows)()],
    }
    found = {**writes, **reads, **larger}
    middle = {name: median(costs) for name, costs in found.items()}
    seconds = {name: _seconds(costs) for name, costs in found.items()}
    lines = [
        [name, f"{seconds[name]:.2f}", f"{cost.cpu:.2f}", f"{cost.peak:,.0f}"]
        for name, cost in middle.items()
    ]
    title = f"{box.scheme}://, {rows:,} rows × 12 columns (9 numbers, 1 whole, 2 texts), parquet"
    print_table(title, ["way", "s of the transfer", "CPU s, whole process", "peak MB"], lines)
    for verb, ours, theirs in (
        ("writing", "write: ours", "write: pandas"),
        ("reading", "read: ours, whole", "read: pandas"),
    ):
        ratio = seconds[ours] / seconds[theirs]
        print_verdict(f"{verb}, our time over pandas'", ratio, 1.0, least=False)
        more = middle[ours].peak / middle[theirs].peak
        print_verdict(f"{verb}, our peak over pandas'", more, 1.0, least=False)
    for what, one, five in (
        ("pandas' object", "read: ours, streamed", "5 × the rows, streamed"),
        ("our object", "our object, streamed", "our object, 5 × the rows"),
    ):
        grown = middle[five].peak / middle[one].peak
        print_verdict(f"streaming {what}, peak with 5 × the rows", grown, 1.15, least=False)


def _seconds(costs: Sequence[Cost]) -> float:
    """The median of what the children timed themselves: imports and data apart."""
    found = sorted(float(cost.stdout) for cost in costs)
    return found[len(found) // 2]


def _storage_options(box: "Box") -> dict[str, Any]:
    """What pandas hands to fsspec for the same store."""
    section = next(iter(box.sections().values()))
    match box.scheme:
        case "s3":
            return {
                "key": section["access_key_id"],
                "secret": section["secret_access_key"],
                "client_kwargs": {
                    "endpoint_url": box.endpoint,
                    "region_name": section["region"],
                },
            }
        case "gs":
            return {"token": "anon", "endpoint_url": box.endpoint}
        case _:
            account, key = section["account"], section["account_key"]
            address = f"BlobEndpoint={box.endpoint};AccountName={account};AccountKey={key}"
            return {"connection_string": address}


def _child(job: Job) -> None:
    """Do the job and print the seconds of its transfer."""
    import os

    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # no emulator speaks it
    for package in ("pandas", "pyarrow.parquet", DRIVERS[job.uri.partition("://")[0]]):
        importlib.import_module(package)
    direction, _, name = job.way.partition("-")
    if direction == "write":
        seconds = _write_ours(job) if name == "ours" else _write_pandas(job)
    else:
        seconds = _read_pandas(job) if name == "pandas" else _read_ours(job)
    print(seconds, flush=True)
    os._exit(0)  # what libraries do at the end of a process is not the transfer's


def _write_ours(job: Job) -> float:
    from lodestar.adapters.registry import WRITERS, adapter

    table = _table(job.rows)
    made, data = adapter(WRITERS, job.uri.partition("://")[0], what="the URI scheme"), _data(job)
    began = time.perf_counter()
    writer = made(data, Path())
    with writer.sink(job.uri, table.schema) as sink:
        for batch in table.to_batches(max_chunksize=CHUNK):
            sink.write(batch)
    return time.perf_counter() - began


def _write_pandas(job: Job) -> float:
    frame = _table(job.rows).to_pandas()
    began = time.perf_counter()
    frame.to_parquet(job.uri, storage_options=dict(job.options))
    return time.perf_counter() - began


def _read_ours(job: Job) -> float:
    from lodestar.adapters.registry import URI_READERS, adapter

    made, data = (
        adapter(URI_READERS, job.uri.partition("://")[0], what="the URI scheme"),
        _data(job),
    )
    if job.way != "stream":
        importlib.import_module("pandas")  # to_pandas would import it while the clock runs
    began = time.perf_counter()
    reader = made(data, Path(), job.uri)
    stream = reader.read(chunk_rows=CHUNK)
    if job.way == "stream":
        rows = sum(batch.num_rows for batch in stream)
    else:
        rows = len(stream.read_all().to_pandas())
    seconds = time.perf_counter() - began
    _require(rows, job)
    return seconds


def _read_pandas(job: Job) -> float:
    import pandas as pd

    began = time.perf_counter()
    frame = pd.read_parquet(job.uri, storage_options=dict(job.options))
    seconds = time.perf_counter() - began
    _require(len(frame), job)
    return seconds


def _require(rows: int, job: Job) -> None:
    if rows != job.rows:
        raise RuntimeError(f"{job.way}: {rows:,} of {job.rows:,} rows")


def _data(job: Job) -> Any:  # noqa: ANN401 -- imported in the child alone
    from lodestar.settings.config import Data

    place = {"adapter": "duckdb", "root": "data", "snapshots": "data/snapshots"}
    return Data.model_validate({**place, **job.sections}, strict=False)


def _table(rows: int) -> "pa.Table":
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng(7)
    columns: dict[str, Any] = {"id": np.arange(rows)}
    columns |= {f"x{place}": rng.normal(size=rows) for place in range(9)}
    for name, words in (("city", 50), ("segment", 5)):
        values = pa.array([f"{name}-{word}" for word in range(words)])
        columns[name] = values.take(pa.array(rng.integers(0, words, rows)))
    return pa.table(columns)


if __name__ == "__main__":
    main()
