"""The monitoring page: what changed since training, since when, how sure that is, and what to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lodestar.core.drift.verdict import ColumnDrift, DriftReport, Finding
from lodestar.core.labels.results import LabelReport
from lodestar.report import marks, wording
from lodestar.report.markup import Html, Node, details, table, tag
from lodestar.report.outcomes import outcome_verdict, outcomes
from lodestar.report.performance import section
from lodestar.report.shell import Section, shell

__all__ = ["MonitoringReport", "TimeSlice", "render_monitoring"]

MOST_BARS = 14
MOST_NAMED = 6
MEASURES = (
    *("Column", "Verdict", "Importance", "PSI", "of chance", "Jensen-Shannon"),
    *("Kolmogorov-Smirnov", "No value", "in training", "Out of range"),
)
ADVICE = {
    "shape": "See whether the source, its users or the season changed. Where it is here to stay and the "
    "model goes by this column, train again on newer rows.",
    "nulls": "Look at what fills the column: the join, the age that a feature may have, the last "
    "materialisation.",
    "range": "Look for another unit, a default such as 9999, or a parser that changed. Scaled by "
    "training's range, such values are extreme to the model.",
    "new": "To the model, values that training had not are all alike. Train again once there are "
    "enough rows of them, or map them to known ones in the SQL.",
    "vanished": "See whether rows of this value are lost on their way, or come under another name.",
}
OF_PREDICTIONS = (
    "The model answers otherwise than on the rows that were held out. See which features below changed "
    "with it; judge it as soon as there are labels (lodestar evaluate --data …), and give the alias "
    "back (lodestar rollback) if a new model came in at that time."
)


@dataclass(frozen=True)
class TimeSlice:
    """One part of the time: when it begins, in words, and its own comparison."""

    begins: str
    report: DriftReport


@dataclass(frozen=True)
class MonitoringReport:
    """Everything that the page shows; `since` is, per column, from when on it has drifted, in words.

    `lately` are columns whose drift has only begun, and does not show in all rows together.
    """

    recipe: str
    run_name: str
    run_id: str
    trained_at: str
    source: str
    checked_at: str
    drift: DriftReport
    slices: tuple[TimeSlice, ...] = ()
    since: Mapping[str, str] | None = None
    lately: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    labels: LabelReport | None = None


def render_monitoring(report: MonitoringReport) -> str:
    """The whole page. The same report gives the same text, byte for byte."""
    navigation: list[Section] = [("outcomes", "Outcomes")] if report.labels else []
    navigation += [("changes", "Changes")]
    navigation += [("time", "Over time")] if report.slices else []
    navigation += [("measures", "All columns"), ("method", "Method")]
    return shell(
        title=f"{report.recipe} \N{MIDDLE DOT} drift",
        navigation=navigation,
        header=_header(report),
        sections=(
            outcomes(report.labels) if report.labels else None,
            _changes(report),
            _over_time(report) if report.slices else None,
            _measures(report.drift),
            _method(report.drift),
        ),
        footer=f"Lodestar monitoring \N{MIDDLE DOT} {report.run_id}",
        drawn=False,
    )


def _header(report: MonitoringReport) -> Html:
    drift = report.drift
    notes = tag("ul", (tag("li", note) for note in report.notes))
    return tag(
        "header",
        tag("p", "drift since training", class_="eyebrow"),
        tag("h1", report.recipe),
        tag(
            "dl",
            _fact("Verdict", _verdict(drift, report.lately)),
            _fact("By labels", outcome_verdict(report.labels)) if report.labels else None,
            _fact("Rows compared", wording.count(drift.rows)),
            _fact("With", f"{wording.count(drift.trained_rows)} training rows"),
            _fact("Source", tag("code", report.source)),
            _fact("Run", tag("code", report.run_id)),
            _fact("Trained", wording.instant(report.trained_at)),
            _fact("Checked", wording.instant(report.checked_at)),
        ),
        tag("div", marks.icon("note"), notes, class_="notice note", role="note")
        if report.notes
        else None,
    )


def _fact(name: str, value: Node) -> Html:
    return tag("div", tag("dt", name), tag("dd", value))


def _verdict(drift: DriftReport, lately: Sequence[str]) -> Html:
    if drift.verdict == "drift" or lately:
        changed = len(drift.drifted) + len(lately)
        text = f"{wording.count(changed, 'column')} of {len(drift.judged)} changed"
        return tag("span", marks.icon("warning"), text, class_="verdict warning")
    if drift.verdict == "steady":
        text = f"{wording.count(len(drift.judged), 'column')} as in training"
        return tag("span", marks.icon("ok"), text, class_="verdict ok")
    return tag("span", marks.icon("note"), "too few rows to tell", class_="verdict")


def _changes(report: MonitoringReport) -> Html:
    drifted = report.drift.drifted
    if not drifted:
        words = "Nothing that is both large and more than chance."
        return section("changes", "What changed", tag("p", words, class_="empty"))
    lead = "Predictions first, then by importance times the size of the change."
    legend = tag(
        "p",
        *(
            tag("span", class_="swatch before"),
            "training ",
            tag("span", class_="swatch now"),
            "now",
        ),
        class_="muted small",
    )
    panels = [_panel(column, (report.since or {}).get(column.name)) for column in drifted]
    body = tag("div", panels, class_="changed")
    return section("changes", "What changed", legend, body, lead=lead)


def _panel(column: ColumnDrift, since: str | None) -> Html:
    kind = "prediction" if column.role == "prediction" else "feature"
    facts = [tag("span", kind, class_="chip strong" if kind == "prediction" else "chip")]
    if column.importance is not None:
        facts.append(tag("span", f"importance {column.importance:.0%}", class_="muted small"))
    if since is not None:
        facts.append(tag("span", f"since {since}", class_="alert small"))
    return tag(
        "div",
        tag("h3", column.name, " ", facts),
        tag("ul", (tag("li", _found(each)) for each in column.findings), class_="findings"),
        _bars(column),
        tag("p", tag("b", "What to do. "), _advice(column), class_="advice"),
        class_="panel",
    )


def _found(finding: Finding) -> Node:
    return (finding.words, tag("span", f" {_sure(finding.chance)}", class_="muted"))


def _sure(chance: float) -> str:
    """How often chance alone would look so, in words."""
    if chance < 1e-6:  # noqa: PLR2004 -- smaller figures say no more
        return "(by chance less than once in a million)"
    return f"(by chance once in {wording.count(round(1 / chance))})"


def _advice(column: ColumnDrift) -> str:
    if column.role == "prediction":
        return OF_PREDICTIONS
    kinds = dict.fromkeys(finding.kind for finding in column.findings)
    return " ".join(ADVICE[kind] for kind in kinds)


def _bars(column: ColumnDrift) -> Html | None:
    """The bins side by side, or the most frequent values and the rest."""
    shares = column.shares
    if not shares:
        return None
    if len(shares) > MOST_BARS:
        ranked = sorted(shares, key=lambda share: -max(share.trained, share.now))
        shares = tuple(ranked[:MOST_BARS])
    pairs = [(share.trained, share.now) for share in shares]
    words = "; ".join(f"{each.label}: {each.trained:.1%}, now {each.now:.1%}" for each in shares)
    rows = [(each.label, f"{each.trained:.1%}", f"{each.now:.1%}") for each in shares]
    listed = table(("Values", "Training", "Now"), rows, label=f"Shares of {column.name}")
    return tag("div", marks.paired_bars(pairs, alt=words), details("The shares in figures", listed))


def _over_time(report: MonitoringReport) -> Html:
    counts = [len(part.report.drifted) for part in report.slices]
    first, last = report.slices[0].begins, report.slices[-1].begins
    alt = f"Columns with an alarm, from {first} to {last}: {', '.join(map(str, counts))}"
    rows = [
        (part.begins, wording.count(part.report.rows), _names(part.report))
        for part in report.slices
    ]
    lead = "Each part of the time beside training, by itself; with fewer rows less is found."
    since = report.since or {}
    begun = [f"{name} (since {since[name]})" for name in report.lately if name in since]
    words = f"Only begun, and not yet seen in all rows together: {', '.join(begun)}."
    body = tag(
        "div",
        marks.histogram(counts, alt=alt) if any(counts) else None,
        tag("div", marks.icon("warning"), tag("p", words), class_="notice warning")
        if begun
        else None,
        table(("From (UTC)", "Rows", "Changed"), rows, label="Over time", class_="times"),
        class_="panel",
    )
    return section("time", "Over time", body, lead=lead)


def _names(report: DriftReport) -> str:
    if report.verdict == "too few rows":
        return "too few rows to tell"
    names = [column.name for column in report.drifted]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more if names else "nothing"


def _measures(drift: DriftReport) -> Html:
    rows = [_row(column) for column in drift.columns]
    body = tag("div", table(MEASURES, rows, label="All columns", class_="measures"), class_="panel")
    return section("measures", "All columns", body)


def _row(column: ColumnDrift) -> Sequence[Node]:
    warned = column.verdict == "drift"
    return (
        tag("span", column.name, class_="feature", title=column.name),
        tag("span", column.verdict, class_="alert" if warned else "muted"),
        "prediction" if column.role == "prediction" else _percent(column.importance),
        _figure(column.psi),
        _figure(column.psi_of_chance),
        _figure(column.jensen_shannon),
        _figure(column.kolmogorov_smirnov),
        _percent(column.null_rate),
        _percent(column.trained_null_rate),
        _percent(column.out_of_range),
    )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _method(drift: DriftReport) -> Html:
    limits = drift.limits
    words = (
        "An alarm is a change that is both unlikely to be chance and large. Unlikely: below "
        f"{limits.significance:g} after Benjamini and Hochberg's correction for all tests of all "
        f"columns. Large: a population stability index {limits.psi:g} above what the samples' sizes "
        f"bring about, a share of missing values that moved by {limits.null_rate:.1%}, "
        f"{limits.unseen:.1%} of the rows out of training's range or with new values, or a value of "
        f"{limits.vanished:.1%} that came no more. The artifact has no training rows, only sketches: "
        "quantiles, frequent values, ranges."
    )
    return section("method", "How this was judged", tag("p", words, class_="panel"))
