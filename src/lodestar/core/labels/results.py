"""What labels that came later say of predictions; a rule can name a metric, a time, a segment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

from lodestar.core.performance import Comparison, Judgement
from lodestar.core.results import MetricEstimate, Task, UpliftDecile

__all__ = [
    "Calibration",
    "Coverage",
    "Detail",
    "JoinCounts",
    "LabelReport",
    "Performance",
    "Point",
    "ReliabilityBin",
    "Residuals",
    "SegmentPerformance",
    "State",
    "TimePart",
    "Uplift",
]

# Whether a part of the time is judged, and if not, why not.
State: TypeAlias = Literal["judged", "too early", "labels missing", "too few labels"]
# So many of the last judged parts make what has only begun.
LATELY = 2


@dataclass(frozen=True)
class Coverage:
    """How many predictions have a label, and how long after them it came (seconds; None if unknown)."""

    predictions: int
    labelled: int
    delay_median: float | None = None
    delay_p95: float | None = None

    @property
    def share(self) -> float:
        """Of the predictions that have a label."""
        return self.labelled / self.predictions if self.predictions else 0.0


@dataclass(frozen=True)
class JoinCounts:
    """What became of rows that do not go into any figure.

    `without_prediction`: no prediction has their key. `before`: labels older than every prediction of
    their key. `late`: predictions whose label came after the time that labels may take. `conflicting`:
    labels of one key, and one moment, that disagree. `unknown`: classes that training had not. `empty`:
    labels without a value. `future`: labels dated after now. `keyless`: predictions or labels without a
    key. `ambiguous`: predictions that a request's id alone does not tell apart. `ahead`: predictions
    dated after now. `foreign`: predictions of other artifacts.
    """

    labels: int = 0
    without_prediction: int = 0
    before: int = 0
    late: int = 0
    conflicting: int = 0
    unknown: int = 0
    empty: int = 0
    future: int = 0
    keyless: int = 0
    ambiguous: int = 0
    ahead: int = 0
    foreign: int = 0


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions between `low` and `high`: their mean, and how often what they say happened.

    `observed_low` and `observed_high` are Wilson's 95 % interval.
    """

    low: float
    high: float
    rows: int
    predicted: float
    observed: float
    observed_low: float
    observed_high: float


@dataclass(frozen=True)
class Calibration:
    """Whether probabilities mean what they say: the positive class's, or that of the class said.

    `ece` is the expected calibration error over ten equal bins (Naeini et al. 2015); `ece_of_chance`
    what perfectly calibrated probabilities would show on so few rows.
    """

    ece: float
    ece_of_chance: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class Residuals:
    """Prediction minus truth, in the target's unit: the mean with its 95 % interval, and quantiles."""

    bias: MetricEstimate
    quantiles: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Uplift:
    """Observed uplift by tenths of the predicted one."""

    deciles: tuple[UpliftDecile, ...]


Detail: TypeAlias = Calibration | Residuals | Uplift


@dataclass(frozen=True)
class Performance:
    """Labelled predictions judged together; of very many rows a sample (`rows` of `labelled`).

    `comparison` is None where there is nothing of the kind to compare with.
    """

    rows: int
    labelled: int
    metrics: Mapping[str, MetricEstimate]
    detail: Detail | None = None
    comparison: Comparison | None = None

    @property
    def verdict(self) -> Judgement:
        """Of all metrics together."""
        return "not comparable" if self.comparison is None else self.comparison.verdict

    def value(self, metric: str) -> MetricEstimate | None:
        """A metric of the task, or `ece` or `bias`; None where these rows do not define it."""
        if metric == "ece" and isinstance(self.detail, Calibration):
            return MetricEstimate(self.detail.ece, self.detail.ece, self.detail.ece)
        if metric == "bias" and isinstance(self.detail, Residuals):
            return self.detail.bias
        return self.metrics.get(metric)


@dataclass(frozen=True)
class Point:
    """A metric in one part of the time."""

    begins: datetime
    rows: int
    estimate: MetricEstimate


@dataclass(frozen=True)
class TimePart:
    """One day or hour of predictions, by when they were made (UTC)."""

    begins: datetime
    ends: datetime
    coverage: Coverage
    state: State
    why: str = ""
    performance: Performance | None = None
    segments: Mapping[tuple[str, str], Performance] = field(default_factory=dict)


@dataclass(frozen=True)
class SegmentPerformance:
    """One value, or range, of a column in all judged parts.

    An artifact knows no figures of segments, so the later half of the parts is compared with the
    earlier one: a segment that was always harder raises no alarm.
    """

    column: str
    label: str
    performance: Performance


@dataclass(frozen=True)
class LabelReport:
    """All of it. `parts` are in order of time, none where predictions have no time.

    `matures_after`: seconds after which a part's labels should have come; `trained` what the artifact
    recorded of its held-out rows.
    """

    task: Task
    unit: Literal["day", "hour"]
    keys: tuple[str, ...]
    coverage: Coverage
    counts: JoinCounts
    matures_after: float
    trained: Mapping[str, MetricEstimate]
    whole: Performance | None
    why: str = ""
    parts: tuple[TimePart, ...] = ()
    segments: tuple[SegmentPerformance, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def judged(self) -> tuple[TimePart, ...]:
        """The parts whose labels have come."""
        return tuple(part for part in self.parts if part.state == "judged")

    @property
    def verdict(self) -> Judgement:
        """Of all rows together, a segment of them, or the last parts: degraded where any is."""
        found = {each.performance.verdict for each in self.segments}
        found |= {"not comparable" if self.whole is None else self.whole.verdict}
        found |= {"degraded"} if self.lately else set()
        order: tuple[Judgement, ...] = ("degraded", "improved", "unchanged")
        return next((each for each in order if each in found), "not comparable")

    @property
    def lately(self) -> tuple[str, ...]:
        """Metrics that are degraded in each of the last judged parts, two of them."""
        last = [self._degraded(part) for part in self.judged[-LATELY:]]
        return tuple(sorted(set.intersection(*last))) if len(last) == LATELY else ()

    def since(self, metric: str) -> datetime | None:
        """From when on a metric has been degraded without a break; None where it is not."""
        began = None
        for part in self.judged:
            began = (began or part.begins) if metric in self._degraded(part) else None
        return began

    def series(self, metric: str, segment: tuple[str, str] | None = None) -> tuple[Point, ...]:
        """A metric over the judged parts, of all rows or of one `(column, label)`; see `value`."""
        found = []
        for part in self.judged:
            cell = part.performance if segment is None else part.segments.get(segment)
            estimate = None if cell is None else cell.value(metric)
            if cell is not None and estimate is not None:
                found.append(Point(part.begins, cell.rows, estimate))
        return tuple(found)

    @staticmethod
    def _degraded(part: TimePart) -> set[str]:
        comparison = part.performance.comparison if part.performance is not None else None
        metrics = comparison.metrics if comparison is not None else ()
        return {one.metric for one in metrics if one.verdict == "degraded"}
