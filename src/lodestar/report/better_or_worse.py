"""Whether the model does better or worse than the baseline and the champion."""

from collections.abc import Sequence

from lodestar.core.performance import Comparison, MetricVerdict
from lodestar.report import marks, wording
from lodestar.report.markup import Html, Node, table, tag
from lodestar.report.performance import section

__all__ = ["better_or_worse", "comparison_panel", "verdict_mark"]

HEADERS = ("Metric", "This model", "Compared with", "Change", "Interval of the change", "Verdict")
LEAD = (
    "Changes are relative, and positive where this model is better. The intervals come from the "
    "bootstrap over the test rows and hold together with 95 %; a verdict needs a change beyond the "
    "config's threshold and an interval that does not reach 0."
)


def better_or_worse(comparisons: Sequence[Comparison]) -> Html:
    """A table per rival."""
    panels = [comparison_panel(each) for each in comparisons]
    return section("rivals", "Better or worse", tag("div", panels, class_="grid one"), lead=LEAD)


def comparison_panel(comparison: Comparison, *, of_rows: int | None = None) -> Html:
    """One rival, metric by metric; `of_rows` says how many labelled rows were judged."""
    article = "" if comparison.against == "training" else "the "
    name = f"Against {article}{comparison.against}"
    if of_rows is not None:
        name = (
            f"{wording.count(of_rows, 'labelled prediction')} against {article}{comparison.against}"
        )
    if comparison.run_id is not None:
        name += f" (run {comparison.run_id[:8]})"
    body: Node = tag("p", comparison.why, class_="empty")
    if comparison.metrics:
        body = table(HEADERS, map(_row, comparison.metrics), label=name)
    return tag("div", tag("h3", name, ": ", verdict_mark(comparison.verdict)), body, class_="panel")


def _row(one: MetricVerdict) -> tuple[Node, ...]:
    interval = (
        "" if one.low is None or one.high is None else f"{_signed(one.low)} to {_signed(one.high)}"
    )
    return (
        wording.title(one.metric),
        "" if one.value is None else wording.number(one.value),
        "" if one.rival is None else wording.number(one.rival),
        "" if one.change is None else _signed(one.change),
        interval,
        (verdict_mark(one.verdict), f" {one.why}" if one.why else None),
    )


def verdict_mark(verdict: str) -> Html:
    """A verdict with its icon."""
    kinds = {"degraded": ("warning", "warning"), "improved": ("ok", "ok")}
    icon, class_ = kinds.get(verdict, ("note", "muted"))
    return tag("span", marks.icon(icon), verdict, class_=f"verdict {class_}")


def _signed(share: float) -> str:
    return f"{100 * share:+.1f} %".replace("-", "\N{MINUS SIGN}")
