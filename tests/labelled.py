"""Predictions with labels, made up: days of them, good or bad on purpose."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from lodestar.core.evaluator import Evaluator
from lodestar.core.labels.codes import Codes
from lodestar.core.labels.judge import Found, LabelledPart, LabelLimits, Reading, judge_labels
from lodestar.core.labels.results import Coverage, JoinCounts, LabelReport
from lodestar.core.performance import Rival
from lodestar.core.roles import TargetReader

__all__ = ["BEGAN", "InMemory", "days", "judged", "rival"]

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
CODES = Codes(TargetReader("classification", ("no", "yes")))
SEGMENTS = {"colour": ["red", "blue"]}


class InMemory:
    """What a join has found, in a list: one table per day, and how many predictions it had."""

    def __init__(
        self, tables: Sequence[pa.Table], predictions: Sequence[int] | None = None
    ) -> None:
        self.tables = list(tables)
        self.predictions = predictions or [table.num_rows for table in tables]

    def parts(self) -> Sequence[LabelledPart]:
        return [
            LabelledPart(
                number, BEGAN + number * DAY, Coverage(count, table.num_rows, 3_600.0, 7_200.0)
            )
            for number, (table, count) in enumerate(zip(self.tables, self.predictions, strict=True))
        ]

    def rows(self, numbers: Sequence[int], most: int) -> pa.Table:
        empty = self.tables[0].slice(0, 0)
        return pa.concat_tables([empty, *(self.tables[at] for at in numbers)]).slice(0, most)


def day(rows: int, draw: np.random.Generator, *, wrong: float, of: str = "both") -> pa.Table:
    """Labels follow the probabilities; a share of those in the segment `of` is turned round."""
    share = draw.uniform(0.02, 0.98, rows)
    target = (draw.uniform(size=rows) < share).astype(np.int32)
    segment = draw.integers(0, 2, rows).astype(np.int32)
    inside = np.ones(rows, bool) if of == "both" else segment == SEGMENTS["colour"].index(of)
    turned = (draw.uniform(size=rows) < wrong) & inside
    target = np.where(turned, 1 - target, target)
    return pa.table(
        {
            "prediction": (share >= 0.5).astype(np.int32),
            "probability_0": 1 - share,
            "probability_1": share,
            "target": target,
            "treatment": np.zeros(rows, np.int32),
            "segment_0": segment,
        }
    )


def days(count: int, rows: int, seed: int, *, wrong_from: int, **how: object) -> list[pa.Table]:
    """Days of predictions; from one of them on two in five labels are turned round."""
    draw = np.random.default_rng(seed)
    return [
        day(rows, draw, wrong=0.4 if at >= wrong_from else 0.0, **how)  # type: ignore[arg-type]  # as `day` takes them
        for at in range(count)
    ]


def rival(seed: int = 1) -> Rival:
    """What training recorded of such predictions."""
    truth, said = CODES.read(day(500, np.random.default_rng(seed), wrong=0.0))
    evaluation = Evaluator("classification", seed=3).evaluate(truth, said)
    return Rival("training", evaluation.metrics, 500)


def judged(
    joined: InMemory,
    *,
    now: datetime = BEGAN + 100 * DAY,
    within: timedelta | None = None,
    limits: LabelLimits = LabelLimits(),  # noqa: B008 -- frozen
) -> LabelReport:
    parts = joined.parts()
    coverage = Coverage(
        sum(part.coverage.predictions for part in parts),
        sum(part.coverage.labelled for part in parts),
        3_600.0,
        7_200.0,
    )
    return judge_labels(
        Found(joined, coverage, replace(JoinCounts(), labels=coverage.labelled), ("key",)),
        Reading(CODES, SEGMENTS, 3),
        rival(),
        limits,
        unit="day",
        within=within,
        now=now,
    )
