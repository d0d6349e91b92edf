"""Rows for `monitoring.py`, thirty columns with or without planted changes; and Evidently's way.

The second part runs in an environment without Lodestar: nothing of it is imported here.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CHANGES", "MANY_CHANGED", "Change", "bodies", "evidently", "make"]

GROUP = 1 << 19
CITIES = ("seoul", "busan", "incheon", "daegu", "daejeon", "gwangju")
SHARES = (0.4, 0.25, 0.15, 0.1, 0.06, 0.04)


@dataclass(frozen=True)
class Change:
    """A planted change: in which column, and how it is drawn instead."""

    column: str
    draw: Callable[[Any, int], Any]


def _unit(draw: Any, rows: int) -> Any:  # noqa: ANN401 -- numpy, imported in children alone
    values = draw.normal(170, 10, rows)
    values[draw.random(rows) < 0.01] *= 10
    return values


def _two_hills(draw: Any, rows: int) -> Any:  # noqa: ANN401 -- numpy, imported in children alone
    """Mean 0 and deviation 1, as before."""
    return draw.choice([-0.9, 0.9], rows) + draw.normal(scale=0.436, size=rows)


CHANGES: Mapping[str, Change] = {
    "mean up by half a deviation": Change("n00", lambda draw, rows: draw.normal(0.5, 1, rows)),
    "deviation × 1.5": Change("n01", lambda draw, rows: draw.normal(0, 1.5, rows)),
    "two hills, same mean and deviation": Change("n02", _two_hills),
    "heavier tail": Change("l00", lambda draw, rows: draw.lognormal(0, 1.6, rows)),
    "counts of 3 become 4": Change("i00", lambda draw, rows: draw.poisson(4, rows)),
    "nulls 5 % become 12 %": Change(
        "h00", lambda draw, rows: _holes(draw, draw.normal(size=rows), 0.12)
    ),
    "1 % in another unit": Change("u00", _unit),
    "another mix of categories": Change(
        "c00", lambda draw, rows: draw.choice(CITIES, rows, p=(0.2, 0.4, 0.2, 0.1, 0.06, 0.04))
    ),
    "a new category, 1 %": Change(
        "c01",
        lambda draw, rows: draw.choice(
            (*CITIES, "jeju"), rows, p=(0.39, 0.25, 0.15, 0.1, 0.06, 0.04, 0.01)
        ),
    ),
    "a category of 4 % vanishes": Change(
        "c02", lambda draw, rows: draw.choice(CITIES[:5], rows, p=(0.42, 0.26, 0.15, 0.1, 0.07))
    ),
}
MANY_CHANGED = "+".join(CHANGES)


def make(path: str, rows: str, seed: str, changes: str = "none", kind: str = "bare") -> None:
    """Write seeded rows, half a million at a time."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    planted = (
        {}
        if changes == "none"
        else {CHANGES[name].column: CHANGES[name].draw for name in changes.split("+")}
    )
    draw = np.random.default_rng(int(seed))
    writer = None
    for first in range(0, int(rows), GROUP):
        count = min(GROUP, int(rows) - first)
        drawn = {name: one(draw, count) for name, one in {**_usual(), **planted}.items()}
        columns = {name: _column(pa, values) for name, values in drawn.items()}
        if kind == "labelled":
            score = (
                drawn["n00"] + drawn["n03"] + (drawn["c00"] == "seoul") + draw.normal(size=count)
            )
            columns["bought"] = pa.array((score > 0.5).astype(np.int64))
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _usual() -> dict[str, Callable[[Any, int], Any]]:
    """Thirty columns as they are in training."""
    found: dict[str, Callable[[Any, int], Any]] = {}
    found |= {f"n{at:02}": lambda draw, rows: draw.normal(size=rows) for at in range(8)}
    found |= {f"l{at:02}": lambda draw, rows: draw.lognormal(size=rows) for at in range(5)}
    found |= {f"i{at:02}": lambda draw, rows: draw.poisson(3, rows) for at in range(4)}
    found |= {
        f"h{at:02}": lambda draw, rows: _holes(draw, draw.normal(size=rows), 0.05)
        for at in range(3)
    }
    found |= {f"u{at:02}": lambda draw, rows: draw.normal(170, 10, rows) for at in range(2)}
    found |= {f"b{at:02}": lambda draw, rows: draw.beta(0.5, 3, rows) for at in range(2)}
    found |= {
        f"c{at:02}": lambda draw, rows: draw.choice(CITIES, rows, p=SHARES) for at in range(6)
    }
    return found


def _holes(draw: Any, values: Any, share: float) -> Any:  # noqa: ANN401 -- numpy
    values[draw.random(len(values)) < share] = float("nan")
    return values


def _column(pa: Any, values: Any) -> Any:  # noqa: ANN401 -- pyarrow and numpy, from a child
    """NaN as null, as a warehouse would say it."""
    return pa.array(values, from_pandas=True)


def bodies(path: str, out: str) -> None:
    """The rows as requests, one JSON object per line."""
    import pyarrow.parquet as pq

    rows = pq.read_table(path).to_pylist()
    with open(out, "w", encoding="utf-8") as file:  # noqa: PTH123 -- a child's own folder
        file.writelines(json.dumps(row) + "\n" for row in rows)


def evidently(reference: str, current: str) -> None:
    """Evidently's data drift report, as its documentation runs it; prints scores and verdicts."""
    began = time.perf_counter()
    import pandas as pd
    from evidently import Report  # type: ignore[import-not-found]  # in an environment of its own
    from evidently.presets import DataDriftPreset  # type: ignore[import-not-found]  # as above

    imported = time.perf_counter()
    frames = [pd.read_parquet(path) for path in (reference, current)]
    frames[0] = frames[0].drop(columns="bought")
    read = time.perf_counter()
    made = Report([DataDriftPreset()]).run(frames[1], frames[0])
    report = made.dict()
    ended = time.perf_counter()
    seconds = {"import": imported - began, "read": read - imported, "report": ended - read}
    print(json.dumps({"seconds": seconds, "columns": _said(report)}))


def _said(report: dict[str, Any]) -> dict[str, tuple[float, bool]]:
    """Score and verdict per column."""
    found = {}
    for metric in report["metrics"]:
        config = metric.get("config", {})
        if "column" in config:
            score = float(metric["value"])
            threshold = float(config["threshold"])
            small_is_drift = "p_value" in str(config.get("method", ""))
            found[config["column"]] = (score, (score < threshold) == small_is_drift)
    return found


CHILDREN: Mapping[str, Callable[..., None]] = {
    "make": make,
    "bodies": bodies,
    "evidently": evidently,
}


if __name__ == "__main__":
    CHILDREN[sys.argv[1]](*sys.argv[2:])
