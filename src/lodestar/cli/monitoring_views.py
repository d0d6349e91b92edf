"""How the result of `lodestar monitor` looks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from lodestar.cli.drawing import print_facts
from lodestar.cli.escaping import escape_control
from lodestar.cli.label_views import labels_json, print_labels
from lodestar.cli.verdicts import drift_json, print_drift

if TYPE_CHECKING:
    from lodestar.pipelines.monitor import MonitoredRun

__all__ = ["MonitorView"]


class MonitorView:
    """Rows were compared."""

    def __init__(self, monitored: MonitoredRun, page: Path | None) -> None:
        self._monitored = monitored
        self._page = page

    def json(self) -> dict[str, Any]:
        """All measures of all columns, the parts of a log's time, and since when each has drifted."""
        run = self._monitored
        names = [*(column.name for column in run.report.drifted), *run.lately]
        moments = {name: run.since(name) for name in names}
        return {
            "run_id": run.run_id,
            "run_name": run.run_name,
            "artifact_digest": run.digest,
            "source": run.source,
            "checked_at": run.checked_at.isoformat(timespec="seconds"),
            "verdict": run.verdict,
            "drift": drift_json(run.report),
            "lately": list(run.lately),
            "since": {name: at.isoformat() for name, at in moments.items() if at is not None},
            "slices": [
                {
                    "begins": part.begins.isoformat(),
                    "rows": part.report.rows,
                    "verdict": part.report.verdict,
                    "drifted": [column.name for column in part.report.drifted],
                }
                for part in run.slices
            ],
            "labels": labels_json(run.labels),
            "html": None if self._page is None else str(self._page),
            "notes": list(run.notes),
        }

    def print(self, console: Console) -> None:
        """The verdict, since when, and where the page lies."""
        run = self._monitored
        rows = f"{run.report.rows:,} rows of {run.source}"
        console.print(Text(escape_control(f"{rows} against run {run.run_id[:8]}")), soft_wrap=True)
        print_drift(console, run.report)
        for name in (*(column.name for column in run.report.drifted), *run.lately):
            at = run.since(name)
            if at is not None:
                lately = "; not yet in all rows together" if name in run.lately else ""
                words = f"  {name} has drifted since {at:%Y-%m-%d %H:%M} UTC{lately}"
                console.print(Text(escape_control(words)), soft_wrap=True)
        if run.labels is not None:
            print_labels(console, run.labels)
        if self._page is not None:
            print_facts(console, ("page", str(self._page)))
