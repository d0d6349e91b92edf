"""From measurements to alerts: pending, firing, resolved. Pure: time and the state before come in.

The states are Prometheus's: an alert is pending from the first value beyond the bound, and fires once
values have lain there for the rule's `for`. A value within the bound ends it. Where nothing is
measured nothing changes, unless another run has taken the place of the one that was measured, or a week
has gone by.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from statistics import fmean
from typing import Any, Literal, TypeAlias

from lodestar.core.alerts.readings import Measured, Series

__all__ = ["Alert", "Kept", "Rule", "evaluate"]

State: TypeAlias = Literal["pending", "firing"]
# Of one series and window; older ones go first.
MOST_SAMPLES = 1_000
# Of what was not measured for so long (seconds) nobody knows anything any more.
FORGOTTEN = 7 * 86_400.0


@dataclass(frozen=True)
class Rule:
    """What the config says of one (`settings.alerts.AlertRule`), as plain values; times in seconds."""

    name: str
    metric: str
    above: float | None = None
    below: float | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    window: float | None = None
    over: Literal["last", "mean", "min", "max"] = "last"
    lasts: float = 0.0
    repeat: float = 86_400.0
    severity: str = "warning"
    summary: str = ""
    channels: tuple[str, ...] | None = None

    @property
    def condition(self) -> str:
        """The bound in words."""
        return f"above {self.above:g}" if self.above is not None else f"below {self.below:g}"

    def holds(self, value: float) -> bool:
        """Whether a value lies beyond the bound."""
        if self.above is not None:
            return value > self.above
        return self.below is not None and value < self.below

    def takes(self, series: Series) -> bool:
        """Whether this is one of the series that the rule watches."""
        labels = dict(series.labels)
        return series.name == self.metric and all(
            labels.get(name) == value for name, value in self.where.items()
        )


@dataclass(frozen=True)
class Alert:
    """One rule over one series; times in seconds since 1970, `fired` 0 while it is pending.

    `value` is what was last measured, and `seen` when.
    """

    rule: str
    severity: str
    condition: str
    summary: str
    series: Series
    state: State
    since: float
    fired: float
    value: float
    run_id: str
    seen: float = 0.0

    @property
    def key(self) -> str:
        """Which alert this is, whenever it fires: rule and labels."""
        return _key(self.rule, self.series)

    @property
    def id(self) -> str:
        """Which occurrence this is: the same in each message of it."""
        return sha256(f"{self.key}\n{self.fired!r}".encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "rule": self.rule,
            "severity": self.severity,
            "condition": self.condition,
            "summary": self.summary,
            "metric": self.series.name,
            "labels": dict(self.series.labels),
            "state": self.state,
            "since": self.since,
            "fired": self.fired,
            "value": self.value,
            "run_id": self.run_id,
            "seen": self.seen,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Alert":
        """Read what `to_json` wrote."""
        plain = {name: each for name, each in value.items() if name not in {"metric", "labels"}}
        return cls(**plain, series=Series.of(value["metric"], **value["labels"]))


@dataclass(frozen=True)
class Kept:
    """What is remembered between two evaluations: alerts by key, samples (time, value) of windows."""

    alerts: Mapping[str, Alert] = field(default_factory=dict)
    samples: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "alerts": [alert.to_json() for alert in self.alerts.values()],
            "samples": {key: [list(one) for one in kept] for key, kept in self.samples.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Kept":
        """Read what `to_json` wrote."""
        alerts = [Alert.from_json(each) for each in value["alerts"]]
        samples = {
            key: tuple((float(at), float(number)) for at, number in kept)
            for key, kept in value["samples"].items()
        }
        return cls({alert.key: alert for alert in alerts}, samples)


def evaluate(rules: Iterable[Rule], measured: Measured, kept: Kept, *, now: float) -> Kept:
    """What is pending and firing after these measurements; rules that are gone take theirs along."""
    rules = list(rules)
    scope = measured.scope
    values = {
        Series.of(series.name, **{**dict(series.labels), **scope}): value
        for series, value in measured.finite().items()
    }
    alerts = {
        key: _before(alert, now)
        for key, alert in kept.alerts.items()
        if any(alert.rule == rule.name and rule.takes(alert.series) for rule in rules)
        and not _succeeded(alert, values, scope, measured.run_id)
        and now - alert.seen < FORGOTTEN
    }
    samples = _without_old(kept.samples, rules, now)
    for rule in rules:
        for series, value in values.items():
            if not rule.takes(series):
                continue
            key = _key(rule.name, series)
            judged = value
            if rule.window is not None:
                taken = (*samples.get(key, ()), (now, value))[-MOST_SAMPLES:]
                samples[key] = taken
                judged = _over(rule, [number for _, number in taken])
            if rule.holds(judged):
                alerts[key] = _breached(rule, series, judged, measured.run_id, alerts.get(key), now)
            else:
                alerts.pop(key, None)
    return Kept(alerts, samples)


def _breached(
    rule: Rule, series: Series, value: float, run_id: str, before: Alert | None, now: float
) -> Alert:
    since = now if before is None else before.since
    fires = before is not None and before.state == "firing"
    fired = 0.0 if before is None else before.fired
    if not fires and now - since >= rule.lasts:
        fires, fired = True, now
    return Alert(
        rule=rule.name,
        severity=rule.severity,
        condition=rule.condition,
        summary=rule.summary,
        series=series,
        state="firing" if fires else "pending",
        since=since,
        fired=fired,
        value=value,
        run_id=run_id,
        seen=now,
    )


def _before(alert: Alert, now: float) -> Alert:
    """A clock that was set back must not make an alert wait for the future."""
    since, fired, seen = (min(at, now) for at in (alert.since, alert.fired, alert.seen))
    return replace(alert, since=since, fired=fired, seen=seen)


def _succeeded(
    alert: Alert, values: Mapping[Series, float], scope: Mapping[str, str], run_id: str
) -> bool:
    """Whether another run is measured now in this one's place, and has no such series."""
    labels = dict(alert.series.labels)
    same = all(labels.get(name) == value for name, value in scope.items())
    measures = any(series.name == alert.series.name for series in values)
    return same and measures and alert.run_id != run_id and alert.series not in values


def _over(rule: Rule, numbers: list[float]) -> float:
    match rule.over:
        case "mean":
            return fmean(numbers)
        case "min":
            return min(numbers)
        case "max":
            return max(numbers)
        case _:
            return numbers[-1]


def _without_old(
    samples: Mapping[str, tuple[tuple[float, float], ...]], rules: Iterable[Rule], now: float
) -> dict[str, tuple[tuple[float, float], ...]]:
    """The samples that lie within their rule's window, before now."""
    windows = {rule.name: rule.window for rule in rules if rule.window is not None}
    found = {}
    for key, kept in samples.items():
        window = windows.get(key.split("\n")[0])
        within = tuple(one for one in kept if window and now - window < one[0] <= now)
        if within:
            found[key] = within
    return found


def _key(rule: str, series: Series) -> str:
    return f"{rule}\n{series.name}\n" + "\n".join(
        f"{name}={value!r}" for name, value in series.labels
    )
