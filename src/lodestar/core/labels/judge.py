"""Judges labelled predictions as a whole, by time and by segment; noise raises no alarm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from statistics import median
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa

from lodestar.core.evaluator import Evaluator
from lodestar.core.labels.codes import Codes
from lodestar.core.labels.details import detail_of
from lodestar.core.labels.results import (
    Coverage,
    JoinCounts,
    LabelReport,
    Performance,
    SegmentPerformance,
    State,
    TimePart,
)
from lodestar.core.performance import Comparison, Rival, compare
from lodestar.core.results import Evaluation

__all__ = ["Found", "Joined", "LabelLimits", "LabelledPart", "Reading", "judge_labels"]

# Intervals of cells that are only drawn need not be as fine.
RESAMPLES, FEWER = 200, 100
WHOLE_ROWS = 100_000
PART_ROWS = 20_000


@dataclass(frozen=True)
class LabelLimits:
    """When a part is judged, and from when on a change counts.

    `rows`: fewest labelled rows of a part or segment; `coverage`: the least share of the usual coverage;
    `improvement` and `degradation` relative changes.
    """

    rows: int = 30
    coverage: float = 0.8
    improvement: float = 0.02
    degradation: float = -0.01


@dataclass(frozen=True)
class LabelledPart:
    """One part of the time as the join counted it; `begins` None where predictions have no time."""

    number: int
    begins: datetime | None
    coverage: Coverage


@dataclass(frozen=True)
class Reading:
    """How rows are to be read: the codes of the task, and what the segments' numbers are called."""

    codes: Codes
    segments: Mapping[str, Sequence[str]]
    seed: int


class Joined(Protocol):
    """Predictions joined with labels, kept where they take no memory."""

    def parts(self) -> Sequence[LabelledPart]:
        """Every part that has a prediction, in order of time."""
        ...

    def rows(self, numbers: Sequence[int], most: int) -> pa.Table:
        """Labelled rows of these parts, a sample of `most` where there are more, always the same one."""
        ...


@dataclass(frozen=True)
class Found:
    """What the join says of all rows."""

    joined: Joined
    coverage: Coverage
    counts: JoinCounts
    keys: tuple[str, ...]
    notes: tuple[str, ...] = ()


def judge_labels(
    found: Found,
    reading: Reading,
    trained: Rival,
    limits: LabelLimits,
    *,
    unit: Literal["day", "hour"],
    within: timedelta | None,
    now: datetime,
) -> LabelReport:
    """Judge every part whose labels have come, all of them together, and their segments."""
    length = timedelta(days=1) if unit == "day" else timedelta(hours=1)
    matures = within.total_seconds() if within is not None else found.coverage.delay_p95 or 0.0
    listed = found.joined.parts()
    parts = _parts(listed, length, matures, limits, now)
    numbers = [each.number for each, part in zip(listed, parts, strict=True) if _judged(part)]
    judge = _Judge(found.joined, reading, trained, limits, among=max(len(numbers), 1))
    judged = [
        judge.part(each.number, part) if _judged(part) else part
        for each, part in zip(listed, parts, strict=True)
    ]
    labelled = sum(each.coverage.labelled for each in listed if each.number in set(numbers))
    why = "" if numbers else f"no part of the time is judged yet: {parts[-1].why}"
    return LabelReport(
        task=reading.codes.target.task,
        unit=unit,
        keys=found.keys,
        coverage=found.coverage,
        counts=found.counts,
        matures_after=matures,
        trained=trained.metrics,
        whole=judge.whole(numbers, labelled) if numbers else None,
        why=why,
        parts=tuple(part for part, each in zip(judged, listed, strict=True) if each.begins),
        segments=tuple(judge.segments(numbers)) if numbers and reading.segments else (),
        notes=found.notes,
    )


def _judged(part: TimePart) -> bool:
    return part.state == "judged"


def _parts(
    listed: Sequence[LabelledPart],
    length: timedelta,
    matures: float,
    limits: LabelLimits,
    now: datetime,
) -> list[TimePart]:
    """Which parts are judged: their time has come, with about as many labels as usual."""
    aged = [
        each
        for each in listed
        if each.begins is None or each.begins + length + timedelta(seconds=matures) <= now
    ]
    shares = [each.coverage.share for each in aged if each.coverage.predictions >= limits.rows]
    usual = median(shares) if shares else 0.0
    parts = []
    for each in listed:
        begins = each.begins or now
        state: State = "judged"
        why = ""
        if each not in aged:
            at = begins + length + timedelta(seconds=matures)
            state, why = "too early", f"its labels are due by {at:%Y-%m-%d %H:%M} UTC"
        elif each.coverage.share < limits.coverage * usual:
            state = "labels missing"
            why = (
                f"{each.coverage.share:.0%} of its predictions have a label; usual are {usual:.0%}"
            )
        elif each.coverage.labelled < limits.rows:
            state, why = "too few labels", f"{each.coverage.labelled} of at least {limits.rows}"
        parts.append(TimePart(begins, begins + length, each.coverage, state, why))
    return parts


@dataclass(frozen=True)
class _Judge:
    """Reads rows of parts and says how well they were predicted."""

    joined: Joined
    reading: Reading
    trained: Rival
    limits: LabelLimits
    among: int

    def whole(self, numbers: Sequence[int], labelled: int) -> Performance:
        """All judged parts together."""
        rows = self.joined.rows(numbers, WHOLE_ROWS)
        return self._cell(rows, self.trained, labelled=labelled)

    def part(self, number: int, part: TimePart) -> TimePart:
        """One part, and its segments' figures."""
        rows = self.joined.rows([number], PART_ROWS)
        cell = self._cell(rows, self.trained, among=self.among, labelled=part.coverage.labelled)
        segments = {
            (column, label): self._cell(chosen, None, resamples=FEWER)
            for column in self.reading.segments
            for label, chosen in self._cut(rows, column)
            if chosen.num_rows >= self.limits.rows
        }
        return replace(part, performance=cell, segments=segments)

    def segments(self, numbers: Sequence[int]) -> list[SegmentPerformance]:
        """Every segment in all judged parts, its later half against its earlier one."""
        middle = (len(numbers) + 1) // 2
        halves = [
            self.joined.rows(half, WHOLE_ROWS) for half in (numbers[:middle], numbers[middle:])
        ]
        cut = [
            (column, label, chosen, dict(self._cut(halves[1], column)).get(label))
            for column in self.reading.segments
            for label, chosen in self._cut(halves[0], column)
        ]
        known = {(column, label) for column, label, _, _ in cut}
        cut += [
            (column, label, halves[0].slice(0, 0), chosen)
            for column in self.reading.segments
            for label, chosen in self._cut(halves[1], column)
            if (column, label) not in known
        ]
        return [
            SegmentPerformance(column, label, self._segment(before, after, len(cut)))
            for column, label, before, after in cut
            if before.num_rows + (0 if after is None else after.num_rows) >= self.limits.rows
        ]

    def _segment(self, before: pa.Table, after: pa.Table | None, among: int) -> Performance:
        both = before if after is None else pa.concat_tables([before, after])
        cell = self._cell(both, None)
        if after is None or min(before.num_rows, after.num_rows) < self.limits.rows:
            return cell
        was, now = self._evaluation(before), self._evaluation(after)
        rival = Rival("earlier", was.metrics, was.rows)
        return replace(cell, comparison=self._compared(now, rival, among))

    def _cut(self, rows: pa.Table, column: str) -> list[tuple[str, pa.Table]]:
        """The segments of a column that occur, in the order of their numbers."""
        place = list(self.reading.segments).index(column)
        names = self.reading.segments[column]
        codes = rows.column(f"segment_{place}").to_numpy()
        found: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            found.setdefault(name, []).append(number)
        chosen = [
            (name, rows.filter(pa.array(np.isin(codes, numbers), pa.bool_())))
            for name, numbers in found.items()
        ]
        return [(name, some) for name, some in chosen if some.num_rows]

    def _cell(
        self,
        rows: pa.Table,
        rival: Rival | None,
        *,
        among: int = 1,
        labelled: int | None = None,
        resamples: int = RESAMPLES,
    ) -> Performance:
        truth, predictions = self.reading.codes.read(rows)
        evaluator = Evaluator(
            self.reading.codes.target.task, seed=self.reading.seed, resamples=resamples
        )
        evaluation = evaluator.evaluate(truth, predictions)
        return Performance(
            rows=rows.num_rows,
            labelled=rows.num_rows if labelled is None else labelled,
            metrics=evaluation.metrics,
            detail=detail_of(evaluation, truth, predictions),
            comparison=None if rival is None else self._compared(evaluation, rival, among),
        )

    def _evaluation(self, rows: pa.Table) -> Evaluation:
        task = self.reading.codes.target.task
        return Evaluator(task, seed=self.reading.seed).evaluate(*self.reading.codes.read(rows))

    def _compared(self, evaluation: Evaluation, rival: Rival, among: int) -> Comparison:
        return compare(
            evaluation,
            rival,
            improvement=self.limits.improvement,
            degradation=self.limits.degradation,
            among=among,
        )
