"""How good the model is and what it goes by: metrics, performance figures, importance."""

import math
from collections.abc import Sequence

from lodestar.core.results import (
    ClassificationCurves,
    Evaluation,
    Importance,
    MetricEstimate,
)
from lodestar.report import figures, marks, wording
from lodestar.report.markup import Html, Node, details, join, table, tag
from lodestar.report.plots import figure_panel

__all__ = ["importance", "metrics", "performance", "section"]

FIRST_FEATURES = 20
BOUNDED = (
    *("accuracy", "balanced_accuracy", "precision", "recall", "f1", "specificity", "brier"),
    *("roc_auc", "pr_auc", "average_precision", "jaccard", "r2", "explained_variance"),
)
LOWER_IS_BETTER = (
    *("rmse", "mse", "mae", "mape", "smape", "rmsle", "log_loss", "brier", "ece"),
    *("max_error", "median_absolute", "mean_absolute", "mean_squared", "root_mean", "pinball"),
)
MEANINGS = {
    "permutation": "Drop of {metric} on held-out rows when the column is shuffled; the whisker is "
    "one standard deviation over repeats to each side.",
    "shap": "Mean absolute TreeSHAP contribution of each preprocessed column.",
}
TITLES = {"permutation": "Permutation importance", "shap": "SHAP importance"}
EMPTY_PERFORMANCE = (
    "There are no points to draw: the held-out rows are too few, or the estimator gives no "
    "probabilities."
)


def section(name: str, title: str, *content: Node, lead: Node = None) -> Html:
    """A titled part of the page that the navigation leads to."""
    return tag(
        "section",
        tag("h2", title, id=f"{name}-title"),
        tag("p", lead, class_="lead") if lead else None,
        *content,
        id=name,
        aria_labelledby=f"{name}-title",
    )


def metrics(evaluation: Evaluation) -> Html:
    """A card per metric: value, interval in figures and as a bar."""
    lead = (
        f"On {wording.count(evaluation.rows, 'held-out row')}, with 95 % bootstrap intervals. "
        "Bars: from 0 to 1 where the metric is bounded, else from 0."
    )
    cards = [_card(name, estimate) for name, estimate in evaluation.metrics.items()]
    body = tag("div", cards, class_="cards") if cards else _empty("No metric was computed.")
    return section("metrics", "Headline metrics", body, lead=lead)


def performance(evaluation: Evaluation) -> Html:
    """The figures of the task; the confusion matrix is a table while it can be read as one."""
    drawn = figures.figures(evaluation.curves)
    panels = [figure_panel(each) for each in drawn]
    if (
        isinstance(evaluation.curves, ClassificationCurves)
        and all(each.name != "confusion" for each in drawn)
        and evaluation.curves.confusion.sum()
    ):
        panels.append(_confusion(evaluation.curves))
    if not panels:
        return section("performance", "Performance", _empty(EMPTY_PERFORMANCE))
    columns = "three" if len(panels) % 3 == 0 else "two"
    return section("performance", "Performance", tag("div", panels, class_=f"grid {columns}"))


def importance(importances: Sequence[Importance]) -> Html:
    """One ranking per way of measuring, the first twenty open and the rest folded."""
    rankings = [
        _ranking(kind, chosen)
        for kind in TITLES
        if (chosen := [each for each in importances if each.kind == kind])
    ]
    body = (
        tag("div", rankings, class_=f"grid {'two' if len(rankings) > 1 else 'one'}")
        if rankings
        else _empty("Feature importance was not measured for this run.")
    )
    return section("importance", "Feature importance", body)


def _card(name: str, estimate: MetricEstimate) -> Html:
    low, high = wording.number(estimate.low), wording.number(estimate.high)
    known = math.isfinite(estimate.low) and math.isfinite(estimate.high)
    alt = f"95 % interval of {wording.label(name)} from {low} to {high}"
    scale = _scale(name, estimate)
    bar = marks.interval(estimate.value, estimate.low, estimate.high, scale, alt=alt)
    lower = name.startswith(LOWER_IS_BETTER)
    return tag(
        "article",
        tag("h3", wording.title(name), tag("small", "lower is better") if lower else None),
        tag("p", wording.number(estimate.value), class_="value"),
        bar if known else None,
        tag("p", f"{low} to {high}" if known else "no interval", class_="range"),
        class_="card",
    )


def _scale(name: str, estimate: MetricEstimate) -> marks.Scale:
    inside = estimate.low >= 0 and estimate.high <= 1
    if inside and name.startswith(BOUNDED):
        return marks.Scale(0.0, 1.0)
    return marks.Scale.over((estimate.low, estimate.value, estimate.high), room=0.15)


def _confusion(curves: ClassificationCurves) -> Html:
    totals = curves.confusion.sum(axis=1)
    rows = (
        (name, *(_cell(int(many), int(total)) for many in counts))
        for name, counts, total in zip(curves.classes, curves.confusion, totals, strict=True)
    )
    headers = (tag("span", "True \\ predicted", class_="muted"), *curves.classes)
    return tag(
        "figure",
        tag("figcaption", tag("h3", "Confusion matrix")),
        table(headers, rows, label="Confusion matrix", class_="confusion"),
        tag("p", "Rows, and their share of the true class.", class_="muted small"),
        class_="panel",
    )


def _cell(many: int, total: int) -> Html:
    strength = 100 * many / total if total else 0
    return tag(
        "div",
        tag("b", wording.count(many)),
        tag("small", wording.share(many, total)),
        class_="cell",
        style=f"--share:{strength:.1f}%",
    )


def _ranking(kind: str, importances: Sequence[Importance]) -> Html:
    ranked = sorted(importances, key=lambda each: (-each.mean, each.feature))
    ends = [each.mean + sign * each.std for each in ranked for sign in (-1, 1)]
    scale = marks.Scale.over(ends if kind == "permutation" else [each.mean for each in ranked])
    first, rest = ranked[:FIRST_FEATURES], ranked[FIRST_FEATURES:]
    metric = next((wording.label(each.metric) for each in ranked if each.metric), "the metric")
    return tag(
        "div",
        tag("h3", TITLES[kind]),
        tag("p", MEANINGS[kind].format(metric=metric), class_="muted small"),
        _bars(first, scale, label=TITLES[kind]),
        details(
            f"{wording.count(len(rest), 'more feature')}",
            _bars(rest, scale, label=f"{TITLES[kind]}, the rest"),
        )
        if rest
        else None,
        class_="panel",
    )


def _bars(importances: Sequence[Importance], scale: marks.Scale, *, label: str) -> Html:
    rows = ((_feature(each.feature), *_bar(each, scale)) for each in importances)
    headers = ("Feature", tag("span", "Bar", class_="unseen"), "Mean")
    return table(headers, rows, label=label, class_="importances")


def _feature(name: str) -> Html:
    return tag("span", name, class_="feature", title=name)


def _bar(each: Importance, scale: marks.Scale) -> tuple[Html, Html]:
    largest = max(-scale.low, scale.high)
    mean = wording.short(each.mean, largest=largest)
    deviation = wording.short(each.std, largest=largest)
    spread = f" \N{PLUS-MINUS SIGN} {deviation}" if each.std else ""
    bar = marks.whisker_bar(each.mean, each.std, scale, alt=f"{each.feature}: {mean}{spread}")
    return bar, join((mean, tag("span", spread, class_="muted") if spread else None))


def _empty(text: str) -> Html:
    return tag("p", text, class_="empty")
