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
from pathlib import Path

from measure import (
    Cost,
    compile_bytecode,
    interleaved,
    median,
    print_machine,
    print_table,
    print_verdict,
    run,
)

CHUNK = 65_536
QUERY = "SELECT id, user_id, price, clicks, event_timestamp, returning FROM sales"
FILL = """
CREATE TABLE sales AS SELECT
    x::bigint AS id, 'user_' || lpad((x * 7919 % 100000)::text, 6, '0') AS user_id,
    (x * 31 % 9973) / 7.0::float8 AS price, (x % 40)::int AS clicks,
    timestamptz '2024-01-01' + x * interval '13.000007 seconds' AS event_timestamp,
    x % 3 = 0 AS returning
FROM generate_series(1, {rows}) AS x
"""
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
    os.environ["BENCH_URI"] = server.uri.get_secret_value()
    try:
        yield
    finally:
        server.stop()


def _child(*words: str) -> Cost:
    return run([sys.executable, __file__, "--child", *words], Path.cwd())


def _measure(ways: dict[str, str], title: str, rounds: int) -> dict[str, float]:
    """Print the medians; the seconds of each way."""
    costs = interleaved({name: lambda w=way: _child(w) for name, way in ways.items()}, rounds)
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
    with _engine().begin() as connection:
        connection.exec_driver_sql(FILL.format(rows=int(rows)))
    with _engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE sales")


def compare() -> None:
    """Both ways of reading give equal rows, and so do tables that both ways wrote."""
    import pandas as pd

    ours = _read().read_all().to_pandas()
    theirs = pd.read_sql(QUERY, _engine())
    moments = theirs["event_timestamp"].dt.tz_convert("UTC").astype(ours["event_timestamp"].dtype)
    theirs = theirs.astype({"clicks": "int64"}).assign(event_timestamp=moments)
    pd.testing.assert_frame_equal(ours, theirs)
    _write("compared")
    _frame().to_pandas().to_sql("expected", _engine(), index=False)
    both = "SELECT * FROM compared EXCEPT ALL SELECT * FROM expected"
    with _engine().connect() as connection:
        (left,) = connection.exec_driver_sql(f"SELECT count(*) FROM ({both}) AS d").one()  # noqa: S608 -- constant
        (count,) = connection.exec_driver_sql("SELECT count(*) FROM compared").one()
    if left or count != len(ours):
        raise SystemExit(f"{left} of {count} rows differ")
    print(f"compared: {count:,} rows are equal whichever way they were read or written")


def read_table() -> None:
    """Read the whole table as Arrow."""
    _time(lambda: _read().read_all())


def read_batches() -> None:
    """Read it, and let every batch go."""
    _time(lambda: sum(batch.num_rows for batch in _read()))


def read_pandas() -> None:
    """Read it as pandas does."""
    import pandas as pd

    engine = _engine()
    _time(lambda: pd.read_sql(QUERY, engine))


def write_new() -> None:
    """Write a table that is not there."""
    _drop("ours")
    _time(lambda: _write("ours"), prepare=_frame)


def write_again() -> None:
    """Write one that is there, with rows to replace."""
    _drop("again")
    _write("again")
    _time(lambda: _write("again"))


def write_pandas() -> None:
    """Write as pandas does."""
    _drop("theirs")
    frame, engine = _frame().to_pandas(), _engine()
    _time(lambda: frame.to_sql("theirs", engine, index=False))


CHILDREN: dict[str, Callable[..., None]] = {
    each.__name__: each
    for each in (
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
