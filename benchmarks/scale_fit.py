"""Fits what `scale_model.py` measured to its models, and says what they tell of other sizes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

__all__ = ["Point", "Took", "print_models"]

SIZES = (10**6, 10**7, 10**8, 10**9, 10**10)
CORES = (2, 8, 32, 200, 800)  # the last two are 100 nodes of 2 and of 8
BYTES_A_ROW = 50


@dataclass(frozen=True)
class Point:
    """What is run: so many rows of so many columns through so many trees, or so many trials.

    `output` is one file, which the command writes, or a folder of files, which the workers do.
    """

    kind: str
    engine: str
    rows: int
    columns: int
    trees: int
    trials: int = 0
    output: str = "file"

    @property
    def workers(self) -> int:
        """How many score, or run trials."""
        return int(self.engine.removeprefix("ray") or 1) if self.engine != "local" else 1


@dataclass(frozen=True)
class Took:
    """Seconds on the wall; of the processors for the command itself and for all below it; MB of all."""

    wall: float
    own: float
    below: float
    peak: float
    load: float


@dataclass(frozen=True)
class Fitted:
    """Coefficients of a model, R² and the largest residual, both of relative errors."""

    names: tuple[str, ...]
    values: tuple[float, ...]
    r2: float
    worst: float
    points: int

    def __getitem__(self, name: str) -> float:
        return self.values[self.names.index(name)]


def fitted(
    points: Sequence[tuple[Point, Took]],
    features: dict[str, Callable[[Point], float]],
    seconds: Callable[[Took], float] = lambda took: took.wall,
) -> Fitted:
    """Non-negative least squares, each equation divided by what was measured."""
    from scipy.optimize import nnls

    measured = np.array([seconds(took) for _, took in points])
    matrix = np.array([[feature(point) for feature in features.values()] for point, _ in points])
    scale = np.abs(matrix).max(axis=0)
    scale[scale == 0] = 1.0
    values, _ = nnls(matrix / scale / measured[:, None], np.ones(len(points)))
    values = values / scale
    logs, told = np.log(measured), np.log(np.maximum(matrix @ values, 1e-9))
    spread = float(((logs - logs.mean()) ** 2).sum())
    r2 = 1.0 - float(((logs - told) ** 2).sum()) / spread if spread else float("nan")
    worst = float(np.abs(matrix @ values / measured - 1).max())
    return Fitted(tuple(features), tuple(float(v) for v in values), r2, worst, len(points))


BATCH: dict[str, Callable[[Point], float]] = {
    "start": lambda point: 1.0,
    "a": lambda point: point.rows / point.workers,
    "b": lambda point: point.rows * point.columns / point.workers,
    "c": lambda point: point.rows * point.trees / point.workers,
}


def print_models(measured: Sequence[tuple[Point, Took]]) -> None:
    """Print the models, how well they fit, and what they say of sizes that were not measured."""
    if not measured:
        raise SystemExit("nothing was measured yet")
    for engine, output in product(("local", "ray"), ("file", "folder")):
        points = [
            (point, took)
            for point, took in measured
            if (point.kind, point.output) == ("batch", output) and point.engine.startswith(engine)
        ]
        varied = {
            name
            for name in ("columns", "trees")
            if len({getattr(point, name) for point, _ in points}) > 1
        }
        # What was not varied cannot be told from what each row costs.
        features = {
            name: feature
            for name, feature in BATCH.items()
            if not (name == "b" and "columns" not in varied)
            and not (name == "c" and "trees" not in varied)
        }
        if len(points) > len(features):
            found = fitted(points, features)
            _print_model(f"engine {engine}, to a {output}: seconds", found)
            if engine == "ray":
                _print_projection(points, found)
    _fit_search(measured)


def _print_model(title: str, found: Fitted) -> None:
    terms = {
        "start": "{:.1f} s",
        "a": "{:.3g} s per row",
        "b": "{:.3g} s per row and column",
        "c": "{:.3g} s per row and tree",
        "u": "{:.3g} s per trial",
        "v": "{:.3g} s per trial and row",
        "d": "{:.3g} s per row",
    }
    said = [
        f"{name} = {terms[name].format(value)}"
        for name, value in zip(found.names, found.values, strict=True)
    ]
    print(f"\n{title}: {', '.join(said)}")
    print(
        f"  {found.points} measurements, R² of the logarithms {found.r2:.4f}, "
        f"largest residual {100 * found.worst:.0f} %"
    )


def _print_projection(points: Sequence[tuple[Point, Took]], found: Fitted) -> None:
    """By the workers' share and the command's own, which go on side by side: the larger counts."""
    own: dict[str, Callable[[Point], float]] = {
        "start": lambda point: 1.0,
        "d": lambda point: float(point.rows),
    }
    command = fitted(points, own, lambda took: took.own)
    _print_model("the command's own processor time", command)
    largest = max((point for point, _ in points), key=lambda point: (point.rows, point.trees))
    columns, trees = largest.columns, largest.trees
    each = _each(found, columns, trees)
    print(
        f"  a row of {columns} columns and {trees} trees takes a worker {each * 1e6:.2f} µs and the "
        f"command {command['d'] * 1e6:.2f} µs: more than "
        f"{each / max(command['d'], 1e-12):,.0f} workers wait for it"
    )
    print("\n| rows | written | " + " | ".join(f"{cores} workers" for cores in CORES) + " |")
    print("|---|---|" + "---|" * len(CORES))
    for rows in SIZES:
        cells = []
        for cores in CORES:
            workers, alone = rows * each / cores, rows * command["d"]
            mark = " (command)" if alone > workers else ""
            cells.append(_duration(found["start"] + max(workers, alone)) + mark)
        written = f"{rows * BYTES_A_ROW / 1e9:,.2f} GB"
        print(f"| {rows:,} | {written} | " + " | ".join(cells) + " |")


def _each(found: Fitted, columns: int, trees: int) -> float:
    by = {"a": 1, "b": columns, "c": trees}
    return sum(value * by.get(name, 0) for name, value in _items(found))


def _items(found: Fitted) -> Iterator[tuple[str, float]]:
    return zip(found.names, found.values, strict=True)


def _fit_search(measured: Sequence[tuple[Point, Took]]) -> None:
    searches: dict[str, list[tuple[Point, Took]]] = {}
    for one in measured:
        if one[0].kind == "search":
            searches.setdefault(one[0].engine, []).append(one)
    features: dict[str, Callable[[Point], Any]] = {
        "start": lambda point: 1.0,
        "u": lambda point: float(point.trials),
        "v": lambda point: float(point.trials * point.rows),
    }
    for engine, points in searches.items():
        if len(points) > len(features):
            _print_model(f"a search on {engine}: seconds", fitted(points, features))


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
