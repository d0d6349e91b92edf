"""How it looks how fresh features are."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from lodestar.cli.drawing import fitting_table, plain_cells
from lodestar.cli.escaping import escape_control

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from lodestar.core.staleness import ViewStatus
    from lodestar.pipelines.staleness import FeatureStatus

__all__ = ["StatusView"]

DAY, HOUR, MINUTE = 86_400, 3_600, 60


class StatusView:
    """Every namespace, one line each."""

    def __init__(self, status: FeatureStatus) -> None:
        self._status = status

    def json(self) -> dict[str, Any]:
        """Plain values; times are ISO, spans are seconds."""
        status = self._status
        return {
            "as_of": status.as_of.isoformat(),
            "stale": [view.namespace for view in status.stale],
            "limits": {
                "max_lag_seconds": status.limits.lag.total_seconds(),
                "max_expired": status.limits.expired,
            },
            "namespaces": [_plain(view) for view in status.views],
        }

    def print(self, console: Console) -> None:
        """For people."""
        if not self._status.views:
            console.print("no features are declared")
            return
        spare = ("ttl", "95 %", "age", "newest offline", "waiting")
        console.print(fitting_table(console, [_cells(view) for view in self._status.views], spare))
        for view in self._status.stale:
            console.print(Text(escape_control(f"{view.namespace}: {view.why}")), soft_wrap=True)


def _cells(view: ViewStatus) -> dict[str, Text]:
    ages = view.ages
    cells = {
        "online until": "never"
        if view.materialised_until is None
        else _at(view.materialised_until),
        "newest offline": "-" if view.newest_event is None else _at(view.newest_event),
        "waiting": f"{view.waiting:,}",
        "lag": _span(view.lag),
        "age": "-" if ages is None else _span(ages.median),
        "95 %": "-" if ages is None else _span(ages.p95),
        "ttl": "-" if view.ttl is None else _span(view.ttl),
        "expired": "-" if ages is None or ages.expired is None else f"{ages.expired:.0%}",
    }
    return {
        "namespace": Text(view.namespace),
        "state": Text(view.state, "green" if view.state == "fresh" else "red"),
        **plain_cells(cells),
    }


def _plain(view: ViewStatus) -> dict[str, Any]:
    times = {
        name: None if moment is None else moment.isoformat()
        for name, moment in (
            ("materialised_until", view.materialised_until),
            ("newest_event", view.newest_event),
        )
    }
    return {**asdict(view), **times}


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


def _span(seconds: float) -> str:
    for size, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= size:
            return f"{seconds / size:.{0 if seconds >= 100 * size else 1}f} {name}"
    return f"{seconds:.0f} s"
