r"""Uplift metrics: how well rows are ranked by the difference that the treatment makes.

Rows stand from the highest predicted uplift to the lowest, equal ones together (so that a constant
prediction is no better than chance, exactly). Among the first share p of the rows, let N_t, N_c be
the treated and control rows and Y_t, Y_c the sums of their outcomes; N is all rows, T all treated.

- Qini curve (Radcliffe 2007, "Using control groups to target on predicted lift"):
  Q(p) = (Y_t - Y_c * N_t / N_c) / T. Dividing by T makes it incremental outcomes per row, whatever
  the share of treated rows. `qini` is the area between Q and the straight line from 0 to Q(1).
- Uplift curve (Gutierrez & Gerardy 2016, "Causal inference and uplift modelling"):
  U(p) = (Y_t / N_t - Y_c / N_c) * (N_t + N_c) / N. `auuc` is the area under U; at random it is half
  the average treatment effect.
- Transformed outcome (Jaskowski & Jaroszewicz 2012, "Uplift modeling for clinical trial data"):
  Z = 1 for treated rows with a good outcome and control rows without, 0 else. `roc_auc` is the AUC
  of predicted uplift for Z. Their identity 2 P(Z = 1 | x) - 1 = uplift(x) wants equally large
  groups, so each group is weighted to one half. An outcome is good where it is above 0; if that
  puts all rows on one side, where it is above the rows' mean (so 1/2-coded outcomes work as well).

An empty group counts as mean outcome 0 at the head of the ranking; outcomes may be continuous. All
three are undefined where a whole group is missing.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lodestar.core.metrics.base import Metric, Ranking, ratio
from lodestar.core.results import FloatArray, Predictions, Truth

__all__ = ["CAUSAL", "CausalRows"]


class CausalRows:
    """Outcomes and treatments in the order of predicted uplift, sorted once."""

    def __init__(self, truth: Truth, predictions: Predictions) -> None:
        if truth.treatment is None:
            raise ValueError("causal metrics need the treatment of every row")
        outcome = np.asarray(truth.target, dtype=np.float64)
        self.ranking = Ranking(np.asarray(predictions.values, dtype=np.float64))
        self.outcome = outcome[self.ranking.order, None]
        self.treated = np.asarray(truth.treatment, dtype=np.float64)[self.ranking.order, None]
        positive = outcome > 0
        good = outcome > outcome.mean() if positive.all() or not positive.any() else positive
        chosen = good[self.ranking.order, None].astype(np.float64)
        self.transformed = self.treated * chosen + (1 - self.treated) * (1 - chosen)

    def weigh(self, weights: FloatArray) -> "CausalDraw":
        """The rows under weights (n, r)."""
        return CausalDraw(self, weights[self.ranking.order])


@dataclass(frozen=True)
class CausalDraw:
    """Ranked rows under weights (n, r), themselves in ranked order."""

    rows: CausalRows
    ranked: FloatArray

    @cached_property
    def both(self) -> "tuple[Group, Group]":
        """Treated and control rows, cumulated down the ranking."""
        treated = self.ranked * self.rows.treated
        return self._cumulate(treated), self._cumulate(self.ranked - treated)

    def _cumulate(self, weights: FloatArray) -> "Group":
        sums = self.rows.ranking.sums
        counts = np.cumsum(sums(weights), axis=0)
        return Group(counts, np.cumsum(sums(weights * self.rows.outcome), axis=0))

    @cached_property
    def complete(self) -> FloatArray:
        """1 (r,) where both groups have rows, NaN else."""
        treated, control = self.both
        return np.where((treated.rows[-1] > 0) & (control.rows[-1] > 0), 1.0, np.nan)

    @cached_property
    def share(self) -> FloatArray:
        """Share of all rows (groups of equal uplift, r) down to and with each group."""
        treated, control = self.both
        reached = treated.rows + control.rows
        return ratio(reached, reached[-1])

    @cached_property
    def qini_curve(self) -> FloatArray:
        """Q at every share (groups, r)."""
        treated, control = self.both
        expected = control.outcomes * ratio(treated.rows, control.rows, empty=0.0)
        return ratio(treated.outcomes - expected, treated.rows[-1])

    @cached_property
    def uplift_curve(self) -> FloatArray:
        """U at every share (groups, r)."""
        treated, control = self.both
        gain = ratio(treated.outcomes, treated.rows, empty=0.0)
        gain -= ratio(control.outcomes, control.rows, empty=0.0)
        return gain * self.share


@dataclass(frozen=True)
class Group:
    """Weighted rows and sums of outcomes (groups of equal uplift, r), cumulated."""

    rows: FloatArray
    outcomes: FloatArray


def _area(share: FloatArray, height: FloatArray) -> FloatArray:
    """Trapezoids under a curve that starts at (0, 0)."""
    step = np.diff(share, axis=0, prepend=0.0)
    middle = height.copy()
    middle[1:] += height[:-1]
    return np.asarray(np.einsum("ij,ij->j", step, middle) / 2)


def _qini(draw: CausalDraw) -> FloatArray:
    area = _area(draw.share, draw.qini_curve) - draw.qini_curve[-1] / 2
    return np.asarray(area * draw.complete)


def _auuc(draw: CausalDraw) -> FloatArray:
    return _area(draw.share, draw.uplift_curve) * draw.complete


def _transformed_auc(draw: CausalDraw) -> FloatArray:
    treated, control = draw.both
    per_treated = ratio(draw.complete, treated.rows[-1])
    per_control = ratio(draw.complete, control.rows[-1])
    is_treated = draw.rows.treated
    balanced = draw.ranked * (is_treated * per_treated + (1 - is_treated) * per_control)
    positive = balanced * draw.rows.transformed
    wins, losses = draw.rows.ranking.sums(positive), draw.rows.ranking.sums(balanced - positive)
    above = np.cumsum(wins, axis=0)
    return ratio(np.einsum("ij,ij->j", losses, above - wins / 2), above[-1] * losses.sum(axis=0))


_UPLIFT = (
    ("auuc", _auuc, "Area under the uplift curve, in outcomes per row; half the effect at random."),
    ("qini", _qini, "Area between Qini curve and random line, in outcomes per row; 0 at random."),
    (
        "roc_auc",
        _transformed_auc,
        "AUC of uplift for the transformed outcome, groups weighted alike; 0.5 at random.",
    ),
)

CAUSAL: tuple[Metric, ...] = tuple(
    Metric(name, ("causal",), "maximize", "uplift", text, CausalRows, kernel)
    for name, kernel, text in _UPLIFT
)
