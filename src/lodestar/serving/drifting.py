"""What a served model is asked, compared with its training: windows, judged away from the requests.

Answering a row costs it a look at a counter: some rows of every few seconds are kept as they were
answered. A thread counts them, and judges the window when its time is over.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import pyarrow as pa

from lodestar.artifact.contents import ArtifactContents
from lodestar.core.drift.judge import judge
from lodestar.core.drift.sketches import Reference, Window
from lodestar.core.drift.verdict import DriftReport, Limits
from lodestar.schema import FrameSchema
from lodestar.serving.telemetry import Telemetry

__all__ = ["SETTLE_SECONDS", "DriftWindows", "JudgedWindow"]

# Every so often what was kept is counted; at most so many rows are kept in between.
SETTLE_SECONDS = 5.0
MOST_KEPT = 500


class Answered(Protocol):
    """One row as it was answered."""

    @property
    def inputs(self) -> Sequence[Any]:
        """The model's inputs, in the order of the artifact's `feature_schema`."""
        ...

    @property
    def prediction(self) -> Any:  # noqa: ANN401 -- a label or a number
        """What the model says."""
        ...

    @property
    def probabilities(self) -> dict[str, float] | None:
        """Label → share, where the model has them."""
        ...


@dataclass(frozen=True)
class JudgedWindow:
    """A window that is over."""

    began: datetime
    ended: datetime
    report: DriftReport

    def plain(self) -> dict[str, Any]:
        """Plain values for `/metadata`: which columns changed, and how; no values of rows."""
        return {
            "began": self.began.isoformat(timespec="seconds"),
            "ended": self.ended.isoformat(timespec="seconds"),
            "rows": self.report.rows,
            "verdict": self.report.verdict,
            "drifted": [
                {
                    "column": column.name,
                    "role": column.role,
                    "importance": column.importance,
                    "psi": column.psi,
                    "changes": [finding.kind for finding in column.findings],
                }
                for column in self.report.drifted
            ],
        }


class DriftWindows:
    """One version's windows. `offer` is called by requests, `settle` by one thread at a time."""

    def __init__(
        self,
        reference: Reference,
        limits: Limits,
        contents: ArtifactContents,
        *,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.last: JudgedWindow | None = None
        self._reference = reference
        self._limits = limits
        self._schema: FrameSchema = contents.feature_schema
        self._labels = tuple(map(str, contents.target.classes))
        self._seconds = seconds
        self._clock = clock
        self._kept: list[Answered] = []
        self._begin()

    def offer(self, answers: Sequence[Answered]) -> None:
        """Keep rows that were answered, as far as there is room."""
        room = MOST_KEPT - len(self._kept)
        if room > 0:
            self._kept.extend(answers[:room])

    def settle(self, telemetry: Telemetry, run_id: str) -> None:
        """Count what was kept; judge the window if its time is over, and tell the metrics."""
        kept, self._kept = self._kept, []
        if kept:
            self._window.add(self._columns(kept), len(kept))
        if self._clock() < self._ends or not self._window.rows:
            return
        report = judge(self._window, self._limits)
        self.last = JudgedWindow(self._began, datetime.now(UTC), report)
        telemetry.drift(run_id, len(report.drifted), report.rows)
        for column in report.columns:
            if column.psi is not None:
                telemetry.column_drift(run_id, column.name, column.psi)
        self._begin()

    def _begin(self) -> None:
        self._window = Window(self._reference)
        self._began = datetime.now(UTC)
        self._ends = self._clock() + self._seconds

    def _columns(self, rows: Sequence[Answered]) -> dict[str, pa.Array | Sequence[Any]]:
        columns: dict[str, pa.Array | Sequence[Any]] = {
            field.name: _counted(values, field.type)
            for field, values in zip(
                self._schema.arrow(), zip(*(row.inputs for row in rows), strict=True), strict=True
            )
        }
        columns["prediction"] = [row.prediction for row in rows]
        for label in self._labels:
            shares = [(row.probabilities or {}).get(label) for row in rows]
            columns[f"probability_{label}"] = shares
        return columns


def _counted(values: Sequence[Any], kind: pa.DataType) -> "pa.Array | Sequence[Any]":
    """What is counted: making Arrow arrays imports pandas, 40 MB that a server need not have."""
    plain = (
        pa.types.is_floating(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_string(kind)
    )
    return values if plain else pa.array(values, kind)
