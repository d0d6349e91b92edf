"""Features: point-in-time joins, ours against DuckDB's ASOF join, pandas and polars; or against Feast.

A spine of N rows gets nine features from four namespaces of the shop's shape, about a million versions
each. Each way is one process from start to the finished file. Before any figure is printed, the results
are compared: ours and DuckDB's safe join value by value, the leaky ways with each other.

`--postgres`: spine and tables lie in PostgreSQL, for ours and for Feast; DuckDB's joins over the same
rows in parquet files are the limit. Feast's safe join must equal ours, and its leaky one the leaky ones.
A way of Feast's that takes longer than `--patience` seconds is ended, and the size said to be too large
for it; nothing is extrapolated.
"""

import argparse
import importlib.util
import os
import statistics
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import feature_postgres
from feature_joins import CHILDREN, TABLES
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
    workspace,
)

A_MILLION = 1_000_000
VERSIONS, QUICK_VERSIONS = A_MILLION, 50_000
MANY = 2_000_000  # beyond it only ours and DuckDB's safe join run, once
OURS = "ours, late arrivals left out"
SAFE = "DuckDB ASOF, late arrivals left out"
LEAKY = "DuckDB ASOF, leaky"
PANDAS = "pandas merge_asof, leaky"
POLARS = "polars join_asof, leaky"
FEAST = "Feast on PostgreSQL, leaky"
FEAST_SAFE = "Feast on PostgreSQL, late arrivals left out"
SERVER = {OURS: "ours_postgres", FEAST: "feast_leaky", FEAST_SAFE: "feast_safe"}
FILES = {OURS: "ours", SAFE: "duckdb_safe", LEAKY: "duckdb_leaky", PANDAS: "pandas_leaky"}


@dataclass(frozen=True)
class Bench:
    """A folder with the feature tables and spines of several sizes."""

    folder: Path
    sizes: Sequence[int]
    rounds: int
    patience: int
    quick: bool

    def child(self, way: str, *arguments: str) -> Cost:
        """Run one way, or a comparison, in a process of its own."""
        return run([sys.executable, __file__, "--child", way, *arguments], self.folder)


def main() -> None:
    """Prepare, measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="small tables, 50,000 rows, once")
    options.add_argument("--rows", type=int, nargs="+", help="sizes of the spine")
    options.add_argument("--postgres", action="store_true", help="against Feast, in PostgreSQL")
    options.add_argument("--rounds", type=int, default=3, help="how often each way runs")
    options.add_argument(
        "--patience", type=int, default=1_800, help="seconds for one go of Feast's"
    )
    options.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        children = {**CHILDREN, **feature_postgres.CHILDREN}
        children[given.child[0]](*given.child[1:])
        return
    # As our own command sets it; it is the same for all ways.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    end_tidily()
    print_machine()
    compile_bytecode()
    with workspace() as folder:
        usual = [100_000, 1_000_000] if given.postgres else [100_000, 1_000_000, 10_000_000]
        sizes = (
            [5_000 if given.postgres else 50_000] if given.quick else sorted(given.rows or usual)
        )
        rounds = 1 if given.quick else given.rounds
        bench = Bench(folder, sizes, rounds, given.patience, quick=given.quick)
        sys.stderr.write("making data\n")
        versions = QUICK_VERSIONS if given.quick else VERSIONS
        bench.child("make", ".", str(versions), *map(str, sizes))
        (postgres if given.postgres else files)(bench)


def files(bench: Bench) -> None:
    """Parquet to parquet."""
    peaks = {}
    for rows in bench.sizes:
        ways = {OURS: "ours", SAFE: "duckdb_safe"} if rows > MANY else _all_ways()
        once = bench.quick or rows > MANY
        costs = interleaved(
            {name: _way(bench, rows, way) for name, way in ways.items()},
            1 if once else bench.rounds,
            warm_up=not once,
        )
        checked = _checked(bench, rows, ways.values())
        _print_files(rows, {name: median(several) for name, several in costs.items()}, checked)
        peaks[rows] = median(costs[OURS]).peak
    if A_MILLION in peaks and max(peaks) > A_MILLION:
        print("\nMemory from a million rows to the longest spine")
        growth = peaks[max(peaks)] / peaks[A_MILLION]
        print_verdict(f"growth of our peak at {max(peaks):,} rows", growth, 1.1, least=False)


def _all_ways() -> dict[str, str]:
    polars = importlib.util.find_spec("polars") is not None
    if not polars:
        print("\npolars is not installed, so it is not measured")
    return FILES | ({POLARS: "polars_leaky"} if polars else {})


def _way(bench: Bench, rows: int, way: str) -> Callable[[], Cost]:
    return lambda: bench.child(way, f"spine_{rows}.parquet", f"{way}.parquet")


def _checked(bench: Bench, rows: int, ways: Collection[str]) -> list[str]:
    """Compare the outputs; a difference ends the benchmark."""
    same = bench.child("compare", "ours.parquet", "duckdb_safe.parquet").stdout.strip()
    said = [f"{same} rows × 9 features: ours and DuckDB's safe join are equal"]
    if "pandas_leaky" not in ways:
        return said
    bench.child("untied", f"spine_{rows}.parquet", "duckdb_leaky.parquet", "pandas_leaky.parquet")
    leaky = ["pandas", "DuckDB where event times do not tie"]
    if "polars_leaky" in ways:
        bench.child("compare", "polars_leaky.parquet", "pandas_leaky.parquet")
        leaky.insert(1, "polars")
    share = bench.child("leaked", "ours.parquet", "pandas_leaky.parquet").stdout.strip()
    said.append(f"the leaky ways are equal to each other ({', '.join(leaky)})")
    said.append(f"{share} of their rows have a value that had not arrived by then")
    return said


def _print_files(rows: int, costs: Mapping[str, Cost], checked: Sequence[str]) -> None:
    print_table(
        f"{rows:,} rows × 4 namespaces, 9 features, parquet to parquet: medians",
        ("way", "wall s", "CPU s", "peak MB", "× ours"),
        [
            (
                name,
                f"{cost.wall:.2f}",
                f"{cost.cpu:.2f}",
                f"{cost.peak:,.0f}",
                f"{cost.wall / costs[OURS].wall:.2f}",
            )
            for name, cost in costs.items()
        ],
    )
    for line in checked:
        print(f"  {line}")
    if rows == A_MILLION:
        print_verdict("ours, whole process", costs[OURS].wall, 3.5, unit=" s", least=False)
        print_verdict("ours, peak memory", costs[OURS].peak, 500, unit=" MB", least=False)


def postgres(bench: Bench) -> None:
    """PostgreSQL to parquet."""
    peaks = {}
    with feature_postgres.server(bench.folder / "postgres") as seconds:
        sys.stderr.write("loading data\n")
        names = [*TABLES, *(f"spine_{rows}" for rows in bench.sizes)]
        bench.child("load", *(f"{name}.parquet" for name in names))
        for rows in bench.sizes:
            peaks[rows] = _in_postgres(bench, rows, seconds)
    if A_MILLION in peaks and max(peaks) > A_MILLION:
        growth = peaks[max(peaks)] / peaks[A_MILLION]
        print_verdict(f"growth of our peak at {max(peaks):,} rows", growth, 1.1, least=False)


def _in_postgres(bench: Bench, rows: int, seconds: Callable[[], float]) -> float:
    """One size of the spine: compare, measure and print; our peak."""
    spine = f"spine_{rows}.parquet"
    ways = {**SERVER, LEAKY: "duckdb_leaky", SAFE: "duckdb_safe"}
    for name, way in SERVER.items():
        if name != OURS and not _feast_ends(bench, way, spine):
            print(f"\n{name}: {rows:,} rows took longer than {bench.patience:,} s, so not compared")
            ways.pop(name)
    taken: dict[str, list[float]] = {name: [] for name in ways}

    def measured(name: str, way: str) -> Callable[[], Cost]:
        def go() -> Cost:
            before = seconds()
            cost = bench.child(way, spine, f"{way}.parquet")
            taken[name].append(seconds() - before)
            return cost

        return go

    goes = {name: measured(name, way) for name, way in ways.items()}
    costs = interleaved(goes, bench.rounds, warm_up=False)
    checked = _checked_in_postgres(bench, spine, ways)
    medians = {name: median(several) for name, several in costs.items()}
    print_table(
        f"{rows:,} rows × 4 namespaces, 9 features, from PostgreSQL: medians of {bench.rounds}",
        ("way", "wall s", "CPU s", "server's", "peak MB", "× ours"),
        [
            (
                name,
                f"{cost.wall:.2f}",
                f"{cost.cpu:.2f}",
                f"{statistics.median(taken[name]):.2f}",
                f"{cost.peak:,.0f}",
                f"{cost.wall / medians[OURS].wall:.2f}",
            )
            for name, cost in medians.items()
        ],
    )
    for line in checked:
        print(f"  {line}")
    if rows == A_MILLION:
        if FEAST in medians:
            print_verdict("Feast ÷ ours", medians[FEAST].wall / medians[OURS].wall, 10, least=True)
        limit = medians[OURS].wall / medians[LEAKY].wall
        print_verdict("ours ÷ DuckDB's ASOF join over parquet", limit, 2.5, least=False)
        print_verdict("ours, peak memory", medians[OURS].peak, 1_000, unit=" MB", least=False)
    return medians[OURS].peak


def _feast_ends(bench: Bench, way: str, spine: str) -> bool:
    """A first go, which also warms the server up."""
    child = [sys.executable, __file__, "--child", way, spine, f"{way}.parquet"]
    try:
        run(["timeout", str(bench.patience), *child], bench.folder)
    except RuntimeError as error:
        if "ended with 124:" not in str(error):
            raise
        bench.child("end_sessions")
        return False
    return True


def _checked_in_postgres(bench: Bench, spine: str, ways: Collection[str]) -> list[str]:
    """Compare the outputs; a difference ends the benchmark."""
    same = bench.child("compare", "ours_postgres.parquet", "duckdb_safe.parquet").stdout.strip()
    said = [f"{same} rows × 9 features: ours and DuckDB's safe join are equal"]
    if FEAST_SAFE in ways:
        bench.child("compare", "ours_postgres.parquet", "feast_safe.parquet")
        said.append("Feast's safe join is equal to ours")
    if FEAST in ways:
        bench.child("pandas_leaky", spine, "pandas_leaky.parquet")
        bench.child("compare", "feast_leaky.parquet", "pandas_leaky.parquet")
        share = bench.child("leaked", "ours_postgres.parquet", "feast_leaky.parquet").stdout.strip()
        said.append(
            f"{share} of Feast's rows, as it is by default, have a value that had not arrived by then"
        )
    return said


if __name__ == "__main__":
    main()
