"""Who has to be told of what: the difference between what a channel was told, and what is so.

A message that failed, was held back, or died with its process leaves no trace in what the channel was
told, so the next time it is found again: nothing is queued, nothing is told twice, and what is over
before anybody heard of it is not told at all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from lodestar.core.alerts.rules import Alert, Kept, Rule

__all__ = [
    "AlertState",
    "ChannelState",
    "Due",
    "NewerStateError",
    "Told",
    "due",
    "held_back",
    "told",
]

HOUR = 3_600.0
VERSION = 1

Status: TypeAlias = Literal["firing", "reminder", "resolved"]


class NewerStateError(ValueError):
    """What was kept is of a later version than this one reads."""


@dataclass(frozen=True)
class Told:
    """The alert as a channel was last told of it, and when."""

    alert: Alert
    at: float


@dataclass(frozen=True)
class ChannelState:
    """What a channel knows, when messages went there within the hour, and how the last one failed."""

    told: Mapping[str, Told] = field(default_factory=dict)
    sent: tuple[float, ...] = ()
    failed_at: float = 0.0
    failure: str = ""


@dataclass(frozen=True)
class AlertState:
    """All that is remembered of one environment's alerts."""

    kept: Kept = field(default_factory=Kept)
    channels: Mapping[str, ChannelState] = field(default_factory=dict)

    def of(self, channel: str) -> ChannelState:
        """What a channel knows."""
        return self.channels.get(channel, ChannelState())

    def having(self, channel: str, state: ChannelState) -> "AlertState":
        """With that of one channel."""
        return replace(self, channels={**self.channels, channel: state})

    @property
    def firing(self) -> dict[str, Alert]:
        """The alerts that fire, by key."""
        return {key: one for key, one in self.kept.alerts.items() if one.state == "firing"}

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "version": VERSION,
            **self.kept.to_json(),
            "channels": {
                name: {
                    "told": [{"at": one.at, **one.alert.to_json()} for one in each.told.values()],
                    "sent": list(each.sent),
                    "failed_at": each.failed_at,
                    "failure": each.failure,
                }
                for name, each in self.channels.items()
            },
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "AlertState":
        """Read what `to_json` wrote.

        Raises:
            NewerStateError: it is of a later version.
            KeyError, TypeError, ValueError, AttributeError: it is nothing that `to_json` wrote.
        """
        if int(value["version"]) > VERSION:
            raise NewerStateError(value["version"])
        channels = {}
        for name, each in value["channels"].items():
            pairs = [
                Told(
                    Alert.from_json({key: got for key, got in one.items() if key != "at"}),
                    one["at"],
                )
                for one in each["told"]
            ]
            told_of = {one.alert.key: one for one in pairs}
            sent = tuple(float(at) for at in each["sent"])
            channels[name] = ChannelState(told_of, sent, each["failed_at"], each["failure"])
        return cls(Kept.from_json(value), channels)


@dataclass(frozen=True)
class Due:
    """One alert that a channel has to be told of."""

    status: Status
    alert: Alert


def due(state: AlertState, channel: str, rules: Iterable[Rule], *, now: float) -> tuple[Due, ...]:
    """What a channel has to be told, the resolved last."""
    known, firing = state.of(channel).told, state.firing
    by_name = {rule.name: rule for rule in rules}
    found = []
    for key, alert in firing.items():
        rule = by_name.get(alert.rule)
        if rule is None or (rule.channels is not None and channel not in rule.channels):
            continue
        before = known.get(key)
        if before is None or before.alert.fired != alert.fired:
            found.append(Due("firing", alert))
        elif not 0 <= now - before.at < rule.repeat:
            found.append(Due("reminder", alert))
    found += [Due("resolved", one.alert) for key, one in known.items() if key not in firing]
    return tuple(found)


def held_back(state: ChannelState, most_per_hour: int, *, now: float) -> bool:
    """Whether a channel has had its messages of this hour."""
    return len(_lately(state.sent, now)) >= most_per_hour


def told(state: ChannelState, notices: Iterable[Due], *, now: float) -> ChannelState:
    """What the channel knows after a message."""
    known = dict(state.told)
    for one in notices:
        if one.status == "resolved":
            known.pop(one.alert.key, None)
        else:
            known[one.alert.key] = Told(one.alert, now)
    return ChannelState(known, (*_lately(state.sent, now), now))


def _lately(sent: tuple[float, ...], now: float) -> tuple[float, ...]:
    return tuple(at for at in sent if 0 <= now - at < HOUR)
