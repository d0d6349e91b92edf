"""The values that the core hands on: what was trained, how well it does, and what to know about it."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CausalCurves",
    "ClassificationCurves",
    "ColumnProfile",
    "Curve",
    "Curves",
    "DataProfile",
    "Evaluation",
    "Importance",
    "LeakageFinding",
    "MetricEstimate",
    "Predictions",
    "RegressionCurves",
    "Task",
    "Truth",
    "UpliftDecile",
    "bits",
]

Task = Literal["classification", "regression", "causal"]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Predictions:
    """What a model says of n rows.

    Classification: `values` are class positions 0..k-1 into `classes` (n,), `probabilities` (n, k)
    or None where the estimator has none. Regression: `values` in the target's unit (n,). Causal:
    `values` are uplifts (n,), the outcome's difference that the treatment makes.
    """

    values: NDArray[Any]
    probabilities: NDArray[Any] | None = None
    classes: tuple[Any, ...] = ()

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Truth:
    """What happened in n rows.

    `target` (n,): class positions for classification, values for regression, outcomes for causal;
    `treatment` (n,): 1 where treated, 0 else, causal only.
    """

    target: NDArray[Any]
    treatment: IntArray | None = None
    classes: tuple[Any, ...] = ()

    def __len__(self) -> int:
        return len(self.target)

    def at(self, positions: IntArray) -> "Truth":
        """What happened in these rows alone."""
        treatment = None if self.treatment is None else self.treatment[positions]
        return Truth(self.target[positions], treatment, self.classes)


@dataclass(frozen=True)
class MetricEstimate:
    """A metric on held-out rows with its 95 % bootstrap percentile interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """Points of one line: x and y of equal length, thinned to a few hundred for drawing."""

    name: str
    x: FloatArray
    y: FloatArray


@dataclass(frozen=True)
class ClassificationCurves:
    """ROC, precision-recall and calibration per class (the positive one alone if binary), and counts.

    `confusion` (k, k): rows are true classes, columns predicted ones, in the order of `classes`.
    """

    classes: tuple[str, ...]
    confusion: IntArray
    roc: tuple[Curve, ...] = ()
    precision_recall: tuple[Curve, ...] = ()
    calibration: tuple[Curve, ...] = ()


@dataclass(frozen=True)
class RegressionCurves:
    """Up to 2,000 sampled points: predicted against actual values, in the target's unit."""

    actual: FloatArray
    predicted: FloatArray


@dataclass(frozen=True)
class UpliftDecile:
    """One tenth of the rows, by predicted uplift from highest to lowest.

    `observed` is mean outcome of treated minus that of control rows in the tenth; `low` and `high`
    its 95 % normal interval; NaN where one of the two groups is empty.
    """

    decile: int
    rows: int
    predicted: float
    observed: float
    low: float
    high: float


@dataclass(frozen=True)
class CausalCurves:
    """Qini curve (share of rows targeted → incremental outcomes per row) and its random line."""

    qini: Curve
    random: Curve
    deciles: tuple[UpliftDecile, ...]


Curves = ClassificationCurves | RegressionCurves | CausalCurves


@dataclass(frozen=True)
class Evaluation:
    """How the model does on rows that it never saw."""

    task: Task
    rows: int
    metrics: dict[str, MetricEstimate]
    curves: Curves

    def values(self) -> dict[str, float]:
        """Metric name → point estimate."""
        return {name: estimate.value for name, estimate in self.metrics.items()}


@dataclass(frozen=True)
class Importance:
    """How much a feature matters.

    `kind` says how it was measured: "permutation" is the drop of `metric` on held-out rows when the
    column is shuffled (mean and standard deviation over repeats); "shap" the mean absolute TreeSHAP
    contribution of a preprocessed column (`std` is 0).
    """

    feature: str
    mean: float
    std: float
    kind: Literal["permutation", "shap"]
    metric: str = ""


@dataclass(frozen=True)
class ColumnProfile:
    """One raw column of the training rows at a glance.

    Numeric and timestamp columns fill `minimum`, `mean`, `maximum` (timestamps as ISO text) and
    `histogram` (counts of 20 equal bins from minimum to maximum); others fill `top`.
    """

    name: str
    type: str
    rows: int
    nulls: int
    distinct: int
    role: str
    minimum: str = ""
    mean: str = ""
    maximum: str = ""
    histogram: tuple[int, ...] = ()
    top: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class DataProfile:
    """Every column of the augmented frame, in its order."""

    rows: int
    columns: tuple[ColumnProfile, ...]


@dataclass(frozen=True)
class LeakageFinding:
    """One way in which held-out rows may not be as unseen as they should be.

    `name`: duplicate_rows | shared_entities | target_proxy | timestamp_after_event.
    """

    name: str
    what: str
    hint: str
    rows: int = 0
    columns: tuple[str, ...] = field(default=())


def bits(values: NDArray[Any]) -> tuple[str, bytes]:
    """What makes values the same to the bit: -0.0 == 0.0, and NaN != NaN."""
    return values.dtype.str, values.tobytes()
