"""Streamed rows compared with the sketches that training has left, and the run told of it."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from lodestar.artifact import tags
from lodestar.artifact.sketches import read_sketches
from lodestar.artifact.store import RunStore
from lodestar.core.drift.judge import judge
from lodestar.core.drift.limits import limits_of
from lodestar.core.drift.sketches import Reference, Window
from lodestar.core.drift.verdict import DriftReport, Limits
from lodestar.core.drift.watched import WatchedRows
from lodestar.errors import ArtifactError, ExternalError, first_line
from lodestar.interface.parts import Watched
from lodestar.interface.progress import Progress
from lodestar.settings.monitoring import Drift

__all__ = ["DriftWatch", "tell_store", "watch_of"]

MOST_TAGGED = 20
AT_ONCE = 32_768  # rows that wait to be counted; memory holds them meanwhile


class DriftWatch:
    """Adds up what was counted of scored parts; `report` says what it comes to."""

    def __init__(self, reference: Reference, limits: Limits) -> None:
        self._window = Window(reference)
        self._limits = limits
        self._waiting = WatchedRows(reference)

    def add(self, watched: Watched) -> None:
        """Count a part's rows, or let them wait until there are enough to be counted at once."""
        if not isinstance(watched, WatchedRows):
            self.take(watched.counted())
            return
        self._waiting.join(watched)
        if self._waiting.rows >= AT_ONCE:
            self._count_waiting()

    def take(self, counted: Mapping[str, Any]) -> None:
        """Add the counts of a part (see `WatchedRows`)."""
        self._window.merge(Window.from_json(self._window.reference, counted))

    def report(self) -> DriftReport:
        """Judge all that was counted."""
        self._count_waiting()
        return judge(self._window, self._limits)

    def _count_waiting(self) -> None:
        waiting, self._waiting = self._waiting, WatchedRows(self._window.reference)
        self.take(waiting.counted())


def watch_of(folder: Path, section: Drift, tell: Progress) -> DriftWatch | None:
    """A watch with a verified artifact's sketches; None, and a note why, where it has none to read."""
    if not section.enabled:
        return None
    try:
        return DriftWatch(read_sketches(folder), limits_of(section))
    except ArtifactError as error:
        tell.note(f"drift is not watched: {error.what}")
        return None


def tell_store(
    store: RunStore, run_id: str, report: DriftReport, *, source: str, now: datetime, tell: Progress
) -> None:
    """Tag the run with the verdict; a store that cannot be told is told of, and nothing fails by it."""
    names = [column.name for column in report.drifted]
    more = f" and {len(names) - MOST_TAGGED} more" if len(names) > MOST_TAGGED else ""
    values = {
        tags.DRIFT: report.verdict,
        f"{tags.DRIFT}.columns": ", ".join(names[:MOST_TAGGED]) + more,
        f"{tags.DRIFT}.rows": str(report.rows),
        f"{tags.DRIFT}.source": source,
        f"{tags.DRIFT}.checked_at": now.isoformat(timespec="seconds"),
    }
    try:
        store.add_tags(run_id, values)
    except ExternalError as error:
        tell.note(f"MLflow was not told of the drift check: {first_line(error)}")
