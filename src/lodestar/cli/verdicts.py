"""How verdicts look: whether a model got better or worse, and whether rows changed since training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from lodestar.cli.drawing import add_row, styled, table_of
from lodestar.cli.escaping import escape_control

if TYPE_CHECKING:
    from lodestar.core.drift.verdict import ColumnDrift, DriftReport
    from lodestar.core.performance import Comparison, MetricVerdict

__all__ = ["STYLES", "drift_json", "performance_json", "print_drift", "print_performance"]

STYLES = {"degraded": "red", "improved": "green", "drift": "red", "steady": "green"}
MOST_COLUMNS = 10


def performance_json(comparisons: Iterable[Comparison]) -> list[dict[str, Any]]:
    """Every comparison as plain values."""
    return [{**asdict(each), "verdict": each.verdict} for each in comparisons]


def print_performance(console: Console, comparisons: Iterable[Comparison]) -> None:
    """A line per comparison; the metrics that got better or worse, or cannot be compared, below it."""
    for each in comparisons:
        rival = each.against if each.run_id is None else f"{each.against} {each.run_id[:8]}"
        line = Text(f"against {'' if each.against == 'training' else 'the '}{rival}: ") + Text(
            each.verdict, STYLES.get(each.verdict, "")
        )
        if each.why:
            line += Text(escape_control(f" ({each.why})"), style="dim")
        console.print(line, soft_wrap=True)
        for one in each.metrics:
            if one.verdict != "unchanged":
                console.print(_metric(one), soft_wrap=True)


def _metric(one: MetricVerdict) -> Text:
    if one.change is None or one.low is None or one.high is None:
        return Text(f"  {one.metric}: not comparable, {one.why}", style="dim")
    words = (
        f" by {abs(one.change):.1%} ({one.low:+.1%} … {one.high:+.1%}): {one.value:.4f}, "
        f"was {one.rival:.4f}"
    )
    return Text(f"  {one.metric} ") + Text(one.verdict, STYLES[one.verdict]) + Text(words)


def drift_json(report: DriftReport | None) -> dict[str, Any] | None:
    """A report as plain values; None where nothing was watched."""
    if report is None:
        return None
    return {
        "verdict": report.verdict,
        "rows": report.rows,
        "trained_rows": report.trained_rows,
        "drifted": [column.name for column in report.drifted],
        "columns": [asdict(column) for column in report.columns],
        "limits": asdict(report.limits),
    }


def print_drift(console: Console, report: DriftReport) -> None:
    """One line; then the columns that changed, the most important first."""
    drifted = report.drifted
    said, words = {
        "drift": (
            "found",
            f"{len(drifted)} of {len(report.judged)} columns changed since training",
        ),
        "steady": ("none", f"{len(report.judged)} columns are as in training"),
        "too few rows": ("unknown", f"{report.rows:,} rows are too few to tell"),
    }[report.verdict]
    line = styled("drift   ", "dim") + Text(said, STYLES.get(report.verdict, ""))
    console.print(line + Text(f": {words}"), soft_wrap=True)
    if not drifted:
        return
    table = table_of("column", "importance", "what changed")
    for column in drifted[:MOST_COLUMNS]:
        words_of = "; ".join(finding.words for finding in column.findings)
        add_row(table, escape_control(column.name), _importance(column), escape_control(words_of))
    console.print(table)
    if len(drifted) > MOST_COLUMNS:
        console.print(f"  and {len(drifted) - MOST_COLUMNS} more: see --json", style="dim")


def _importance(column: ColumnDrift) -> str:
    if column.role == "prediction":
        return "prediction"
    return "-" if column.importance is None else f"{column.importance:.0%}"
