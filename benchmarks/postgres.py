"""What rows cost on their way between PostgreSQL and Arrow, against pandas' own functions.

Reading: our reader (ADBC, COPY in binary) against `pandas.read_sql`, one million rows × 6 columns, all
of them in memory at the end; and ours in batches that are let go. Writing: our sink, which publishes
all or nothing, into a table that is not there yet and into one that is, against `DataFrame.to_sql`,
one million rows × 4 columns. What comes out is compared first. Seconds are those of the reading or
writing alone, connecting included and imports not; memory is the whole process's peak.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import (
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
    from sqlalchemy import Engine

    from lodestar.adapters.postgres.reader import PostgresConnection

CHUNK = 65_536
QUERY = "SELECT id, user_id, price, clicks, event_timestamp, returned FROM sales"
FILL = """
CREATE TABLE sales AS SELECT
    x::bigint AS id, 'user_' || lpad((x * 7919 % 100000)::text, 6, '0') AS user_id,
    (x * 31 % 9973) / 7.0::float8 AS price, (x % 40)::int AS clicks,
    timestamptz '2024-01-01' + x * interval '13.000007 seconds' AS event_timestamp,
    x % 3 = 0 AS returned
FROM generate_series(1::bigint, {rows}) AS x
"""
URI = "LODESTAR_BENCH_URI"
ALL, BATCHES, READ_SQL = "ours, one table", "ours, batch by batch", "pandas.read_sql"
NEW, AGAIN, TO_SQL = "ours, new table", "ours, old rows replaced", "DataFrame.to_sql"
READS = {ALL: "read_table", BATCHES: "read_batches", READ_SQL: "read_pandas"}
WRITES = {NEW: "write_new", AGAIN: "write_again", TO_SQL: "write_pandas"}


def main() -> None:
    """Start a server, prepare, compare, measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="50,000 rows, one round")
    options.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        CHILDREN[given.child[0]](*given.child[1:])
        return
    rows, rounds = (50_000, 1) if given.quick else (1_000_000, 5)
    end_tidily()
    print_machine()
    compile_bytecode()
    with tempfile.TemporaryDirectory(prefix="lodestar-bench-") as name, _server(Path(name)):
        _child("fill", str(rows))
        print(_child("compare").stdout.strip(), flush=True)
        reads = _measure(READS, f"PostgreSQL → Arrow, {rows:,} rows × 6", rounds)
        print_verdict("pandas.read_sql ÷ ours", reads[READ_SQL] / reads[ALL], 5, least=True)
        writes = _measure(WRITES, f"Arrow → PostgreSQL, {rows:,} rows × 4", rounds)
        print_verdict("DataFrame.to_sql ÷ ours", writes[TO_SQL] / writes[NEW], 20, least=True)


@contextmanager
def _server(home: Path) -> Iterator[None]:
    """A server of our own; the children find it by the environment."""
    from lodestar.infra.endpoint import Endpoint
    from lodestar.infra.postgres import PostgresServer

    home.chmod(0o755)
    server = PostgresServer(home, Endpoint.fresh())
    server.start()
    os.environ[URI] = server.uri.get_secret_value()
    try:
        yield
    finally:
        server.stop()


def _child(*words: str) -> Cost:
    return run([sys.executable, __file__, "--child", *words], Path.cwd())


def _measure(ways: dict[str, str], title: str, rounds: int) -> dict[str, float]:
    """Print the medians; the seconds of each way."""
    costs = interleaved({name: partial(_child, way) for name, way in ways.items()}, rounds)
    seconds = {
        name: sorted(float(cost.stdout) for cost in several)[len(several) // 2]
        for name, several in costs.items()
    }
    first = next(iter(ways))
    print_table(
        f"{title}, medians of {rounds} interleaved rounds",
        ("way", "seconds", "peak MB", f"÷ {first}"),
        [
            (
                name,
                f"{seconds[name]:.2f}",
                f"{median(several).peak:,.0f}",
                f"{seconds[name] / seconds[first]:.1f}",
            )
            for name, several in costs.items()
        ],
    )
    return seconds


# What follows runs in processes of its own.


def fill(rows: str) -> None:
    """Make the table."""
    _run(FILL.format(rows=int(rows)), "VACUUM ANALYZE sales")


def compare() -> None:
    """Both ways of reading give equal rows, and so do the tables that both ways wrote."""
    import pandas as pd

    ours, theirs = _read().read_all().to_pandas(), pd.read_sql(QUERY, _engine())
    moments = theirs["event_timestamp"].dt.tz_convert("UTC").astype("datetime64[us, UTC]")
    theirs = theirs.assign(event_timestamp=moments)
    pd.testing.assert_frame_equal(ours.assign(event_timestamp=moments), theirs)
    pd.testing.assert_series_equal(ours["event_timestamp"].astype(moments.dtype), moments)
    table = _rows()
    _write(table, "postgres://ours")
    table.to_pandas().to_sql("theirs", _engine(), index=False)
    both = "SELECT * FROM ours EXCEPT ALL SELECT * FROM theirs"
    ((left, count),) = _run(f"SELECT count(*), (SELECT count(*) FROM ours) FROM ({both}) AS d")  # noqa: S608 -- constant
    if left or count != len(theirs):
        raise SystemExit(f"{left} of {count} rows differ")
    print(f"{count:,} rows are equal whichever way they were read or written")


def read_table() -> None:
    """Read everything as one Arrow table."""
    _import_drivers()
    _print_seconds(lambda: _read().read_all())


def read_batches() -> None:
    """Read everything, and keep no batch."""
    _import_drivers()
    _print_seconds(lambda: sum(batch.num_rows for batch in _read()))


def read_pandas() -> None:
    """Read everything as pandas does."""
    import pandas as pd

    engine = _engine()
    _print_seconds(lambda: pd.read_sql(QUERY, engine))


def write_new() -> None:
    """Write a table that is not there."""
    table = _rows()
    _run("DROP TABLE IF EXISTS ours")
    _print_seconds(lambda: _write(table, "postgres://ours"))


def write_again() -> None:
    """Write one that is there: its rows are replaced."""
    table = _rows()
    _print_seconds(lambda: _write(table, "postgres://ours"))


def write_pandas() -> None:
    """Write as pandas does, a table that is not there."""
    frame, engine = _rows().to_pandas(), _engine()
    _run("DROP TABLE IF EXISTS theirs")
    _print_seconds(lambda: frame.to_sql("theirs", engine, index=False))


CHILDREN: dict[str, Callable[..., None]] = {
    child.__name__: child
    for child in (
        fill,
        compare,
        read_table,
        read_batches,
        read_pandas,
        write_new,
        write_again,
        write_pandas,
    )
}


def _print_seconds(work: Callable[[], object]) -> None:
    began = time.perf_counter()
    work()
    print(time.perf_counter() - began)


def _import_drivers() -> None:
    _read("SELECT 1 AS one").read_all()


def _connection() -> "PostgresConnection":
    from pydantic import SecretStr

    from lodestar.adapters.postgres.reader import PostgresConnection

    return PostgresConnection(SecretStr(os.environ[URI]), statement_timeout=600)


def _read(query: str = QUERY) -> "pa.RecordBatchReader":
    from lodestar.adapters.postgres.reader import PostgresReader
    from lodestar.sql import parse_query

    query_of = parse_query(query, "postgres", where="bench.sql")
    return PostgresReader(_connection(), query_of, {}).read(chunk_rows=CHUNK)


def _rows() -> "pa.Table":
    """What is written."""
    return _read().read_all().select(["user_id", "id", "price", "event_timestamp"])


def _write(table: "pa.Table", destination: str) -> None:
    from lodestar.adapters.postgres.writer import PostgresWriter

    with PostgresWriter(_connection()).sink(destination, table.schema) as sink:
        for batch in table.to_batches(max_chunksize=CHUNK):
            sink.write(batch)


def _engine() -> "Engine":
    """What pandas reads and writes with, connected."""
    from sqlalchemy import create_engine

    engine = create_engine(os.environ[URI].replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect():
        return engine


def _run(*statements: str) -> list[tuple[Any, ...]]:
    """Run statements; the rows of the last one."""
    import psycopg

    with psycopg.connect(os.environ[URI], autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


if __name__ == "__main__":
    main()
