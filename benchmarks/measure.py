"""Runs commands one after another and says what each cost: wall time, processor time, peak memory.

The measuring process stays small on purpose: Linux counts the parent's memory at the moment of the
start into a child's peak, so data are made, and libraries imported, in children alone.
"""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "LODESTAR",
    "ROOT",
    "Cost",
    "compile_bytecode",
    "end_tidily",
    "interleaved",
    "median",
    "print_machine",
    "print_table",
    "print_verdict",
    "run",
    "workspace",
]

ROOT = Path(__file__).resolve().parent.parent
LODESTAR = str(Path(sys.executable).with_name("lodestar"))


@dataclass(frozen=True)
class Cost:
    """What one process and its children took: seconds, seconds of all processors, MB at the peak."""

    wall: float
    cpu: float
    peak: float
    stdout: str = ""


def end_tidily() -> None:
    """Told to end, this process ends the servers and children that it has started."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def run(command: Sequence[str], folder: Path, *, expected: int = 0) -> Cost:
    """Run a command in `folder`; a child's peak is the largest of its own children's and its own.

    Raises:
        RuntimeError: with what it wrote, where the exit code is not the expected one.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=err)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        if process.returncode != expected:
            err.seek(0)
            raise RuntimeError(f"{list(command)} ended with {process.returncode}:\n{err.read()}")
        return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, out.read())


def interleaved(
    ways: Mapping[str, Callable[[], Cost]], repeats: int, *, warm_up: bool = True
) -> dict[str, list[Cost]]:
    """Run every way once per round, so that a slow minute of the machine hits them all alike."""
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for turn in range(-1 if warm_up else 0, repeats):
        for name, way in ways.items():
            cost = way()
            if turn >= 0:
                costs[name].append(cost)
                note = f"{cost.wall:.2f} s, {cost.cpu:.2f} s CPU, {cost.peak:,.0f} MB"
                sys.stderr.write(f"  round {turn + 1} of {repeats}: {name}: {note}\n")
    return costs


def median(costs: Sequence[Cost]) -> Cost:
    """The median of each figure by itself."""
    return Cost(
        wall=statistics.median(cost.wall for cost in costs),
        cpu=statistics.median(cost.cpu for cost in costs),
        peak=statistics.median(cost.peak for cost in costs),
        stdout=costs[-1].stdout,
    )


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns: the first to the left, figures to the right."""
    lines = [header, *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(header))]
    print(f"\n{title}")
    for number, line in enumerate(lines):
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        print("  " + "  ".join(cells))
        if number == 0:
            print("  " + "  ".join("-" * width for width in widths))


def print_verdict(what: str, seen: float, target: float, *, unit: str = "×", least: bool) -> None:
    """Say whether a figure is at least (or at most) what was promised."""
    met = seen >= target if least else seen <= target
    sign = "≥" if least else "≤"
    digits = 2 if target < 100 else 0
    print(
        f"  {'met   ' if met else 'MISSED'}  {what}: {seen:,.{digits}f}{unit} "
        f"(target {sign} {target:,.{digits}f}{unit})"
    )


def print_machine() -> None:
    """What the figures were made on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    print(
        f"Python {sys.version.split()[0]}, {os.cpu_count()} processors, {memory:.0f} GB, "
        f"load {load:.1f} before the start",
        flush=True,
    )


def compile_bytecode() -> None:
    """Compile the package, as an installer does; an editable install compiles nothing by itself."""
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(ROOT / "src")], check=True)
    print(
        "bytecode of src compiled with compileall, as pip and uv do when they install", flush=True
    )


@contextmanager
def workspace() -> Iterator[Path]:
    """A temporary project: the repository's own config, no recipes, no data."""
    with tempfile.TemporaryDirectory(prefix="lodestar-bench-") as name:
        folder = Path(name)
        (folder / "config").mkdir()
        config = (ROOT / "config" / "base.yaml").read_text(encoding="utf-8")
        (folder / "config" / "base.yaml").write_text(config, encoding="utf-8")
        for part in ("recipes", "data"):
            (folder / part).mkdir()
        yield folder
