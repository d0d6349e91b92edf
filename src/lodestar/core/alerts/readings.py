"""What was measured, by name: what alert rules look at. A new source is one more function here.

Names are flat, `family.what`, and lower case; what there are several of has labels: `drift.psi{column}`.
The list of names is `lodestar.settings.alerts.METRICS`; docs/alerts.md says what each means.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lodestar.core.drift.verdict import DriftReport
from lodestar.core.labels.results import LabelReport, Performance
from lodestar.core.performance import Comparison
from lodestar.core.results import Evaluation
from lodestar.core.staleness import ViewStatus

__all__ = ["Measured", "Series", "of_drift", "of_features", "of_labels", "of_performance"]


@dataclass(frozen=True, order=True)
class Series:
    """A name with its labels, in the order of their names: one thing that has one value at a time."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, name: str, /, **labels: str) -> "Series":
        """Such as `Series.of("drift.psi", column="age")`."""
        return cls(name, tuple(sorted(labels.items())))

    def __str__(self) -> str:
        said = ", ".join(f"{key}={value}" for key, value in self.labels)
        return f"{self.name}{{{said}}}" if said else self.name


@dataclass(frozen=True)
class Measured:
    """All that one source has to say of one recipe's model at one time.

    `source` is train, evaluate, batch-inference, monitor, features or serve-api; `run_id` the run
    that was measured; `role` what it is served as, where several are.
    """

    source: str
    recipe: str
    run_id: str
    values: Mapping[Series, float]
    role: str = ""

    @property
    def scope(self) -> dict[str, str]:
        """The labels that all of it has."""
        role = {"role": self.role} if self.role else {}
        return {"source": self.source, "recipe": self.recipe, **role}

    def finite(self) -> dict[Series, float]:
        """The values that are numbers."""
        return {series: value for series, value in self.values.items() if math.isfinite(value)}


def of_performance(
    evaluation: Evaluation, comparisons: Iterable[Comparison]
) -> dict[Series, float]:
    """Each metric, and its change against each rival (relative, positive where better)."""
    found = {Series.of(f"performance.{name}"): value for name, value in evaluation.values().items()}
    for each in comparisons:
        verdicts = [one.verdict for one in each.metrics]
        if each.verdict != "not comparable":
            for word in ("degraded", "improved"):
                key = Series.of(f"performance.{word}", against=each.against)
                found[key] = float(verdicts.count(word))
        for one in each.metrics:
            if one.change is not None:
                key = Series.of(f"performance.change.{one.metric}", against=each.against)
                found[key] = one.change
    return found


def of_drift(report: DriftReport) -> dict[Series, float]:
    """How many columns have changed, and how far each has; only rows where they are too few to tell."""
    found = {Series.of("drift.rows"): float(report.rows)}
    if report.verdict == "too few rows":
        return found
    judged = [column for column in report.columns if column.verdict != "too few rows"]
    found[Series.of("drift.columns")] = float(len(report.drifted))
    found[Series.of("drift.share")] = len(report.drifted) / len(judged)
    for column in judged:
        measures = {
            "alarm": float(column.verdict == "drift"),
            "psi": column.psi,
            "jensen_shannon": column.jensen_shannon,
            "null_rate": column.null_rate,
            "out_of_range": column.out_of_range,
        }
        for name, value in measures.items():
            if value is not None:
                found[Series.of(f"drift.{name}", column=column.name)] = value
    return found


def of_labels(report: LabelReport) -> dict[Series, float]:
    """The task's metrics on labelled predictions: of the last part of the time that is judged.

    Where predictions have no time it is all of them. Segments are of all judged parts.
    """
    found = {
        Series.of("labels.coverage"): report.coverage.share,
        Series.of("labels.degraded"): float(report.verdict == "degraded"),
    }
    if report.coverage.delay_p95 is not None:
        found[Series.of("labels.delay_p95_seconds")] = report.coverage.delay_p95
    last = report.judged[-1].performance if report.judged else report.whole
    if last is not None:
        found |= _of_labelled(last)
    for each in report.segments:
        found |= _of_labelled(each.performance, column=each.column, segment=each.label)
    return found


def _of_labelled(performance: Performance, **labels: str) -> dict[Series, float]:
    names = (*performance.metrics, "ece", "bias")
    values = {name: performance.value(name) for name in names}
    return {
        Series.of(f"labels.{name}", **labels): estimate.value
        for name, estimate in values.items()
        if estimate is not None
    }


def of_features(views: Iterable[ViewStatus]) -> dict[Series, float]:
    """How each namespace stands, how long its versions wait, and how old what is served is."""
    found = {}
    for view in views:
        ages = view.ages
        measures = {
            "stale": float(view.state != "fresh"),
            "lag_seconds": view.lag,
            "waiting": float(view.waiting),
            "age_p95_seconds": None if ages is None else ages.p95,
            "expired": None if ages is None else ages.expired,
        }
        for name, value in measures.items():
            if value is not None:
                found[Series.of(f"features.{name}", namespace=view.namespace)] = value
    return found
