"""The run report: one HTML page that needs no network."""

from lodestar.report import marks, wording
from lodestar.report.better_or_worse import better_or_worse
from lodestar.report.contents import RunReport
from lodestar.report.markup import Html, Node, tag
from lodestar.report.performance import importance, metrics, performance
from lodestar.report.provenance import (
    data_profile,
    hyperparameters,
    reproduce,
    split_and_leakage,
)
from lodestar.report.search import search
from lodestar.report.shell import Section, shell

__all__ = ["render"]

NAVIGATION: tuple[Section, ...] = (
    ("metrics", "Metrics"),
    ("rivals", "Better or worse"),
    ("performance", "Performance"),
    ("importance", "Importance"),
    ("search", "Search"),
    ("data", "Data"),
    ("split", "Leakage"),
    ("hyperparameters", "Hyperparameters"),
    ("reproduce", "Reproduce"),
)


def render(report: RunReport) -> str:
    """The whole page. The same report gives the same text, byte for byte."""
    without = _absent(report)
    return shell(
        title=f"{report.recipe_name} \N{MIDDLE DOT} {report.run_name}",
        navigation=tuple(each for each in NAVIGATION if each[0] not in without),
        header=_title(report),
        sections=_sections(report),
        footer=f"Lodestar run report \N{MIDDLE DOT} {report.run_id}",
        drawn=True,
    )


def _absent(report: RunReport) -> frozenset[str]:
    """Sections that this run has nothing for."""
    there = {"search": report.tuning is not None, "rivals": bool(report.performance)}
    return frozenset(name for name, shown in there.items() if not shown)


def _title(report: RunReport) -> Html:
    split = report.split
    rows = f"{wording.count(split.train_rows)} train, {wording.count(split.test_rows)} test"
    return tag(
        "header",
        tag("p", f"{report.task} run", class_="eyebrow"),
        tag("h1", report.recipe_name),
        tag(
            "dl",
            _fact("Model", tag("code", report.model_class_path)),
            _fact("Run ID", tag("code", report.run_id)),
            _fact("Trained", tag("time", wording.instant(report.created), datetime=report.created)),
            _fact("Environment", report.environment),
            _fact("Rows", rows),
            _fact("Leakage", _verdict(len(report.findings))),
        ),
        _notes(_own_notes(report)),
    )


def _fact(name: str, value: Node) -> Html:
    return tag("div", tag("dt", name), tag("dd", value))


def _verdict(findings: int) -> Html:
    if not findings:
        return tag("a", marks.icon("ok"), "nothing found", href="#split", class_="verdict ok")
    text = wording.count(findings, "warning")
    return tag("a", marks.icon("warning"), text, href="#split", class_="verdict warning")


def _own_notes(report: RunReport) -> tuple[str, ...]:
    """The run's notes without those of the search, which stand in its section."""
    searched = report.tuning.notes if report.tuning else ()
    return tuple(note for note in report.notes if note not in searched)


def _notes(notes: tuple[str, ...]) -> Html | None:
    if not notes:
        return None
    listed = tag("ul", (tag("li", note) for note in notes))
    return tag(
        "div", marks.icon("note"), listed, class_="notice note", role="note", aria_label="Notes"
    )


def _sections(report: RunReport) -> tuple[Html, ...]:
    return (
        metrics(report.evaluation),
        *((better_or_worse(report.performance),) if report.performance else ()),
        performance(report.evaluation),
        importance(report.importances),
        *((search(report.tuning),) if report.tuning else ()),
        data_profile(report.profile),
        split_and_leakage(report.split, report.findings),
        hyperparameters(report.hyperparameters),
        reproduce(report),
    )
