"""The lines and tables that the views are drawn with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from lodestar.artifact.store import StoredRun
    from lodestar.core.results import Evaluation
    from lodestar.core.tuning.result import TuningResult

__all__ = [
    "add_row",
    "difference",
    "few_metrics",
    "fitting_table",
    "intervals",
    "number",
    "plain_cells",
    "print_evaluation",
    "print_facts",
    "print_next",
    "print_tuning",
    "run_json",
    "styled",
    "table_of",
    "tuning_json",
]


ALIGNED = 60  # columns
UNBOUNDED = 10_000


def tuning_json(tuning: TuningResult | None) -> dict[str, Any]:
    """The search as plain values."""
    if tuning is None:
        return {"enabled": False}
    return {
        "enabled": True,
        "n_trials": tuning.asked,
        "completed": tuning.count("complete"),
        "pruned": tuning.count("pruned"),
        "failed": tuning.count("failed"),
        "metric": tuning.metric,
        "best_params": dict(tuning.best_params),
        "best_score": tuning.best_score,
        "best_score_error": None if math.isnan(tuning.best_error) else tuning.best_error,
        "optimism": None if math.isnan(tuning.optimism) else tuning.optimism,
        "draft_share": tuning.draft_share,
        "finalist_share": tuning.finalist_share,
        "seconds": tuning.seconds,
    }


def print_tuning(console: Console, tuning: TuningResult) -> None:
    """What the search tried, what it chose, and how far the naive best flattered itself."""
    error = "" if math.isnan(tuning.best_error) else f" ± {tuning.best_error:.4f}"
    splits = len(tuning.finalists[0].scores)
    counted = [f"{tuning.count(state)} {state}" for state in ("complete", "pruned", "failed")]
    chosen = [f"{name} {_short(value)}" for name, value in tuning.best_params.items()]
    judged = f"{splits} common split{'' if splits == 1 else 's'}"
    if tuning.finalist_share is not None:
        judged += f" and {tuning.finalist_share:.0%} of the rows"
    honest = f"{tuning.best_score:.4f}{error} expected, from {judged}"
    flattered = f"the best single trial flattered itself by {tuning.optimism:.4f}"
    if tuning.draft_share is not None:
        flattered = f"trials were drafts, on {tuning.draft_share:.0%} of their rows"
    elif not splits:
        flattered = "there was no time to compare the best, so this score flatters"
    elif math.isnan(tuning.optimism):
        flattered = "there was no time to compare the best trial, so nobody knows how it flatters"
    print_facts(
        console,
        ("search", f"trials {', '.join(counted)} in {tuning.seconds:.0f} s"),
        ("chosen", ", ".join(chosen)),
        (tuning.metric, f"{honest}; {flattered}"),
    )


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_evaluation(
    console: Console,
    evaluation: Evaluation,
    what: str,
    trained: Mapping[str, float] | None = None,
) -> None:
    """Metrics with their intervals, beside those of training where given."""
    titles = ["metric", f"{evaluation.rows:,} {what}", "95 % interval"]
    table = table_of(*titles, *(["at training"] if trained else []))
    for name, estimate in evaluation.metrics.items():
        row = [name, f"{estimate.value:.4f}", f"{estimate.low:.4f} … {estimate.high:.4f}"]
        add_row(table, *row, *([number(trained.get(name))] if trained else []))
    console.print(table)


def table_of(*titles: str) -> Table:
    """An empty table without lines."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def fitting_table(
    console: Console, rows: Sequence[Mapping[str, Text]], spare: Sequence[str]
) -> Table:
    """Rows by title, at least one; where the terminal is too narrow, without the first of `spare`."""
    titles = list(rows[0])
    for left_out in (*spare, None):
        table = table_of(*titles)
        for row in rows:
            table.add_row(*(row[title] for title in titles))
        unbounded = console.options.update(max_width=UNBOUNDED)
        if left_out is None or console.measure(table, options=unbounded).maximum <= console.width:
            break
        titles.remove(left_out)
    return table


def plain_cells(row: Mapping[str, str]) -> dict[str, Text]:
    """A row for `fitting_table`, without markup or colour."""
    return {title: Text(cell) for title, cell in row.items()}


def styled(words: str, style: str) -> Text:
    """A part of a line: what is added to it does not get its style."""
    return Text.assemble((words, style))


def add_row(table: Table, *cells: str) -> None:
    """Cells as they are: names and values of the data are no markup."""
    table.add_row(*map(Text, cells))


def print_facts(console: Console, *facts: tuple[str, str]) -> None:
    """Name and value, line by line."""
    width = max(len(name) for name, _ in facts) + 2
    for name, value in facts:
        console.print(styled(name.ljust(width), "dim") + Text(value), soft_wrap=True)


def print_next(console: Console, *commands: tuple[str, str]) -> None:
    """Commands to try, each with what it does; all but the longest are aligned."""
    lengths = [len(command) for command, _ in commands]
    width = max((length for length in lengths if length <= ALIGNED), default=0) + 2
    console.print("next:", style="dim")
    for command, what in commands:
        line = Text(f"  {command}  ".ljust(width + 2)) + Text(what, style="dim")
        console.print(line, soft_wrap=True)


def intervals(evaluation: Evaluation) -> dict[str, list[float]]:
    """Metric to the ends of its interval."""
    return {name: [item.low, item.high] for name, item in evaluation.metrics.items()}


def run_json(run: StoredRun) -> dict[str, Any]:
    """A run as plain values."""
    return {**asdict(run), "started": run.started.isoformat()}


def difference(first: Mapping[str, float], second: Mapping[str, float], name: str) -> float | None:
    """Second minus first, where both have the metric."""
    return second[name] - first[name] if name in first and name in second else None


def number(value: float | None) -> str:
    """Four digits, or a dash."""
    return "-" if value is None else f"{value:.4f}"


def few_metrics(metrics: Mapping[str, float], *, most: int) -> str:
    """The best known of the metrics, in one line."""
    preferred = ("roc_auc", "accuracy", "log_loss", "rmse", "mae", "r2", "qini", "auuc")
    names: Iterable[str] = [name for name in preferred if name in metrics][:most]
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in names)
