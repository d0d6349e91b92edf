"""What a terminal shows: lines that fit it, and names that are no markup."""

import io
import re
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from rich.console import Console

from lodestar.artifact.stored_runs import StoredRun
from lodestar.cli.drawing import print_facts
from lodestar.cli.edge import Out
from lodestar.cli.present import RunsView, VerifyView
from lodestar.cli.progress import ConsoleProgress
from lodestar.errors import UsageError
from lodestar.pipelines.verify import VerifiedRun

NARROW, WIDE = 80, 120
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def shown(draw: Callable[[Console], None], width: int) -> list[str]:
    """The lines that a terminal of so many columns is given, without their colours."""
    file = io.StringIO()
    draw(Console(file=file, width=width, force_terminal=True, highlight=False))
    return re.split(r"[\r\n]+", CODES.sub("", file.getvalue()))


def run(name: str) -> StoredRun:
    return StoredRun(
        run_id="9694dc11e34c412e835812901d5c145c",
        run_name=name,
        status="FINISHED",
        started=datetime(2026, 11, 26, 16, 0, tzinfo=UTC),
        recipe="uplift_model_exp3",
        task="classification",
        class_path="sklearn.ensemble.RandomForestClassifier",
        digest="ab" * 32,
        metrics={"roc_auc": 0.999, "accuracy": 0.98, "log_loss": 0.04},
        params={},
    )


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_each_run_takes_one_line_of_the_list(width: int) -> None:
    lines = shown(RunsView([run("one"), run("two")]).print, width)
    rows = [line for line in lines if line.strip()]
    assert len(rows) == 3
    assert all(line.startswith("9694dc11") and "roc_auc 0.9990" in line for line in rows[1:])
    assert ("RandomForestClassifier" in rows[1]) is (width == WIDE)


def test_progress_stays_on_one_line_whatever_the_name_of_what_it_does() -> None:
    def work(console: Console) -> None:
        with ConsoleProgress(console) as progress:
            progress.stage("Scoring with " + "x" * 100)
            progress.rows(10, None)

    during = [line for line in shown(work, NARROW) if "Scoring" in line and "✓" not in line]
    assert during
    assert all(len(line) <= NARROW and line.endswith("…") for line in during)


def test_a_name_in_progress_is_no_markup() -> None:
    def work(console: Console) -> None:
        with ConsoleProgress(console) as progress:
            progress.stage("Reading [bold]rows")

    lines = shown(work, NARROW)
    assert any(line.startswith("✓ Reading [bold]rows") for line in lines)


def test_a_warning_of_verify_stands_in_the_place_of_its_check() -> None:
    verified = VerifiedRun("9694", "one", "ab" * 32, 115, 5, ("numpy 2.3 is here [was 2.2]",))
    manifest, lock, probe, end = shown(VerifyView(verified).print, NARROW)
    assert manifest.startswith("✓ manifest")
    assert lock == "! lock       numpy 2.3 is here [was 2.2]"
    assert probe.startswith("✓ probe")
    assert not end


def test_only_the_mark_of_a_line_is_coloured() -> None:
    file = io.StringIO()
    console = Console(file=file, width=NARROW, force_terminal=True, highlight=False)
    print_facts(console, ("report", "report.html"))
    with ConsoleProgress(console) as progress:
        progress.note("look")
        progress.stage("Reading")
    said = file.getvalue()
    assert said.startswith("\x1b[2mreport  \x1b[0mreport.html\n\x1b[33mnote: \x1b[0mlook\n")
    assert "\x1b[32m✓ \x1b[0mReading\x1b[2m  0.0 s\x1b[0m\n" in said


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stderr", "variables", "begins"),
    [
        (Terminal, {}, "\x1b[1;31merror: \x1b[0mno [b]"),
        (Terminal, {"NO_COLOR": "1"}, "\x1b[1merror: \x1b[0mno [b]"),
        (io.StringIO, {}, "error: no [b]"),
    ],
)
def test_an_error_is_red_where_colours_are_seen(
    monkeypatch: pytest.MonkeyPatch,
    stderr: type[io.StringIO],
    variables: dict[str, str],
    begins: str,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    terminal = stderr()
    monkeypatch.setattr("sys.stderr", terminal)
    wrong = UsageError("no [b] " + "x" * 300, hint="another")
    Out(as_json=False, stdout=io.StringIO()).error(wrong)
    said = terminal.getvalue()
    assert said.startswith(begins)
    assert said.endswith("x" * 300 + "\n  hint: another\n")
