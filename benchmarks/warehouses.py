"""Rows in and out of Snowflake and BigQuery: ours against their client libraries' own way by pandas.

Reading is a query's rows, all of them once; ours in batches of 32,768, theirs as one frame. Writing is a
parquet file into a new table; ours in batches, theirs from one frame (`write_pandas`,
`load_table_from_dataframe`). Each way is one process.

The servers are the tests' emulators on this machine. So the figures say what the client's side costs, in
processor time and memory. They say nothing of how long the services take, or of networks. Both ways read
BigQuery by its Storage API.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from measure import (
    ROOT,
    Cost,
    compile_bytecode,
    interleaved,
    median,
    print_machine,
    print_table,
    print_verdict,
    run,
    workspace,
)

CHUNK = 32_768
WAREHOUSES = ("snowflake", "bigquery")
FLAT = 1.2


def main() -> None:
    """Prepare, measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="20,000 and 100,000 rows, one round")
    options.add_argument("--rows", type=int, nargs=2, default=[1_000_000, 5_000_000])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", choices=WAREHOUSES)
    options.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        CHILDREN[given.child[0]](*given.child[1:])
        return
    small, large = [20_000, 100_000] if given.quick else given.rows
    print_machine()
    compile_bytecode()
    for name in WAREHOUSES if given.only is None else (given.only,):
        with workspace() as folder, _served(name, folder):
            _measure(name, folder, small, large, rounds=1 if given.quick else given.rounds)


def _measure(name: str, folder: Path, small: int, large: int, *, rounds: int) -> None:
    def child(way: str, *words: object) -> Cost:
        return run(
            [sys.executable, "-W", "ignore", __file__, "--child", way, *map(str, words)], folder
        )

    for size in (small, large):
        child("make", size)
        child("fill", name, size)
    ways: dict[str, Callable[[], Cost]] = {
        f"{what}, {who}": partial(child, what, name, who, small)
        for what in ("read", "write")
        for who in ("ours", "pandas")
    }
    costs = {
        way: median(found) for way, found in interleaved(ways, rounds, warm_up=rounds > 1).items()
    }
    longer = child("read", name, "ours", large)
    rows = [
        [way, f"{cost.wall:.1f}", f"{cost.cpu:.1f}", f"{cost.peak:,.0f}"]
        for way, cost in costs.items()
    ]
    rows.append(
        [f"read, ours, {large:,}", f"{longer.wall:.1f}", f"{longer.cpu:.1f}", f"{longer.peak:,.0f}"]
    )
    print_table(
        f"{name}, {small:,} rows of 6 columns, emulated",
        ["way", "wall s", "CPU s", "peak MB"],
        rows,
    )
    for what in ("read", "write"):
        ours, theirs = costs[f"{what}, ours"], costs[f"{what}, pandas"]
        print_verdict(f"{what}: CPU against pandas", ours.cpu / theirs.cpu, 1.3, least=False)
        print_verdict(f"{what}: memory against pandas", ours.peak / theirs.peak, 1.0, least=False)
    flat = longer.peak / costs["read, ours"].peak
    print_verdict(f"read: memory of {large:,} rows against {small:,}", flat, FLAT, least=False)


@contextmanager
def _served(name: str, folder: Path) -> Iterator[None]:
    """An emulator in another process, which tells where it is by a file."""
    command = [sys.executable, "-W", "ignore", __file__, "--child", "serve", name]
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None  # noqa: S101 -- a pipe was asked for
        assert server.stdin is not None  # noqa: S101 -- as above
        (folder / "place.json").write_text(server.stdout.readline())
        try:
            yield
        finally:
            server.stdin.close()
            server.wait(30)


def serve(name: str) -> None:
    """Run an emulator until nobody is left to ask it."""
    places = _places()
    here = Path.cwd()
    if name == "snowflake":
        with places.snowflake_emulator(here) as server:
            schema = places.SnowflakeSchema(server)
            schema.run("SELECT 1")
            told = {"server": vars(server) | {"key": None}, "name": schema.name}
            print(json.dumps(told), flush=True)
            sys.stdin.read()
        return
    with places.bigquery_emulator(here) as emulator:
        dataset = places.BigQueryDataset(emulator)
        told = {"server": vars(emulator), "name": dataset.name}
        print(json.dumps(told, default=str), flush=True)
        sys.stdin.read()


def make(rows: str) -> None:
    """A parquet file."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = int(rows)
    random = np.random.default_rng(7)
    times = np.arange(count) * 1_000_000 + 1_700_000_000_000_000
    table = pa.table(
        {
            "id": np.arange(count),
            "a": random.normal(size=count),
            "b": random.normal(size=count),
            "c": random.integers(0, 1_000, size=count),
            "label": np.char.add("label ", random.integers(0, 50, size=count).astype(str)),
            "at": pa.array(times, pa.timestamp("us", tz="UTC")),
        }
    )
    pq.write_table(table, f"rows_{rows}.parquet", row_group_size=CHUNK)


def fill(name: str, rows: str) -> None:
    """Put a file's rows where they are read from."""
    _write_ours(name, rows, f"rows_{rows}")


def read(name: str, who: str, rows: str) -> None:
    """Read all rows once."""
    found = {"ours": _read_ours, "pandas": _read_pandas}[who](name, f"SELECT * FROM rows_{rows}")  # noqa: S608 -- a number
    if found != int(rows):
        raise RuntimeError(f"{found} of {rows} rows")


def write(name: str, who: str, rows: str) -> None:
    """Write all rows to a new table."""
    import secrets

    table = f"written_{secrets.token_hex(4)}"
    {"ours": _write_ours, "pandas": _write_pandas}[who](name, rows, table)


def _read_ours(name: str, sql: str) -> int:
    place = _place(name)
    with place.reader(sql, **_times(name)).read(chunk_rows=CHUNK) as batches:
        return sum(batch.num_rows for batch in batches)


def _read_pandas(name: str, sql: str) -> int:
    place = _place(name)
    if name == "snowflake":
        with place.connection() as connection, connection.cursor() as cursor:
            return len(cursor.execute(sql).fetch_pandas_all())
    from google.cloud import bigquery

    with place.client() as client:
        settings = bigquery.QueryJobConfig(default_dataset=f"{client.project}.{place.name}")
        result = client.query(sql, job_config=settings).result()
        # to_dataframe() is this and pandas' types for dates, from a package more.
        return len(result.to_arrow(bqstorage_client=_storage(place)).to_pandas())


def _write_ours(name: str, rows: str, table: str) -> None:
    from lodestar.adapters.files.rows import FileReader

    place = _place(name)
    if name == "snowflake":
        from lodestar.adapters.snowflake.writer import SnowflakeWriter

        writer: Any = SnowflakeWriter(place.config(**_times(name)), Path())
        uri = f"snowflake://shop.{place.name}.{table}"
    else:
        from lodestar.adapters.bigquery.writer import BigQueryWriter

        writer = BigQueryWriter(place.config(**_times(name)), Path())
        uri = f"bq://{place.server.project}.{place.name}.{table}"
    with (
        FileReader(Path(f"rows_{rows}.parquet")).read(chunk_rows=CHUNK) as batches,
        writer.sink(uri, batches.schema) as sink,
    ):
        for batch in batches:
            sink.write(batch)


def _write_pandas(name: str, rows: str, table: str) -> None:
    import pandas as pd

    place = _place(name)
    frame = pd.read_parquet(f"rows_{rows}.parquet")
    if name == "bigquery":
        from google.cloud import bigquery

        kinds = {"id": "INT64", "a": "FLOAT64", "b": "FLOAT64", "c": "INT64", "label": "STRING"}
        fields = [bigquery.SchemaField(*pair) for pair in (*kinds.items(), ("at", "TIMESTAMP"))]
        with place.client() as client:
            target = f"{client.project}.{place.name}.{table}"
            client.create_table(bigquery.Table(target, schema=fields))
            client.load_table_from_dataframe(frame, target).result()
        return
    from snowflake.connector.pandas_tools import write_pandas

    columns = "ID NUMBER(38,0), A FLOAT, B FLOAT, C NUMBER(38,0), LABEL TEXT, AT_ TIMESTAMP_LTZ"
    place.run(f"CREATE TABLE {table} ({columns})")
    frame.columns = pd.Index(["ID", "A", "B", "C", "LABEL", "AT_"])
    with place.connection() as connection:
        done = write_pandas(
            connection, frame, table.upper(), use_logical_type=True, overwrite=False
        )
    if done[2] != len(frame):
        raise RuntimeError(f"{done[2]} of {len(frame)} rows")


def _place(name: str) -> Any:  # noqa: ANN401 -- the tests' schema or dataset
    places = _places()
    told = json.loads(Path("place.json").read_text())
    if name == "snowflake":
        return places.SnowflakeSchema(places.EmulatedSnowflake(**told["server"]), told["name"])
    server = places.EmulatedBigQuery(**told["server"])
    return places.BigQueryDataset(server, told["name"], made=True)


def _times(name: str) -> dict[str, Any]:
    """Patience: an emulator with many rows is slow."""
    if name == "snowflake":
        return {"statement_timeout": 600, "network_timeout": 600}
    storage = {"storage_api": True, "storage_endpoint_url": _place(name).server.storage}
    return {"job_timeout": 600, "request_timeout": 600, "retry_timeout": 600, **storage}


def _storage(place: Any) -> Any:  # noqa: ANN401 -- the tests' dataset; the client
    import grpc
    from google.cloud import bigquery_storage_v1
    from google.cloud.bigquery_storage_v1.services.big_query_read import transports

    channel = grpc.insecure_channel(place.server.storage.removeprefix("http://"))
    transport = transports.BigQueryReadGrpcTransport(channel=channel)
    return bigquery_storage_v1.BigQueryReadClient(transport=transport)  # type: ignore[no-untyped-call]  # not annotated there


def _places() -> Any:  # noqa: ANN401 -- a module of the tests
    sys.path.insert(0, str(ROOT))
    from importlib import import_module

    return import_module("tests.warehouses")


CHILDREN: dict[str, Callable[..., None]] = {
    way.__name__: way for way in (serve, make, fill, read, write)
}

if __name__ == "__main__":
    main()
