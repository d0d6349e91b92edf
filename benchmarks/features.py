"""Features: point-in-time joins over files, ours against DuckDB's ASOF join, pandas and polars.

A spine of N rows gets nine features from four namespaces of the shop's shape, about a million versions
each. Each way is one process from start to the finished file. Before any figure is printed, the results
are compared: ours and DuckDB's safe join value by value, the leaky ways with each other.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from feature_joins import CHILDREN
from measure import (
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

A_MILLION = 1_000_000
VERSIONS, QUICK_VERSIONS = A_MILLION, 50_000
MANY = 2_000_000  # beyond it only ours and DuckDB's safe join run, once
OURS = "ours, late arrivals left out"
SAFE = "DuckDB ASOF, late arrivals left out"
LEAKY = "DuckDB ASOF, leaky"
PANDAS = "pandas merge_asof, leaky"
POLARS = "polars join_asof, leaky"
FILES = {OURS: "ours", SAFE: "duckdb_safe", LEAKY: "duckdb_leaky", PANDAS: "pandas_leaky"}


@dataclass(frozen=True)
class Bench:
    """A folder with the feature tables and spines of several sizes."""

    folder: Path
    sizes: Sequence[int]
    quick: bool

    def child(self, way: str, *arguments: str) -> Cost:
        """Run one way, or a comparison, in a process of its own."""
        return run([sys.executable, __file__, "--child", way, *arguments], self.folder)


def main() -> None:
    """Prepare, measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="small tables, 50,000 rows, once")
    options.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    options.add_argument("--parts", nargs="+", choices=sorted(PARTS), default=sorted(PARTS))
    options.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        CHILDREN[given.child[0]](*given.child[1:])
        return
    # As our own command sets it; it is the same for all ways.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    print_machine()
    compile_bytecode()
    with workspace() as folder:
        sizes = [50_000] if given.quick else sorted(given.rows)
        bench = Bench(folder, sizes, given.quick)
        sys.stderr.write("making data\n")
        versions = QUICK_VERSIONS if given.quick else VERSIONS
        bench.child("make", ".", str(versions), *map(str, sizes))
        for part in given.parts:
            PARTS[part](bench)


def files(bench: Bench) -> None:
    """Parquet to parquet."""
    peaks = {}
    for rows in bench.sizes:
        ways = {OURS: "ours", SAFE: "duckdb_safe"} if rows > MANY else _all_ways()
        once = bench.quick or rows > MANY
        costs = interleaved(
            {name: _way(bench, rows, way) for name, way in ways.items()},
            1 if once else 3,
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


PARTS: dict[str, Callable[[Bench], None]] = {"files": files}


if __name__ == "__main__":
    main()
