"""A sample of what was asked and answered, for drift, labels and parity later: parquet files by hour.

    <folder>/<recipe>/date=2026-11-25/hour=19/<artifact digest>-<process>-<number>.parquet

A row has when, the request's id, its place among the request's rows, and the run; the request's
fields, the model's inputs, the prediction and its probabilities; and which features a policy filled.
Nobody waits for it: rows are kept in memory up to a bound, and a thread writes them. What does not fit,
or cannot be written, is dropped and counted.
"""

import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from os import getpid
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from lodestar.schema import TIMESTAMP, FrameSchema
from lodestar.serving.access_log import Log
from lodestar.serving.scoring import Row
from lodestar.serving.telemetry import Telemetry
from lodestar.serving.version import RowAnswer, ServedVersion
from lodestar.settings.serving import PredictionLog

__all__ = ["PredictionLogger"]

ENDS_WITHIN = 5.0
# Written when so many wait, or when the time has come.
ROWS_AT_ONCE = 20_000
KINDS: dict[type, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
}


@dataclass(frozen=True, slots=True)
class _Kept:
    """One row, as it was when it was answered (µs since 1970)."""

    version: ServedVersion
    at: int
    request_id: str
    place: int
    asked: Row
    answer: RowAnswer


class PredictionLogger:
    """Takes rows at once and writes them from a thread; `close` writes what is left."""

    def __init__(
        self,
        settings: PredictionLog,
        folder: Path,
        telemetry: Telemetry,
        log: Log,
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._telemetry = telemetry
        self._log = log
        self._clock = clock
        self._rows: deque[_Kept] = deque()
        self._draw = random.Random()  # noqa: S311 -- which rows are kept is no secret
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._write_on, name="prediction-log", daemon=True)
        self._thread.start()

    def add(
        self,
        version: ServedVersion,
        request_id: str,
        asked: Row,
        answer: RowAnswer,
        *,
        place: int = 0,
    ) -> None:
        """Keep a row, if it is drawn and there is room; `place` is its own among the request's rows."""
        if self._draw.random() >= self._settings.sample:
            return
        if len(self._rows) >= self._settings.waiting:
            self._telemetry.unlogged(1)
            return
        self._rows.append(_Kept(version, self._clock() // 1_000, request_id, place, asked, answer))
        if len(self._rows) >= ROWS_AT_ONCE:
            self._wake.set()

    def close(self) -> None:
        """Write what is left, unless that takes too long."""
        self._closing = True
        self._wake.set()
        self._thread.join(ENDS_WITHIN)

    def _write_on(self) -> None:
        while not self._closing:
            self._wake.wait(self._settings.flush_seconds)
            self._wake.clear()
            self._flush()
        self._flush()

    def _flush(self) -> None:
        parts: defaultdict[tuple[ServedVersion, str], list[_Kept]] = defaultdict(list)
        for _ in range(len(self._rows)):
            row = self._rows.popleft()
            hour = datetime.fromtimestamp(row.at // 1_000_000, UTC).strftime(
                "date=%Y-%m-%d/hour=%H"
            )
            parts[row.version, hour].append(row)
        for (version, hour), rows in parts.items():
            try:
                self._write(version, hour, rows)
            except OSError as error:
                self._telemetry.unlogged(len(rows))
                reason = error.strerror or "unknown"
                self._log.event("prediction log not written", rows=len(rows), reason=reason)

    def _write(self, version: ServedVersion, hour: str, rows: Sequence[_Kept]) -> None:
        """One file, which nobody sees before it is whole."""
        folder = self._folder / version.contents.recipe_name / hour
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{version.run.digest[:12]}-{getpid()}-{uuid4().hex[:12]}.parquet"
        aside = folder / f".{name}.tmp"
        try:
            pq.write_table(_table(version, rows), aside)
            aside.rename(folder / name)
        finally:
            aside.unlink(missing_ok=True)


def _table(version: ServedVersion, rows: Sequence[_Kept]) -> pa.Table:
    contents = version.contents
    columns: dict[str, pa.Array] = {
        "logged_at": pa.array([row.at for row in rows], TIMESTAMP),
        "request_id": pa.array([row.request_id for row in rows]),
        "request_row": pa.array([row.place for row in rows], pa.int64()),
        "run_id": pa.array([version.run.run_id] * len(rows)),
        "artifact_digest": pa.array([version.run.digest] * len(rows)),
        "degraded": pa.array([row.answer.degraded for row in rows]),
        "missing": pa.array([list(row.answer.missing) for row in rows], pa.list_(pa.string())),
        "stale": pa.array([list(row.answer.stale) for row in rows], pa.list_(pa.string())),
    }
    asked = FrameSchema(tuple(field.column for field in version.request.fields))
    columns |= _columns(asked, [row.asked for row in rows])
    columns |= _columns(contents.feature_schema, [row.answer.inputs for row in rows])
    said = [row.answer.prediction for row in rows]
    columns["prediction"] = pa.array(said, KINDS[type(said[0])])
    for label in contents.target.classes:
        shares = [(row.answer.probabilities or {}).get(str(label)) for row in rows]
        columns[f"probability_{label}"] = pa.array(shares, pa.float64())
    return pa.table(columns)


def _columns(schema: FrameSchema, rows: Sequence[Row]) -> dict[str, pa.Array]:
    """Columns of plain values, with the types of training."""
    arrow = schema.arrow()
    return {
        field.name: _array(values, field.type)
        for field, values in zip(arrow, zip(*rows, strict=True), strict=True)
    }


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_floating(kind):
        values = [None if value is None else float(value) for value in values]
    return pa.array(values, kind)
