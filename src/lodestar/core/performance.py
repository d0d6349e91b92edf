"""Says whether a model is better or worse than another, and lets noise be noise.

A metric's uncertainty is taken from its bootstrap interval over the test rows, which is there already:
its width over 2 * 1.96 is a standard error. That of a difference is the root of the sum of squares, as
the two models' test rows are different samples; where they are the same rows the errors go together,
and the interval is wider than it had to be: it errs on the side of no alarm. Where several metrics are
looked at, each interval is widened (Bonferroni), so that all of them hold together with 95 %.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, TypeAlias

from lodestar.core.metrics import find_metric
from lodestar.core.results import Evaluation, MetricEstimate, Task

__all__ = ["Comparison", "Judgement", "MetricVerdict", "Rival", "compare", "not_compared"]

Judgement: TypeAlias = Literal["improved", "unchanged", "degraded", "not comparable"]
# "training": the run's own figures of its held-out rows; "earlier": the same rows' own past.
Against: TypeAlias = Literal["baseline", "champion", "training", "earlier"]
# 95 % intervals end so many standard errors from the middle.
ENDS = NormalDist().inv_cdf(0.975)
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Rival:
    """What a model is compared with; `rows` judged it, None for figures that someone set."""

    against: Against
    metrics: Mapping[str, MetricEstimate]
    rows: int | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class MetricVerdict:
    """One metric of both.

    `change` is relative to the rival's value, and positive where the model is better; `low` and `high`
    are its interval. None where they cannot be compared, and `why` says why.
    """

    metric: str
    verdict: Judgement
    value: float | None
    rival: float | None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Comparison:
    """A model against one rival, metric by metric; `why` where nothing could be compared at all."""

    against: Against
    run_id: str | None
    metrics: tuple[MetricVerdict, ...]
    why: str = ""

    @property
    def verdict(self) -> Judgement:
        """Degraded where any metric is; else improved where any is; else unchanged."""
        found = {one.verdict for one in self.metrics}
        order: tuple[Judgement, ...] = ("degraded", "improved", "unchanged")
        return next((each for each in order if each in found), "not comparable")


def compare(
    evaluation: Evaluation, rival: Rival, *, improvement: float, degradation: float, among: int = 1
) -> Comparison:
    """Compare every metric that the rival has.

    Better by at least `improvement`, or worse by at least `-degradation`, and surely so: the interval
    of the change does not reach 0. All intervals hold at once `among` so many comparisons, as of days.
    """
    compared = [name for name in rival.metrics if name in evaluation.metrics]
    # How many standard errors each end lies away, so that all intervals hold at once.
    looked_at = max(len(compared), 1) * max(among, 1)
    reach = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / 2 / looked_at)
    verdicts = tuple(
        _metric(name, evaluation, rival, reach, (improvement, degradation))
        for name in rival.metrics
    )
    return Comparison(rival.against, rival.run_id, verdicts)


def not_compared(against: Against, why: str, run_id: str | None = None) -> Comparison:
    """Nothing could be compared."""
    return Comparison(against, run_id, (), why)


def _metric(
    name: str, evaluation: Evaluation, rival: Rival, reach: float, limits: tuple[float, float]
) -> MetricVerdict:
    mine, theirs = evaluation.metrics.get(name), rival.metrics[name]
    metric = find_metric(name, evaluation.task)
    if mine is None or metric is None:
        why = _why_missing(name, evaluation.task)
        value = None if mine is None else mine.value
        return MetricVerdict(name, "not comparable", value, theirs.value, why=why)
    if not theirs.value:
        why = "a change relative to 0 is no number"
        return MetricVerdict(name, "not comparable", mine.value, theirs.value, why=why)
    sign = 1.0 if metric.direction == "maximize" else -1.0
    size = abs(theirs.value)
    change = sign * (mine.value - theirs.value) / size
    errors = [_error(mine, evaluation.rows)]
    errors += [_error(theirs, rival.rows)] if rival.rows is not None else []
    error = math.hypot(*errors) / size
    low, high = change - reach * error, change + reach * error
    improvement, degradation = limits
    verdict: Judgement = "unchanged"
    if change >= improvement and low > 0:
        verdict = "improved"
    elif change <= degradation and high < 0:
        verdict = "degraded"
    return MetricVerdict(name, verdict, mine.value, theirs.value, change, low, high)


def _error(estimate: MetricEstimate, rows: int) -> float:
    """The standard error; where all draws were alike, three in `rows` could still be otherwise."""
    width = (estimate.high - estimate.low) / (2 * ENDS)
    return width if width > 0 else abs(estimate.value) * 3 / ENDS / max(rows, 1)


def _why_missing(name: str, task: Task) -> str:
    if find_metric(name, task) is None:
        return f"{task} has no {name}"
    return f"{name} is not defined on these rows"
