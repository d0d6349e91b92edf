"""What the model was made from: data, split, hyperparameters, and how to make it again."""

from collections.abc import Sequence

from lodestar.core.results import ColumnProfile, DataProfile, LeakageFinding
from lodestar.report import marks, wording
from lodestar.report.contents import RunReport, SplitSummary
from lodestar.report.markup import Html, Node, details, join, table, tag
from lodestar.report.performance import section

__all__ = ["data_profile", "hyperparameters", "reproduce", "split_and_leakage"]

FIRST_COLUMNS = 40
TOP_VALUES = 3
MANY_NULLS = 0.2
PROFILE_HEADERS = ("Column", "Role", "Type", "Nulls", "Distinct", "Range", "Distribution")
CHECKS = "duplicate rows, shared entities, target proxies and timestamps after the event"


def data_profile(profile: DataProfile) -> Html:
    """A row per column of the augmented frame."""
    lead = (
        f"{wording.count(profile.rows, 'row')}, {wording.count(len(profile.columns), 'column')}, "
        "after the features were joined and before preprocessing."
    )
    if not profile.columns:
        empty = tag("p", "The profile has no columns.", class_="empty")
        return section("data", "Data profile", empty)
    first, rest = profile.columns[:FIRST_COLUMNS], profile.columns[FIRST_COLUMNS:]
    folded = (
        details(wording.count(len(rest), "more column"), _columns(rest, "Data profile, the rest"))
        if rest
        else None
    )
    body = tag("div", _columns(first, "Data profile"), folded, class_="panel")
    return section("data", "Data profile", body, lead=lead)


def split_and_leakage(split: SplitSummary, findings: Sequence[LeakageFinding]) -> Html:
    """How rows were set aside, and whether the test set was as unseen as it should be."""
    return section(
        "split",
        "Split and leakage",
        tag(
            "div",
            tag("div", tag("h3", "Split"), _split_bar(split), _split_facts(split), class_="panel"),
            tag("div", tag("h3", "Leakage checks"), _findings(findings), class_="panel"),
            class_="grid two",
        ),
    )


def hyperparameters(values: Sequence[tuple[str, str]]) -> Html:
    """Name and value of each hyperparameter that the estimator was given."""
    body: Node
    if values:
        rows = ((name, tag("code", value)) for name, value in values)
        body = tag(
            "div",
            table(("Name", "Value"), rows, label="Hyperparameters", class_="pairs"),
            class_="panel",
        )
    else:
        body = tag("p", "None set: the estimator's own defaults were used.", class_="empty")
    return section("hyperparameters", "Hyperparameters", body)


def reproduce(report: RunReport) -> Html:
    """The exact command, and all that it depends on."""
    versions = table(("Package", "Version"), report.versions, label="Versions", class_="pairs")
    return section(
        "reproduce",
        "Reproduce",
        tag(
            "div",
            _code("command", report.reproduce, what="command"),
            tag(
                "dl",
                *_fact("Data fingerprint", tag("code", report.data_fingerprint)),
                *_fact("Run name", tag("code", report.run_name)),
                class_="facts wide",
            ),
            details("Recipe (YAML)", _code("recipe-yaml", report.recipe_yaml, what="recipe")),
            details("Loader SQL", _code("loader-sql", report.sql, what="SQL"))
            if report.sql is not None
            else tag("p", "No SQL: the loader read a data URI.", class_="muted small"),
            details(f"Versions ({len(report.versions)})", versions) if report.versions else None,
            class_="panel",
        ),
    )


def _columns(columns: Sequence[ColumnProfile], label: str) -> Html:
    return table(PROFILE_HEADERS, map(_column, columns), label=label, class_="profile")


def _column(column: ColumnProfile) -> tuple[Node, ...]:
    return (
        tag("span", column.name, class_="feature", title=column.name),
        tag("span", wording.label(column.role), class_=f"chip{_emphasis(column.role)}"),
        tag("code", column.type),
        _nulls(column),
        wording.count(column.distinct),
        _range(column),
        _distribution(column),
    )


def _emphasis(role: str) -> str:
    return " strong" if role in {"target", "treatment"} else ""


def _nulls(column: ColumnProfile) -> Node:
    if not column.nulls:
        return tag("span", "0", class_="muted")
    many = column.nulls > MANY_NULLS * column.rows
    text = wording.share(column.nulls, column.rows)
    return join(
        (
            wording.count(column.nulls),
            tag("small", text, class_="alert" if many else "muted", title="share of rows"),
        )
    )


def _range(column: ColumnProfile) -> Node:
    if not column.minimum and not column.maximum:
        return tag("span", wording.MISSING, class_="muted")
    mean = tag("small", f"mean {column.mean}", class_="muted") if column.mean else None
    low, high = (wording.instant(end) if "T" in end else end for end in _ends(column))
    return join((tag("span", f"{low} to"), " ", tag("span", high), mean))


def _ends(column: ColumnProfile) -> tuple[str, str]:
    return column.minimum, column.maximum


def _distribution(column: ColumnProfile) -> Node:
    if column.histogram:
        alt = f"Histogram of {column.name} from {column.minimum} to {column.maximum}"
        return marks.histogram(column.histogram, alt=alt)
    if not column.top:
        return tag("span", wording.MISSING, class_="muted")
    more = column.distinct - TOP_VALUES
    rest = tag("li", f"and {wording.count(more)} more", class_="muted") if more > 0 else None
    values = (_top_value(value, many, column.rows) for value, many in column.top[:TOP_VALUES])
    return tag("ul", values, rest, class_="top")


def _top_value(value: str, many: int, rows: int) -> Html:
    return tag(
        "li",
        tag("span", value, class_="name", title=value),
        tag("span", wording.share(many, rows), class_="muted"),
        class_="filled",
        style=f"--share:{100 * many / max(rows, 1):.1f}%",
    )


def _split_bar(split: SplitSummary) -> Html:
    parts = (
        ("train", split.train_rows),
        ("test", split.test_rows),
        ("dropped", split.dropped_rows),
    )
    total = sum(rows for _, rows in parts)
    pieces = (
        tag("span", class_=f"part {name}", style=f"flex-grow:{rows}")
        for name, rows in parts
        if rows
    )
    words = ", ".join(f"{name} {wording.share(rows, total)}" for name, rows in parts if rows)
    return tag("div", pieces, class_="parts", role="img", aria_label=f"Split: {words}")


def _split_facts(split: SplitSummary) -> Html:
    total = split.train_rows + split.test_rows + split.dropped_rows
    return tag(
        "dl",
        *_fact("Train", _rows(split.train_rows, total), key="train"),
        *_fact("Test", _rows(split.test_rows, total), key="test"),
        *(
            _fact("Dropped", _rows(split.dropped_rows, total), key="dropped")
            if split.dropped_rows
            else ()
        ),
        *_fact("Method", split.method),
        *_fact("Seed", str(split.seed)),
        class_="facts",
    )


def _rows(rows: int, total: int) -> Html:
    share = tag("span", f" ({wording.share(rows, total)})", class_="muted")
    return join((wording.count(rows, "row"), share))


def _fact(name: str, value: Node, *, key: str = "") -> tuple[Html, Html]:
    swatch = tag("i", class_=f"swatch {key}", aria_hidden="true") if key else None
    return tag("dt", swatch, name), tag("dd", value)


def _findings(findings: Sequence[LeakageFinding]) -> Node:
    if not findings:
        return tag(
            "div",
            marks.icon("ok"),
            tag("div", tag("b", "Nothing found"), tag("p", f"Checked: {CHECKS}.")),
            class_="notice ok",
        )
    return [_finding(finding) for finding in findings]


def _finding(finding: LeakageFinding) -> Html:
    where = [wording.count(finding.rows, "row")] if finding.rows else []
    columns: list[Node] = [tag("code", name) for name in finding.columns]
    spaced = [part for name in columns for part in (" ", name)]
    return tag(
        "div",
        marks.icon("warning"),
        tag(
            "div",
            tag("b", wording.title(finding.name)),
            tag("span", " \N{MIDDLE DOT} ", where) if where else None,
            tag("p", finding.what),
            tag("p", "Columns:", spaced) if columns else None,
            tag("p", tag("b", "Hint: "), finding.hint, class_="hint"),
        ),
        class_="notice warning",
    )


def _code(name: str, text: str, *, what: str) -> Html:
    return tag(
        "div",
        tag(
            "button", "Copy", type="button", data_copy=name, aria_label=f"Copy {what}", hidden=True
        ),
        tag("pre", tag("code", text, id=name), tabindex=0),
        class_="code",
    )
