"""Writes what `monitor` found as a page."""

import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from lodestar.errors import ExternalError
from lodestar.pipelines.monitor import MonitoredRun
from lodestar.report.monitoring import MonitoringReport, TimeSlice, render_monitoring

__all__ = ["write_page"]


def write_page(run: MonitoredRun, path: Path) -> None:
    """Write the page, all at once.

    Raises:
        ExternalError: it cannot be written; what stood there before still does.
    """
    names = [*(column.name for column in run.report.drifted), *run.lately]
    moments = {name: run.since(name) for name in names}
    page = render_monitoring(
        MonitoringReport(
            recipe=run.recipe,
            run_name=run.run_name,
            run_id=run.run_id,
            trained_at=run.trained_at,
            source=run.source,
            checked_at=run.checked_at.isoformat(timespec="seconds"),
            drift=run.report,
            slices=tuple(TimeSlice(_said(part.begins), part.report) for part in run.slices),
            since={name: _said(at) for name, at in moments.items() if at is not None},
            lately=run.lately,
            notes=(*run.notes, *(() if run.labels is None else run.labels.notes)),
            labels=run.labels,
        )
    )
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(page, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise ExternalError(
            f"the page {path} cannot be written: {error.strerror}",
            hint="give --html another file",
        ) from error
    finally:
        with suppress(OSError):  # there is none where its folder is none
            aside.unlink(missing_ok=True)


def _said(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"
