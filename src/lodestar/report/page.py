"""The report as one HTML page that needs no network: style, script and plotly.js are inside it.

Its content security policy allows no request at all and no script but those two, by their hashes.
"""

import base64
import functools
import gzip
import hashlib
from dataclasses import dataclass
from importlib import resources

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

__all__ = ["render"]

# Level 4 makes the page 4 % larger than level 6, in half of the time.
GZIP_LEVEL = 4
NAVIGATION = (
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


@dataclass(frozen=True)
class _Library:
    """plotly.js for the page: gzipped base64 text, and the hash that lets it run."""

    packed: str
    digest: str


def render(report: RunReport) -> str:
    """The whole page. The same report gives the same text, byte for byte."""
    library, script = _plotly(), _bundled("page.js")
    page = tag(
        "html",
        _head(report, policy=_policy(_digest(script.encode()), library.digest)),
        tag(
            "body",
            tag("a", "Skip to the metrics", href="#metrics", class_="skip"),
            _bar(without=_absent(report)),
            _title(report),
            tag("main", _sections(report), id="content"),
            tag("footer", f"Lodestar run report \N{MIDDLE DOT} {report.run_id}"),
            tag("script", Html(library.packed), type="text/plain", id="plotly"),
            tag("script", Html(script)),
        ),
        lang="en",
    )
    return f"<!doctype html>\n{page}\n"


def _head(report: RunReport, *, policy: str) -> Html:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="robots", content="noindex"),
        tag("title", f"{report.recipe_name} \N{MIDDLE DOT} {report.run_name}"),
        tag("style", Html(_bundled("style.css"))),
    )


def _absent(report: RunReport) -> frozenset[str]:
    """Sections that this run has nothing for."""
    there = {"search": report.tuning is not None, "rivals": bool(report.performance)}
    return frozenset(name for name, shown in there.items() if not shown)


def _bar(*, without: frozenset[str]) -> Html:
    links = (tag("a", title, href=f"#{name}") for name, title in NAVIGATION if name not in without)
    return tag(
        "div",
        tag("span", marks.brand(), "Lodestar", class_="name"),
        tag("nav", links, aria_label="Sections"),
        tag(
            "button",
            marks.icon("theme"),
            type="button",
            id="theme",
            aria_label="Switch between light and dark",
            hidden=True,
        ),
        class_="bar",
    )


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


def _policy(*digests: str) -> str:
    scripts = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


@functools.lru_cache(maxsize=1)
def _plotly() -> _Library:
    source = (resources.files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    packed = base64.b64encode(gzip.compress(source, GZIP_LEVEL, mtime=0)).decode("ascii")
    return _Library(packed, _digest(source))


def _digest(source: bytes) -> str:
    return base64.b64encode(hashlib.sha256(source).digest()).decode("ascii")


@functools.lru_cache(maxsize=2)
def _bundled(name: str) -> str:
    return (resources.files("lodestar.report") / name).read_text(encoding="utf-8")
