"""Tables and next commands on a narrow terminal: no word is broken, what is spared is left out."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console
from rich.text import Text
from tests.labelled import InMemory, days, judged
from tests.unit.test_cli_views import NARROW, WIDE, shown

from lodestar.cli.alert_views import AlertsView, print_outcome
from lodestar.cli.drawing import fitting_table, plain_cells, print_next
from lodestar.cli.label_views import print_labels
from lodestar.cli.staleness_views import StatusView
from lodestar.core.alerts.readings import Series
from lodestar.core.alerts.rules import Alert, Kept
from lodestar.core.alerts.telling import AlertState
from lodestar.core.staleness import Ages, StalenessLimits, ViewStatus
from lodestar.factory.alerts import AlertOutcome
from lodestar.pipelines.staleness import FeatureStatus

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROW = {"name": "user_purchase_summary", "state": "never materialised", "until": "2026-03-01 12:00"}


def titles(rows: Sequence[dict[str, Text]], spare: Sequence[str], width: int) -> list[str]:
    table = fitting_table(Console(width=width), rows, spare)
    return [str(column.header) for column in table.columns]


def test_columns_are_spared_one_by_one_until_the_others_fit() -> None:
    rows = [plain_cells(ROW)]
    assert titles(rows, ("until", "state"), 59) == ["name", "state", "until"]
    assert titles(rows, ("until", "state"), 58) == ["name", "state"]
    assert titles(rows, ("until", "state"), 30) == ["name"]
    assert titles(rows, ("state",), 58) == ["name", "until"]
    assert titles(rows, (), 10) == ["name", "state", "until"]


def test_a_cell_of_a_table_is_no_markup() -> None:
    table = fitting_table(Console(width=NARROW), [plain_cells({"rule": "[bold]a"})], ())
    assert "[bold]a" in shown(lambda console: console.print(table), NARROW)[1]


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_how_fresh_features_are_takes_a_line_each(width: int) -> None:
    ages = Ages(9, 1.0, 5e7, 6e7, 7e7, 0.5, None)
    views = [
        ViewStatus("product_details", "behind", "12 wait", NOW, NOW, 12, 5e7, ages, 3e8),
        ViewStatus("user_purchase_summary", "never materialised", "never ran"),
    ]
    status = FeatureStatus(NOW, tuple(views), StalenessLimits(timedelta(days=1), 1.0))
    lines = shown(StatusView(status).print, width)
    assert [line.split("  ")[0] for line in lines[:3]] == [
        "namespace",
        *(v.namespace for v in views),
    ]
    assert ("95 %" in lines[0]) is (width == WIDE)
    assert "expired" in lines[0]


def alert(state: str) -> Alert:
    series = Series.of("drift.psi", column="worst_radius", recipe="breast_cancer", source="monitor")
    return Alert(
        "a column is far off",
        "warning",
        "above 0.25",
        "",
        series,
        state,  # type: ignore[arg-type]  # as the parameter says
        NOW.timestamp(),
        0.0,
        0.811628,
        "dbf70ab69f55463d",
    )


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_each_label_of_an_alert_has_a_line_of_its_own(width: int) -> None:
    state = AlertState(Kept({"one": alert("firing")}))
    lines = shown(AlertsView(state, 1, ()).print, width)
    said = "\n".join(lines)
    for words in ("drift.psi ", "column=worst_radius", "recipe=breast_cancer", "source=monitor"):
        assert words in said
    assert ("dbf70ab6" in said) is (width == WIDE)


def test_an_alert_that_is_over_was_beyond_its_bound() -> None:
    outcome = AlertOutcome(begun=(alert("firing"),), resolved=(alert("firing"),))
    begun, over, *_ = shown(lambda console: print_outcome(console, outcome), 200)
    assert begun.startswith("alert ")
    assert begun.endswith("is 0.811628, above 0.25")
    assert over.startswith("over ")
    assert over.endswith("was 0.811628, above 0.25")


def test_no_word_of_a_day_is_broken() -> None:
    report = judged(InMemory(days(3, 200, 1, wrong_from=3)))
    lines = shown(lambda console: print_labels(console, report), NARROW)
    header = next(line for line in lines if line.startswith("day"))
    assert header.split()[:3] == ["day", "predictions", "labelled"]
    rows = [line for line in lines if re.match(r"\d{4}-\d\d-\d\d", line)]
    assert len(rows) == 3
    assert all(row.split()[-1] == "unchanged" for row in rows)


def test_a_long_command_does_not_push_the_words_of_the_others_away() -> None:
    long = "lodestar train " + "x" * 90
    commands = (("lodestar infra down", "stop"), ("lodestar infra status", "look"), (long, "train"))
    lines = shown(lambda console: print_next(console, *commands), 200)
    assert lines[1:4] == [
        "  lodestar infra down    stop",
        "  lodestar infra status  look",
        f"  {long}  train",
    ]
    assert shown(lambda console: print_next(console, (long, "train")), 200)[1] == f"  {long}  train"
