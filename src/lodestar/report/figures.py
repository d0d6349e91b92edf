"""The performance figures as plain plotly specifications."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.core.results import (
    CausalCurves,
    ClassificationCurves,
    Curve,
    Curves,
    RegressionCurves,
)
from lodestar.report.plots import UNIT_RANGE, Figure, Spec, escaped, floats, guide, layout

__all__ = ["figures"]

PALETTE = ("--c1", "--c2", "--c3", "--c4", "--c5", "--c6")
DASHES = ("solid", "dash", "dot", "dashdot")
RESIDUAL_BINS = 40
MOST_CELLS_IN_WORDS = 12


def figures(curves: Curves) -> tuple[Figure, ...]:
    """The figures that the curves have points for, in reading order."""
    match curves:
        case ClassificationCurves():
            drawn = _classification(curves)
        case RegressionCurves():
            drawn = _regression(curves)
        case CausalCurves():
            drawn = (_qini(curves), _uplift_by_decile(curves))
    return tuple(figure for figure in drawn if figure is not None)


def _classification(curves: ClassificationCurves) -> tuple[Figure | None, ...]:
    return (
        _roc(curves.roc),
        _precision_recall(curves),
        _calibration(curves.calibration),
        _confusion_heatmap(curves),
    )


def _roc(curves: Sequence[Curve]) -> Figure | None:
    if not curves:
        return None
    return Figure(
        "roc",
        "ROC curve",
        f"ROC curve of {_names(curves)}: true positive rate against false positive rate, with the "
        "diagonal of a random guess.",
        (guide("random", (0.0, 1.0), (0.0, 1.0)), *_lines(curves)),
        layout("False positive rate", "True positive rate", unit="xy", legend=len(curves) > 1),
    )


def _precision_recall(curves: ClassificationCurves) -> Figure | None:
    lines = curves.precision_recall
    if not lines:
        return None
    prevalence = _prevalence(curves)
    level = () if prevalence is None else (guide("prevalence", (0.0, 1.0), (prevalence,) * 2),)
    return Figure(
        "precision-recall",
        "Precision and recall",
        f"Precision against recall of {_names(lines)}"
        + ("." if prevalence is None else f"; a random guess has precision {prevalence:.3f}."),
        (*level, *_lines(lines)),
        layout("Recall", "Precision", unit="xy", legend=len(lines) > 1),
    )


def _prevalence(curves: ClassificationCurves) -> float | None:
    """The share of the only curve's class, the precision of a random guess."""
    rows = int(curves.confusion.sum())
    if len(curves.precision_recall) != 1 or not rows:
        return None
    name = curves.precision_recall[0].name
    if name not in curves.classes:
        return None
    return float(curves.confusion[curves.classes.index(name)].sum() / rows)


def _calibration(curves: Sequence[Curve]) -> Figure | None:
    if not curves:
        return None
    return Figure(
        "calibration",
        "Calibration",
        f"Calibration of {_names(curves)}: observed share against mean predicted probability; on "
        "the diagonal the probabilities can be taken at their word.",
        (guide("calibrated", (0.0, 1.0), (0.0, 1.0)), *_lines(curves, mode="lines+markers")),
        layout("Mean predicted probability", "Observed share", unit="xy", legend=len(curves) > 1),
    )


def _confusion_heatmap(curves: ClassificationCurves) -> Figure | None:
    """Only for classes too many to be read in a table."""
    if len(curves.classes) <= MOST_CELLS_IN_WORDS:
        return None
    totals = curves.confusion.sum(axis=1, keepdims=True)
    shares = curves.confusion / np.maximum(totals, 1)
    names = [escaped(name) for name in curves.classes]
    trace: Spec = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": [floats(row) for row in shares],
        "customdata": curves.confusion.tolist(),
        "colorscale": [[0, "--surface"], [1, "--c1"]],
        "zmin": 0,
        "zmax": 1,
        "showscale": False,
        "hovertemplate": "true %{y}, predicted %{x}<br>%{customdata:,} rows, %{z:.1%} of the class"
        "<extra></extra>",
    }
    arranged = layout("Predicted class", "True class")
    arranged["xaxis"] |= {"type": "category", "showgrid": False}
    arranged["yaxis"] |= {"type": "category", "showgrid": False, "autorange": "reversed"}
    alt = f"Confusion matrix of {len(names)} classes as shares of the true class."
    return Figure("confusion", "Confusion matrix", alt, (trace,), arranged)


def _regression(curves: RegressionCurves) -> tuple[Figure, ...]:
    finite = np.isfinite(curves.actual) & np.isfinite(curves.predicted)
    actual, predicted = curves.actual[finite], curves.predicted[finite]
    if not len(actual):
        return ()
    residual = actual - predicted
    ends = (
        float(min(actual.min(), predicted.min())),
        float(max(actual.max(), predicted.max())),
    )
    return (
        Figure(
            "actual-predicted",
            "Actual and predicted",
            f"{len(actual):,} held-out rows: predicted against actual values, with the diagonal of "
            "a perfect model.",
            (_points(actual, predicted, "actual", "predicted"), guide("perfect", ends, ends)),
            layout("Actual", "Predicted"),
        ),
        Figure(
            "residuals",
            "Residuals",
            "Residuals (actual minus predicted) against predicted values; around the zero line "
            "without a pattern is good.",
            (_points(predicted, residual, "predicted", "residual"),),
            layout("Predicted", "Actual \N{MINUS SIGN} predicted", zero=True),
        ),
        _residual_histogram(residual),
    )


def _residual_histogram(residual: NDArray[Any]) -> Figure:
    counts, edges = np.histogram(residual, bins=min(RESIDUAL_BINS, max(5, len(residual) // 10)))
    trace: Spec = {
        "type": "bar",
        "x": floats((edges[:-1] + edges[1:]) / 2),
        "y": counts.tolist(),
        "width": floats(np.diff(edges)),
        "marker": {"color": "--c1", "line": {"width": 1, "color": "--surface"}},
        "hovertemplate": "around %{x:.4~g}: %{y:,} rows<extra></extra>",
    }
    arranged = layout("Actual \N{MINUS SIGN} predicted", "Rows")
    arranged["xaxis"]["showgrid"] = False
    alt = (
        f"Histogram of residuals: mean {residual.mean():.4g}, standard deviation "
        f"{residual.std():.4g}."
    )
    return Figure("residual-histogram", "Residual distribution", alt, (trace,), arranged)


def _qini(curves: CausalCurves) -> Figure | None:
    if not len(curves.qini.x):
        return None
    random = guide("random targeting", curves.random.x, curves.random.y) | {"showlegend": True}
    line = _line(curves.qini, 0) | {
        "name": "model",
        "fill": "tonexty",
        "fillcolor": "--c1-wash",
        "hovertemplate": "%{x:.1%} of rows: %{y:.4~g}<extra></extra>",
    }
    arranged = layout("Share of rows targeted", "Incremental outcomes per row", legend=True)
    arranged["xaxis"] |= {"tickformat": ".0%", "range": UNIT_RANGE}
    alt = (
        "Qini curve: incremental outcomes per row against the share of rows targeted in the order "
        "of predicted uplift, over the line of random targeting."
    )
    return Figure("qini", "Qini curve", alt, (random, line), arranged)


def _uplift_by_decile(curves: CausalCurves) -> Figure | None:
    deciles = curves.deciles
    if not deciles:
        return None
    place = [str(each.decile) for each in deciles]
    observed: Spec = {
        "type": "bar",
        "name": "observed, 95 % interval",
        "x": place,
        "y": floats(each.observed for each in deciles),
        "customdata": [[each.rows, *floats((each.low, each.high))] for each in deciles],
        "marker": {"color": "--c1-soft", "line": {"color": "--c1", "width": 1}},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": floats(each.high - each.observed for each in deciles),
            "arrayminus": floats(each.observed - each.low for each in deciles),
            "color": "--c1",
            "thickness": 1.5,
            "width": 4,
        },
        "hovertemplate": "observed %{y:.4~g} [%{customdata[1]:.4~g}, %{customdata[2]:.4~g}]<br>"
        "%{customdata[0]:,} rows<extra></extra>",
    }
    predicted: Spec = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "predicted",
        "x": place,
        "y": floats(each.predicted for each in deciles),
        "line": {"color": "--c2", "width": 2},
        "marker": {"symbol": "diamond", "size": 8, "color": "--c2"},
        "hovertemplate": "predicted %{y:.4~g}<extra></extra>",
    }
    arranged = layout("Decile, highest predicted uplift first", "Uplift", legend=True, zero=True)
    arranged["xaxis"] |= {"type": "category", "showgrid": False}
    arranged["bargap"] = 0.3
    alt = f"Predicted and observed uplift in {len(deciles)} parts of the rows, highest first."
    return Figure("uplift-deciles", "Uplift by decile", alt, (observed, predicted), arranged)


def _lines(curves: Sequence[Curve], *, mode: str = "lines") -> tuple[Spec, ...]:
    return tuple(_line(curve, place, mode=mode) for place, curve in enumerate(curves))


def _line(curve: Curve, place: int, *, mode: str = "lines") -> Spec:
    colour = PALETTE[place % len(PALETTE)]
    return {
        "type": "scatter",
        "mode": mode,
        "name": escaped(curve.name),
        "x": floats(curve.x),
        "y": floats(curve.y),
        "line": {
            "color": colour,
            "width": 2,
            "dash": DASHES[place // len(PALETTE) % len(DASHES)],
        },
        "marker": {"color": colour, "size": 7},
        "hovertemplate": "(%{x:.3f}, %{y:.3f})",
    }


def _points(x: NDArray[Any], y: NDArray[Any], x_name: str, y_name: str) -> Spec:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": floats(x),
        "y": floats(y),
        "marker": {"color": "--c1", "size": 5, "opacity": 0.45},
        "hovertemplate": f"{x_name} %{{x:.4~g}}<br>{y_name} %{{y:.4~g}}<extra></extra>",
    }


def _names(curves: Sequence[Curve]) -> str:
    return f"class {curves[0].name}" if len(curves) == 1 else f"{len(curves)} classes"
