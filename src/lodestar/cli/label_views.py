"""How it looks what labels that came later say of predictions."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from lodestar.cli.drawing import fitting_table, plain_cells, styled
from lodestar.cli.escaping import escape_control
from lodestar.cli.verdicts import STYLES, performance_json, print_performance

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from lodestar.core.labels.results import LabelReport, Performance, TimePart
    from lodestar.core.results import MetricEstimate

__all__ = ["labels_json", "print_labels"]

MOST_PARTS = 14
MOST_METRICS = 4
PREFERRED = ("roc_auc", "accuracy", "brier", "log_loss", "rmse", "mae", "r2", "qini", "auuc")
DAY, HOUR, MINUTE = 86_400, 3_600, 60


def labels_json(report: LabelReport | None) -> dict[str, Any] | None:
    """All figures of all parts and segments; None where there were no labels."""
    if report is None:
        return None
    metrics = () if report.whole is None else report.whole.metrics
    since = {name: report.since(name) for name in metrics}
    return {
        "verdict": report.verdict,
        "why": report.why,
        "task": report.task,
        "unit": report.unit,
        "keys": list(report.keys),
        "coverage": {**asdict(report.coverage), "share": report.coverage.share},
        "matures_after_seconds": report.matures_after,
        "counts": asdict(report.counts),
        "trained": {name: asdict(each) for name, each in report.trained.items()},
        "whole": _performance(report.whole),
        "lately": list(report.lately),
        "since": {name: at.isoformat() for name, at in since.items() if at is not None},
        "parts": [_part(part) for part in report.parts],
        "segments": [
            {"column": each.column, "label": each.label, **(_performance(each.performance) or {})}
            for each in report.segments
        ],
        "notes": list(report.notes),
    }


def _part(part: TimePart) -> dict[str, Any]:
    return {
        "begins": part.begins.isoformat(),
        "ends": part.ends.isoformat(),
        "state": part.state,
        "why": part.why,
        "coverage": {**asdict(part.coverage), "share": part.coverage.share},
        "performance": _performance(part.performance),
        "segments": [
            {"column": column, "label": label, **(_performance(each) or {})}
            for (column, label), each in part.segments.items()
        ],
    }


def _performance(cell: Performance | None) -> dict[str, Any] | None:
    if cell is None:
        return None
    compared = [] if cell.comparison is None else performance_json([cell.comparison])
    return {
        "verdict": cell.verdict,
        "rows": cell.rows,
        "labelled": cell.labelled,
        "metrics": {name: asdict(each) for name, each in cell.metrics.items()},
        "detail": None
        if cell.detail is None
        else {"kind": type(cell.detail).__name__.lower(), **_defined(asdict(cell.detail))},
        "comparison": compared[0] if compared else None,
    }


def _defined(value: Any) -> Any:  # noqa: ANN401 -- any plain value
    """JSON has no NaN: what is not defined is null."""
    if isinstance(value, dict):
        return {name: _defined(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_labels(console: Console, report: LabelReport) -> None:
    """The verdict, how many labels there are, and the figures of each part."""
    covered = report.coverage
    words = f": {covered.labelled:,} of {covered.predictions:,} predictions have a label"
    if covered.delay_median is not None and covered.delay_p95 is not None:
        half, most = _span(covered.delay_median), _span(covered.delay_p95)
        words += f", half of them after {half}, 95 % after {most}"
    line = styled("labels  ", "dim") + Text(report.verdict, STYLES.get(report.verdict, ""))
    console.print(line + Text(words), soft_wrap=True)
    if report.whole is None:
        console.print(Text(f"  {report.why}"), soft_wrap=True)
    elif report.whole.comparison is not None:
        print_performance(console, [report.whole.comparison])
    begun: dict[datetime, list[str]] = {}
    for name in report.lately:
        if (at := report.since(name)) is not None:
            begun.setdefault(at, []).append(name)
    for at, names in sorted(begun.items()):
        words = f"  degraded since {at:%Y-%m-%d %H:%M} UTC: {', '.join(names)}"
        console.print(Text(words, "red"), soft_wrap=True)
    if report.parts:
        _print_parts(console, report)
    if report.segments:
        _print_segments(console, report)


def _print_parts(console: Console, report: LabelReport) -> None:
    names = _shown(report)
    rows = []
    for part in report.parts[-MOST_PARTS:]:
        cell = part.performance
        figures = {name: _figure(None if cell is None else cell.value(name)) for name in names}
        verdict = f"{part.state}: {part.why}" if cell is None else cell.verdict
        begins = f"{part.begins:%Y-%m-%d}" if report.unit == "day" else f"{part.begins:%m-%d %H:%M}"
        counts = {
            report.unit: begins,
            "predictions": f"{part.coverage.predictions:,}",
            "labelled": f"{part.coverage.share:.0%}",
        }
        rows.append(plain_cells({**counts, **figures, "verdict": verdict}))
    console.print(fitting_table(console, rows, spare=names[:0:-1]))
    if len(report.parts) > MOST_PARTS:
        console.print(f"  and {len(report.parts) - MOST_PARTS} before: see --json", style="dim")


def _print_segments(console: Console, report: LabelReport) -> None:
    names = _shown(report)
    rows = []
    for each in report.segments:
        cell = each.performance
        name = escape_control(f"{each.column} = {each.label}")
        counts = {"segment": name, "labelled": f"{cell.labelled:,}"}
        figures = {metric: _figure(cell.value(metric)) for metric in names}
        rows.append(plain_cells({**counts, **figures, "later half against earlier": cell.verdict}))
    console.print(fitting_table(console, rows, spare=names[:0:-1]))


def _shown(report: LabelReport) -> list[str]:
    there = {} if report.whole is None else report.whole.metrics
    return [name for name in PREFERRED if name in there][:MOST_METRICS]


def _figure(estimate: MetricEstimate | None) -> str:
    if estimate is None:
        return "-"
    half = max(estimate.high - estimate.value, estimate.value - estimate.low)
    return f"{estimate.value:.4f} ±{half:.4f}"


def _span(seconds: float) -> str:
    for size, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} s"
