"""Alerts beside a command's result: after it, and never instead of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console

from lodestar.cli.alert_views import outcome_json, print_outcome
from lodestar.cli.edge import Out, View

if TYPE_CHECKING:
    from lodestar.factory.alerts import AlertOutcome
    from lodestar.pipelines.alerting import HasMeasured
    from lodestar.settings.loading import Environment

__all__ = ["show_with_alerts"]


def show_with_alerts(out: Out, view: View, environment: Environment, done: HasMeasured) -> None:
    """Show a result; then judge the alert rules, tell the channels, and show what came of it.

    The one object of `--json` has both, and so waits for the channels, at most `alerts.timeout`.
    """
    if not environment.config.alerts.rules:
        out.show(view)
        return
    if not out.as_json:
        out.show(view)
    from lodestar.pipelines.alerting import raise_alerts

    try:
        outcome = raise_alerts(environment, done)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("all is saved; not everybody was told of alerts") from None
    out.show(_Both(view, outcome) if out.as_json else _Alerts(outcome))


class _Alerts:
    """What came of the rules alone: the result was shown before."""

    def __init__(self, outcome: AlertOutcome | None) -> None:
        self._outcome = outcome

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {"alerts": outcome_json(self._outcome)}

    def print(self, console: Console) -> None:
        """A line for each alert that is new or over, and for each channel that failed."""
        print_outcome(console, self._outcome)


class _Both:
    """The result's object with one key more."""

    def __init__(self, view: View, outcome: AlertOutcome | None) -> None:
        self._view = view
        self._outcome = outcome

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {**self._view.json(), "alerts": outcome_json(self._outcome)}

    def print(self, console: Console) -> None:
        """Both."""
        self._view.print(console)
        print_outcome(console, self._outcome)
