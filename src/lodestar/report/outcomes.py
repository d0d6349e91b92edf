"""What labels that came later say: how good the predictions were, since when worse, and for whom."""

from collections.abc import Sequence

from lodestar.core.labels.results import (
    Calibration,
    Detail,
    LabelReport,
    Performance,
    Residuals,
    TimePart,
)
from lodestar.core.metrics import find_metric
from lodestar.core.results import MetricEstimate
from lodestar.report import marks, wording
from lodestar.report.better_or_worse import comparison_panel, verdict_mark
from lodestar.report.markup import Html, Node, details, table, tag
from lodestar.report.performance import section

__all__ = ["outcome_verdict", "outcomes"]

MOST_TRENDS = 4
MOST_PARTS = 31
PREFERRED = ("roc_auc", "accuracy", "brier", "log_loss", "rmse", "mae", "r2", "qini", "auuc")
DAY, HOUR = 86_400, 3_600
# What only the detail of a part says, by task.
OWN: dict[str, tuple[str, ...]] = {"classification": ("ece",), "regression": ("bias",)}
ADVICE = (
    "See when it began, which segment it is in, and which features changed with it. Look first for "
    "labels that mean something else than before. If a new model came in at that time, give the alias "
    "back (lodestar rollback); else train again on rows that have these labels."
)
BINS = ("Said", "Predictions", "Said on average", "Happened", "95 % interval")
DECILES = ("Tenth", "Rows", "Predicted uplift", "Observed uplift", "95 % interval")


def outcomes(report: LabelReport) -> Html:
    """The section of the page."""
    whole = report.whole
    if whole is None:
        parts = _parts(report) if report.parts else None
        empty = tag("p", report.why, class_="empty")
        return section("outcomes", "Outcomes", empty, parts, lead=_lead(report))
    comparison = whole.comparison
    return section(
        "outcomes",
        "Outcomes",
        _notice(report),
        comparison_panel(comparison, of_rows=whole.rows) if comparison is not None else None,
        _trends(report) if len(report.judged) > 1 else None,
        _parts(report) if report.parts else None,
        _segments(report) if report.segments else None,
        _detail(whole.detail) if whole.detail is not None else None,
        lead=_lead(report),
    )


def outcome_verdict(report: LabelReport) -> Html:
    """The verdict in a word."""
    return verdict_mark(report.verdict)


def _lead(report: LabelReport) -> str:
    covered = report.coverage
    words = (
        f"{wording.count(covered.labelled)} of {wording.count(covered.predictions, 'prediction')} have "
        f"a label ({covered.share:.0%}), joined by {', '.join(report.keys)}."
    )
    if covered.delay_median is not None and covered.delay_p95 is not None:
        half, most = _span(covered.delay_median), _span(covered.delay_p95)
        words += f" Half of the labels came within {half}, 95 % within {most}."
    sampled = report.whole is not None and report.whole.rows < report.whole.labelled
    if sampled and report.whole is not None:
        words += f" Judged on a sample of {wording.count(report.whole.rows)}."
    return words


def _notice(report: LabelReport) -> Html | None:
    if report.verdict != "degraded":
        return None
    begun: dict[str, list[str]] = {}
    for name in report.lately:
        if (at := report.since(name)) is not None:
            begun.setdefault(f"{at:%Y-%m-%d %H:%M}", []).append(wording.label(name))
    lately = [f"{', '.join(names)} (since {at})" for at, names in sorted(begun.items())]
    worse = [
        f"{each.column} = {each.label}"
        for each in report.segments
        if each.performance.verdict == "degraded"
    ]
    found = [f"Degraded in the last parts: {'; '.join(lately)}."] if lately else []
    found += [f"Worse than before where {'; '.join(worse)}."] if worse else []
    words = tag(
        "div",
        tag("p", " ".join(found)) if found else None,
        tag("p", tag("b", "What to do. "), ADVICE),
    )
    return tag("div", marks.icon("warning"), words, class_="notice warning")


def _trends(report: LabelReport) -> Html:
    names = _shown(report)
    panels = [_trend(report, name) for name in names]
    return tag("div", panels, class_="grid two")


def _trend(report: LabelReport, name: str) -> Html:
    parts = report.parts[-MOST_PARTS:]
    found = [None if part.performance is None else part.performance.value(name) for part in parts]
    points = [None if each is None else (each.value, each.low, each.high) for each in found]
    trained = report.trained.get(name)
    worse = [_is_worse(part, name) for part in parts]
    told = ", ".join(
        f"{_begins(report, part)} {wording.number(each.value)}"
        for part, each in zip(parts, found, strict=True)
        if each is not None
    )
    metric = find_metric(name, report.task)
    lower = metric is not None and metric.direction == "minimize"
    ends = tag(
        "p",
        tag("span", _begins(report, parts[0])),
        tag(
            "span", "" if trained is None else f"dashed: training, {wording.number(trained.value)}"
        ),
        tag("span", _begins(report, parts[-1])),
        class_="muted small ends",
    )
    return tag(
        "div",
        tag(
            "h3",
            wording.title(name),
            tag("small", " lower is better", class_="muted") if lower else None,
        ),
        marks.trend(
            points,
            None if trained is None else trained.value,
            worse,
            alt=f"{wording.title(name)} by {report.unit}: {told}",
        ),
        ends,
        class_="panel",
    )


def _is_worse(part: TimePart, name: str) -> bool:
    comparison = None if part.performance is None else part.performance.comparison
    metrics = () if comparison is None else comparison.metrics
    return any(one.metric == name and one.verdict == "degraded" for one in metrics)


def _parts(report: LabelReport) -> Html:
    names = [*_shown(report), *OWN.get(report.task, ())]
    rows = [
        (
            _begins(report, part),
            wording.count(part.coverage.predictions),
            f"{part.coverage.share:.0%}",
            *(_figure(part.performance, name) for name in names),
            _state(part),
        )
        for part in report.parts
    ]
    titles = (report.unit.title(), "Predictions", "Labelled", *map(wording.title, names), "Verdict")
    shown, before = rows[-MOST_PARTS:], rows[:-MOST_PARTS]
    label = f"Outcomes by {report.unit}"
    older = details(
        f"{wording.count(len(before))} before",
        table(titles, before, label=f"{label}, before", class_="outcomes"),
    )
    return tag(
        "div",
        tag("h3", f"By {report.unit}"),
        table(titles, shown, label=label, class_="outcomes"),
        older if before else None,
        class_="panel",
    )


def _state(part: TimePart) -> Node:
    if part.performance is not None:
        return verdict_mark(part.performance.verdict)
    return tag("span", f"{part.state}: {part.why}", class_="muted")


def _segments(report: LabelReport) -> Html:
    names = _shown(report)
    rows = [
        (
            tag("span", f"{each.column} = {each.label}", class_="feature", title=each.label),
            wording.count(each.performance.rows),
            *(_figure(each.performance, name) for name in names),
            verdict_mark(each.performance.verdict),
        )
        for each in report.segments
    ]
    titles = ("Segment", "Labelled", *map(wording.title, names), "Later against earlier")
    words = (
        "An artifact knows no figures of segments: the verdict compares the later half of the judged "
        "time with the earlier one."
    )
    return tag(
        "div",
        tag("h3", "By segment"),
        tag("p", words, class_="muted small"),
        table(titles, rows, label="Outcomes by segment", class_="outcomes"),
        class_="panel",
    )


def _detail(detail: Detail) -> Html:
    if isinstance(detail, Calibration):
        return _calibration(detail)
    if isinstance(detail, Residuals):
        return _residuals(detail)
    rows = [
        (
            str(each.decile),
            wording.count(each.rows),
            wording.number(each.predicted),
            wording.number(each.observed),
            f"{wording.number(each.low)} to {wording.number(each.high)}",
        )
        for each in detail.deciles
    ]
    return _table_panel("Uplift by tenths of the predicted uplift", None, DECILES, rows)


def _calibration(detail: Calibration) -> Html:
    rows = [
        (
            f"{each.low:.0%} to {each.high:.0%}",
            wording.count(each.rows),
            f"{each.predicted:.1%}",
            f"{each.observed:.1%}",
            f"{each.observed_low:.1%} to {each.observed_high:.1%}",
        )
        for each in detail.bins
    ]
    words = (
        f"Expected calibration error {wording.number(detail.ece)}; "
        f"{wording.number(detail.ece_of_chance)} would be chance with so many rows."
    )
    return _table_panel("Whether probabilities hold", words, BINS, rows)


def _residuals(detail: Residuals) -> Html:
    bias = detail.bias
    words = (
        f"Predictions are {wording.number(bias.value)} above the truth on average "
        f"({wording.number(bias.low)} to {wording.number(bias.high)})."
    )
    rows = [(f"{share:.0%}", wording.number(value)) for share, value in detail.quantiles]
    return _table_panel("Prediction minus truth", words, ("Quantile", "Error"), rows)


def _table_panel(
    title: str, words: str | None, titles: Sequence[str], rows: Sequence[Sequence[Node]]
) -> Html:
    return tag(
        "div",
        tag("h3", title),
        tag("p", words, class_="muted small") if words else None,
        table(titles, rows, label=title, class_="outcomes"),
        class_="panel",
    )


def _shown(report: LabelReport) -> list[str]:
    there = {} if report.whole is None else report.whole.metrics
    return [name for name in PREFERRED if name in there][:MOST_TRENDS]


def _figure(cell: Performance | None, name: str) -> Node:
    estimate: MetricEstimate | None = None if cell is None else cell.value(name)
    if estimate is None:
        return ""
    if estimate.low == estimate.high:
        return wording.number(estimate.value)
    ends = f"{wording.number(estimate.low)} to {wording.number(estimate.high)}"
    return (wording.number(estimate.value), tag("small", ends, class_="muted"))


def _begins(report: LabelReport, part: TimePart) -> str:
    return f"{part.begins:%Y-%m-%d}" if report.unit == "day" else f"{part.begins:%Y-%m-%d %H:%M}"


def _span(seconds: float) -> str:
    if seconds >= DAY:
        return f"{seconds / DAY:.1f} days"
    return f"{seconds / HOUR:.1f} hours" if seconds >= HOUR else f"{seconds / 60:.1f} minutes"
