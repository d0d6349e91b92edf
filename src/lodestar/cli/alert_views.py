"""How alerts look: what fires, what is over, and which channels did not take it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from lodestar.cli.drawing import fitting_table, plain_cells, styled
from lodestar.cli.escaping import escape_control

if TYPE_CHECKING:
    from lodestar.core.alerts.rules import Alert
    from lodestar.core.alerts.telling import AlertState
    from lodestar.factory.alerts import AlertOutcome, Delivery

__all__ = ["AlertsView", "TriedView", "outcome_json", "print_outcome"]

MOST_ALERTS = 10
STYLES = {"critical": "bold red", "warning": "red", "info": "yellow"}


def outcome_json(outcome: AlertOutcome | None) -> dict[str, Any] | None:
    """Plain values; None where there are no rules."""
    if outcome is None:
        return None
    return {
        "firing": [_alert_json(one) for one in outcome.firing],
        "begun": [one.id for one in outcome.begun],
        "resolved": [_alert_json(one) for one in outcome.resolved],
        "channels": [_delivery_json(one) for one in outcome.deliveries],
        "problem": outcome.problem or None,
        "notes": list(outcome.notes),
    }


def print_outcome(console: Console, outcome: AlertOutcome | None) -> None:
    """What is new and what is over; the rest as a number; failures as notes."""
    if outcome is None:
        return
    for words, verb, alerts in (
        ("alert ", "is", outcome.begun),
        ("over  ", "was", outcome.resolved),
    ):
        for one in alerts[:MOST_ALERTS]:
            style = STYLES.get(one.severity, "") if words == "alert " else "green"
            said = f"{one.rule}: {one.series} {verb} {one.value:.6g}, {one.condition}"
            line = styled(words, style) + Text(escape_control(said))
            console.print(line, soft_wrap=True)
        if len(alerts) > MOST_ALERTS:
            console.print(f"  and {len(alerts) - MOST_ALERTS} more", style="dim")
    if still := len(outcome.firing) - len(outcome.begun):
        console.print(f"  {still} alerts still fire: lodestar alerts list", style="dim")
    for each in outcome.deliveries:
        if not each.problem:
            said = "1 alert" if each.notices == 1 else f"{each.notices} alerts"
            console.print(Text(f"told  {each.channel}: {said}", style="dim"))
    notes = [
        *outcome.notes,
        *filter(None, (outcome.problem,)),
        *(f"channel {one.channel}: {one.problem}" for one in outcome.deliveries if one.problem),
        *(f"channel {one.channel}: {one.remark}" for one in outcome.deliveries if one.remark),
    ]
    for note in notes:
        console.print(styled("note: ", "yellow") + Text(escape_control(note)), soft_wrap=True)


class AlertsView:
    """What is pending and firing, and how the channels are."""

    def __init__(self, state: AlertState, rules: int, channels: Sequence[str]) -> None:
        self._state = state
        self._rules = rules
        self._channels = channels

    def json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "rules": self._rules,
            "alerts": [_alert_json(one) for one in self._ordered()],
            "channels": [
                {
                    "channel": name,
                    "knows_of": len(self._state.of(name).told),
                    "messages_within_an_hour": len(self._state.of(name).sent),
                    "failure": self._state.of(name).failure or None,
                    "failed_at": _moment(self._state.of(name).failed_at),
                }
                for name in self._channels
            ],
        }

    def print(self, console: Console) -> None:
        """A table; then the channels whose last message failed."""
        alerts = self._ordered()
        if not self._rules:
            console.print("no rules: the config has none in alerts.rules")
        elif not alerts:
            console.print(f"[green]✓[/] nothing fires ({self._rules} rules)")
        else:
            spare = ("run", "since (UTC)", "severity")
            console.print(fitting_table(console, [_cells(one) for one in alerts], spare))
        for name in self._channels:
            failure = self._state.of(name).failure
            if failure:
                words = f"channel {name}: {failure}"
                line = styled("note: ", "yellow") + Text(escape_control(words))
                console.print(line, soft_wrap=True)

    def _ordered(self) -> list[Alert]:
        alerts = self._state.kept.alerts.values()
        return sorted(alerts, key=lambda one: (one.state, -one.since, one.key))


class TriedView:
    """Which channels took a test message."""

    def __init__(self, deliveries: Iterable[Delivery]) -> None:
        self._deliveries = tuple(deliveries)

    def json(self) -> dict[str, Any]:
        """Each channel."""
        return {"channels": [_delivery_json(one) for one in self._deliveries]}

    def print(self, console: Console) -> None:
        """A line each."""
        if not self._deliveries:
            console.print("no channels: the config has none in alerts.channels")
        for one in self._deliveries:
            mark = styled("✗ ", "red") if one.problem else styled("✓ ", "green")
            words = one.problem or one.remark or "took the message"
            console.print(mark + Text(escape_control(f"{one.channel}: {words}")), soft_wrap=True)


def _cells(one: Alert) -> dict[str, Text]:
    labels = (f"{name}={value}" for name, value in one.series.labels)
    cells = {
        "state": one.state,
        "severity": one.severity,
        "rule": escape_control(one.rule),
        "what": "\n".join(map(escape_control, (one.series.name, *labels))),
        "value": f"{one.value:.6g}, {one.condition}",
        "since (UTC)": f"{datetime.fromtimestamp(one.since, UTC):%Y-%m-%d %H:%M}",
        "run": one.run_id[:8],
    }
    return plain_cells(cells)


def _alert_json(one: Alert) -> dict[str, Any]:
    times = {"since": _moment(one.since), "fired": _moment(one.fired)}
    return {"id": one.id, **one.to_json(), **times}


def _delivery_json(one: Delivery) -> dict[str, Any]:
    return {
        "channel": one.channel,
        "alerts": one.notices,
        "delivered": not one.problem,
        "problem": one.problem or None,
        "remark": one.remark or None,
    }


def _moment(seconds: float) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else None
