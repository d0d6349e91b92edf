"""Drift: what is found and what is not, what watching costs a batch, and `monitor` against Evidently.

Windows of generated rows (30 columns) are compared with an artifact's sketches: rows like those of
training, and rows with one planted change, of ten kinds. Then `batch-inference` with drift on and off,
and 3 million rows through `lodestar monitor` and through Evidently's data drift report, each a process
of its own. Evidently is installed into a virtual environment below the temporary directory. Last, what
watching costs `serve-api`, in requests per second and in processor time per request.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import batch
from measure import (
    LODESTAR,
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
from monitoring_rows import CHANGES, MANY_CHANGED
from serving_process import Way, measure, started

from lodestar.infra.endpoint import free_port

EVIDENTLY = "evidently==0.7.23"
# Evidently does not take pandas 3 yet, and does not say so to pip.
BESIDE = ("pandas<3", "pyarrow")
TRAIN_ROWS = 100_000
RECIPE = """\
model:
  class_path: xgboost.XGBClassifier
  hyperparameters: {n_estimators: 20, max_depth: 4}
loader:
  source_uri: data/train.parquet
data_interface:
  task_type: classification
  target_col: bought
"""
HERE = str(Path(__file__).with_name("monitoring_rows.py"))


@dataclass(frozen=True)
class Sizes:
    """How much of everything is measured."""

    windows: Mapping[int, int]
    planted: int
    batch_rows: int
    rounds: int
    monitored: tuple[int, int]
    pairs: int
    slice_seconds: float


FULL = Sizes({500: 20, 5_000: 20, 50_000: 20}, 5_000, 1_000_000, 5, (1_000_000, 3_000_000), 24, 2.0)
QUICK = Sizes({5_000: 3}, 5_000, 100_000, 1, (50_000, 150_000), 2, 1.0)


def main() -> None:
    """Prepare, measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="few rows, one round")
    options.add_argument(
        "--only", choices=("detection", "batch", "evidently", "serving"), help="one part of it"
    )
    given = options.parse_args()
    sizes = QUICK if given.quick else FULL
    print_machine()
    compile_bytecode()
    parts: dict[str, Callable[[Sizes], None]] = {
        "detection": _detection,
        "batch": _batch,
        "evidently": _evidently,
        "serving": _serving,
    }
    for name, part in parts.items():
        if given.only in {None, name}:
            part(sizes)


def _detection(sizes: Sizes) -> None:
    with workspace() as folder:
        run_id = _trained(folder)
        _make(folder, "window.parquet", sizes.planted, 1, "none")
        found, rows = 0, []
        for at, (name, change) in enumerate(CHANGES.items()):
            _make(folder, "window.parquet", sizes.planted, 1_000 + at, name)
            drifted = _monitored(folder, run_id, "window.parquet")["drift"]["drifted"]
            alone = drifted == [change.column]
            found += alone
            rows.append(
                (name, change.column, ", ".join(drifted) or "none", "yes" if alone else "NO")
            )
        print_table(
            f"Planted changes in windows of {sizes.planted:,} rows (trained on {TRAIN_ROWS:,})",
            ("change", "in", "alarms", "that alone"),
            rows,
        )
        print_verdict(
            "planted changes found, and nothing else", found, len(CHANGES), unit="", least=True
        )
        for count, windows in sizes.windows.items():
            alarms = 0
            for seed in range(windows):
                _make(folder, "window.parquet", count, 10_000 + seed, "none")
                alarms += bool(_monitored(folder, run_id, "window.parquet")["drift"]["drifted"])
            what = f"alarms in {windows} clean windows of {count:,} rows"
            print_verdict(what, alarms, 1, unit="", least=False)


def _batch(sizes: Sizes) -> None:
    """The same batch, 16 numbers and 4 texts through 300 trees, with drift on and off."""
    sys.stderr.write("batch-inference with drift on and off\n")
    make = [sys.executable, batch.__file__, "--child", "make"]
    with workspace() as folder:
        recipe = batch.RECIPE.format(source="data/rows.parquet")
        (folder / "recipes" / "rows.yaml").write_text(recipe, encoding="utf-8")
        for name, value in (("on", "true"), ("off", "false")):
            config = f"drift: {{enabled: {value}}}\n"
            (folder / "config" / f"{name}.yaml").write_text(config, encoding="utf-8")
        run([*make, "data/rows.parquet", str(batch.TRAIN_ROWS), "labelled"], folder)
        report = json.loads(run([LODESTAR, "train", "-r", "rows", "--json"], folder).stdout)
        run([*make, "data/rows.parquet", str(sizes.batch_rows), "bare"], folder)
        command = [LODESTAR, "batch-inference", "--run-id", report["run_id"], "--json", "--env"]
        ways = {name: lambda name=name: run([*command, name], folder) for name in ("off", "on")}
        costs = interleaved(ways, sizes.rounds)
    medians = {name: median(each) for name, each in costs.items()}
    print_table(
        f"batch-inference of {sizes.batch_rows:,} rows: medians of {sizes.rounds} rounds",
        ("drift", "wall s", "CPU s", "peak MB"),
        [_line(name, cost) for name, cost in medians.items()],
    )
    for what in ("wall", "cpu"):
        # Both of a round see the same of a machine that others use as well.
        rounds = zip(costs["off"], costs["on"], strict=True)
        shares = [100 * (1 - getattr(off, what) / getattr(on, what)) for off, on in rounds]
        title = f"drift's share of {what if what == 'wall' else 'processor'} time, median of rounds"
        print_verdict(title, statistics.median(shares), 5, unit=" %", least=False)


def _evidently(sizes: Sizes) -> None:
    with workspace() as folder:
        sys.stderr.write("installing Evidently\n")
        peer = _evidently_python(folder)
        run_id = _trained(folder)
        for rows in sizes.monitored:
            _make(folder, f"rows_{rows}.parquet", rows, 77, MANY_CHANGED)
        few, many = sizes.monitored

        def ours(rows: int) -> Cost:
            return _monitor(folder, run_id, f"rows_{rows}.parquet")

        def theirs(rows: int) -> Cost:
            command = [peer, HERE, "evidently", "data/train.parquet", f"rows_{rows}.parquet"]
            return run(command, folder)

        mine_ways = {
            f"lodestar monitor, {few:,}": lambda: ours(few),
            f"lodestar monitor, {many:,}": lambda: ours(many),
        }
        other_ways = {
            f"Evidently, {few:,}": lambda: theirs(few),
            f"Evidently, {many:,}": lambda: theirs(many),
        }
        # Evidently takes minutes, so it goes once, between two halves of our rounds.
        costs = interleaved(mine_ways, sizes.rounds, warm_up=False)
        costs |= interleaved(other_ways, 1, warm_up=False)
        for name, more in interleaved(mine_ways, sizes.rounds, warm_up=False).items():
            costs[name] += more
    medians = {name: median(each) for name, each in costs.items()}
    print_table(
        "30 columns, whole processes: medians of ours, one round of Evidently's",
        ("way, rows", "wall s", "CPU s", "peak MB"),
        [_line(name, cost) for name, cost in medians.items()],
    )
    mine, other = medians[f"lodestar monitor, {many:,}"], medians[f"Evidently, {many:,}"]
    print_verdict("wall time, Evidently ÷ lodestar", other.wall / mine.wall, 20, least=True)
    print_verdict("processor time, Evidently ÷ lodestar", other.cpu / mine.cpu, 20, least=True)
    inside = json.loads(other.stdout)["seconds"]
    print(
        f"  Evidently: imports {inside['import']:.1f} s, reading {inside['read']:.1f} s, ", end=""
    )
    print(f"the report {inside['report']:.1f} s")
    before = medians[f"lodestar monitor, {few:,}"]
    growth = mine.peak / before.peak
    print_verdict(f"our peak, {many:,} rows ÷ {few:,}", growth, 1.1, least=False)
    _print_verdicts(json.loads(mine.stdout), json.loads(other.stdout))


def _serving(sizes: Sizes) -> None:
    """Two servers, drift on (judged every second) and off, asked by turns; each pair is one measurement.

    A machine that others use as well is slower for seconds at a time: both of a pair see the same of it.
    """
    with workspace() as folder, ExitStack() as servers:
        run_id = _trained(folder)
        _make(folder, "bodies.parquet", 2_000, 5, "none")
        run([sys.executable, HERE, "bodies", "bodies.parquet", "keys.jsonl"], folder)
        asked = {}
        for name, value in (("off", "false"), ("on", "true")):
            drift = f"drift: {{enabled: {value}, window_seconds: 1}}\n"
            config = f"environment: {{serving: allowed}}\n{drift}"
            (folder / "config" / f"{name}.yaml").write_text(config, encoding="utf-8")
            asked[name] = servers.enter_context(_server(folder, run_id, name))
            asked[name](1.0)
        pairs = []
        for number in range(sizes.pairs):
            order = ("off", "on") if number % 2 else ("on", "off")
            found = {name: asked[name](sizes.slice_seconds) for name in order}
            pairs.append(found)
            said = ", ".join(f"{name} {found[name].rate:,.0f}/s" for name in ("off", "on"))
            sys.stderr.write(f"  drift {said}\n")
    rates, costs = (
        {name: [getattr(pair[name], what) for pair in pairs] for name in ("off", "on")}
        for what in ("rate", "cost")
    )
    print_table(
        f"serve-api, 30 features in the request, 8 connections: medians of {len(pairs)} pairs of "
        f"{sizes.slice_seconds:g} s",
        ("drift", "requests/s", "CPU µs per request"),
        [
            (
                name,
                f"{statistics.median(rates[name]):,.0f}",
                f"{statistics.median(costs[name]):.0f}",
            )
            for name in rates
        ],
    )
    for what, of, sign in (("requests/s", rates, -1), ("processor time per request", costs, 1)):
        shares = sorted(
            sign * 100 * (on / off - 1) for on, off in zip(of["on"], of["off"], strict=True)
        )
        median_share = statistics.median(shares)
        print_verdict(f"drift's share of {what}", median_share, 3, unit=" %", least=False)
        low, high = shares[len(shares) // 4], shares[-1 - len(shares) // 4]
        print(f"  half of the pairs lie between {low:.1f} and {high:.1f} %")


@dataclass(frozen=True)
class Asked:
    """Requests per second, and µs of the server's processor time per request."""

    rate: float
    cost: float


@contextmanager
def _server(folder: Path, run_id: str, name: str) -> Iterator[Callable[[float], Asked]]:
    """A server, and what asks it for so many seconds."""
    command = [LODESTAR, "serve-api", "--run-id", run_id, "--port", "{port}", "--env", name]
    way = Way(name, command, marker="prediction", ready="/health/ready")
    with started(way, free_port(), folder) as server:

        def ask(seconds: float) -> Asked:
            before = server.cpu()
            load = measure(way, server, folder, 8, seconds)
            if load.failures:
                raise RuntimeError(f"{load.failures} requests failed: {load.first_failure}")
            return Asked(load.rate, 1e6 * (server.cpu() - before) / load.requests)

        yield ask


def _print_verdicts(mine: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Feature by feature: our verdict and PSI beside Evidently's score and verdict."""
    columns = {each["name"]: each for each in mine["drift"]["columns"]}
    planted = {CHANGES[name].column: name for name in MANY_CHANGED.split("+")}
    rows, agree = [], 0
    for name, (score, drifted) in sorted(other["columns"].items()):
        own = columns[name]
        found = own["verdict"] == "drift"
        agree += found == drifted
        if name in planted or found or drifted:
            kinds = ", ".join(finding["kind"] for finding in own["findings"])
            psi = "" if own["psi"] is None else f"{own['psi']:.3f}"
            theirs = "drift" if drifted else "none"
            ours = f"drift: {kinds}" if found else "steady"
            rows.append((name, planted.get(name, "nothing"), ours, psi, theirs, f"{score:.3f}"))
    print_table(
        "Verdicts, where a change was planted or anybody found one",
        ("column", "planted", "lodestar", "PSI", "Evidently", "its score"),
        rows,
    )
    print(f"  the same verdict in {agree} of {len(other['columns'])} columns")


def _trained(folder: Path) -> str:
    (folder / "recipes" / "watched.yaml").write_text(RECIPE, encoding="utf-8")
    _make(folder, "data/train.parquet", TRAIN_ROWS, 0, "none", "labelled")
    report = run([LODESTAR, "train", "-r", "watched", "--json"], folder).stdout
    return str(json.loads(report)["run_id"])


def _make(folder: Path, path: str, rows: int, seed: int, *words: str) -> None:
    run([sys.executable, HERE, "make", path, str(rows), str(seed), *words], folder)


def _monitor(folder: Path, run_id: str, path: str) -> Cost:
    return run([LODESTAR, "monitor", "--run-id", run_id, "--data", path, "--json"], folder)


def _monitored(folder: Path, run_id: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_monitor(folder, run_id, path).stdout)
    return found


def _line(name: str, cost: Cost) -> tuple[str, ...]:
    return name, f"{cost.wall:.2f}", f"{cost.cpu:.2f}", f"{cost.peak:,.0f}"


def _evidently_python(folder: Path) -> str:
    """A Python with Evidently and nothing of ours."""
    place = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    python = str(place / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, EVIDENTLY, *BESIDE], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{EVIDENTLY} cannot be installed:\n{done.stderr}")
    return python


if __name__ == "__main__":
    main()
