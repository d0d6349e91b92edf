"""Alert rules over what a server is asked: its own figures, judged by one of its workers."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import Metric

from lodestar.core.alerts.readings import Measured, Series
from lodestar.factory.alerts import Alerting, AlertOutcome
from lodestar.serving.access_log import Log
from lodestar.serving.telemetry import Telemetry

__all__ = ["Figures", "ServedAlerts", "ServedRole", "of_figures", "of_windows"]

SOURCE = "serve-api"
SEVERITIES = ("info", "warning", "critical")
# What is asked by load balancers and Prometheus says nothing of how rows are answered.
OPERATIONS = frozenset(("/health/live", "/health/ready", "/metrics"))
SERVER_FAULT = 500
LATE = 0.99


@dataclass(frozen=True)
class ServedRole:
    """A run that is served, and as what."""

    role: str
    run_id: str
    recipe: str


@dataclass(frozen=True)
class Figures:
    """What is counted, at one moment of the monotonic clock: sample and labels → value."""

    at: float
    samples: Mapping[tuple[str, tuple[tuple[str, str], ...]], float]

    @classmethod
    def of(cls, families: Iterable[Metric], at: float) -> "Figures":
        """From what Prometheus would read."""
        return cls(
            at,
            {
                (sample.name, tuple(sorted(sample.labels.items()))): sample.value
                for family in families
                for sample in family.samples
            },
        )

    def named(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The samples of a name, by their labels."""
        return {labels: value for (found, labels), value in self.samples.items() if found == name}

    def since(self, before: "Figures", name: str) -> dict[tuple[tuple[str, str], ...], float]:
        """How much counters have grown; one that has begun anew counts from there."""
        earlier = before.named(name)
        return {
            labels: value - earlier.get(labels, 0.0) if value >= earlier.get(labels, 0.0) else value
            for labels, value in self.named(name).items()
        }


def of_figures(now: Figures, before: Figures) -> dict[Series, float]:
    """Rates and latency since `before`, of all roles together; nothing of what was not asked."""
    seconds = max(now.at - before.at, 1e-9)
    requests = [
        (dict(labels), count)
        for labels, count in now.since(before, "lodestar_requests_total").items()
    ]
    rows = [(labels, count) for labels, count in requests if labels["route"] not in OPERATIONS]
    total = sum(count for _, count in rows)
    failed = sum(count for labels, count in rows if int(labels["status"]) >= SERVER_FAULT)
    found = {
        Series.of("serve.requests_per_second"): total / seconds,
        Series.of("serve.shed_per_second"): _grown(now, before, "lodestar_shed_total") / seconds,
        Series.of("serve.online_failures_per_second"): (
            _grown(now, before, "lodestar_online_failures_total") / seconds
        ),
    }
    if total:
        found[Series.of("serve.error_rate")] = failed / total
        late = _quantile(now.since(before, "lodestar_request_seconds_bucket"), LATE)
        if late is not None:
            found[Series.of("serve.latency_p99_seconds")] = late
    return found


def of_windows(now: Figures, run_id: str) -> dict[Series, float]:
    """The last drift window of a run; nothing before it is over."""
    found: dict[Series, float] = {}
    for name, sample in (
        ("drift.columns", "lodestar_drifted_columns"),
        ("drift.rows", "lodestar_drift_window_rows"),
        ("drift.psi", "lodestar_drift_psi"),
    ):
        for labels, value in now.named(sample).items():
            said = dict(labels)
            if said.pop("run_id") == run_id:
                found[Series.of(name, **said)] = value
    return found


class ServedAlerts:
    """Looks at the figures every so often, where this worker is the one that leads."""

    def __init__(
        self,
        alerting: Alerting,
        telemetry: Telemetry,
        log: Log,
        *,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._alerting = alerting
        self._telemetry = telemetry
        self._log = log
        self._seconds = seconds
        self._clock = clock
        self._before: Figures | None = None

    async def run(
        self, leads: Callable[[], bool], roles: Callable[[], Sequence[ServedRole]]
    ) -> None:
        """Judge and tell, until this is cancelled; requests are answered meanwhile."""
        while True:
            await asyncio.sleep(self._seconds)
            try:
                if leads():
                    await asyncio.to_thread(self.look, roles())
            except Exception as error:  # noqa: BLE001 -- an edge: the worker serves on without it
                self._log.event("alerts were not judged", level="error", error=error)

    def look(self, roles: Sequence[ServedRole]) -> AlertOutcome | None:
        """Judge what has happened since the last look; the first one only begins."""
        now = Figures.of(self._telemetry.families(), self._clock())
        before, self._before = self._before, now
        if before is None or not roles:
            return None
        champion = roles[0]
        measured = [Measured(SOURCE, champion.recipe, champion.run_id, of_figures(now, before))]
        measured += [
            Measured(SOURCE, one.recipe, one.run_id, of_windows(now, one.run_id), one.role)
            for one in roles
        ]
        outcome = self._alerting.take(measured)
        self._tell(outcome)
        return outcome

    def _tell(self, outcome: AlertOutcome) -> None:
        for severity in SEVERITIES:
            count = sum(one.severity == severity for one in outcome.firing)
            self._telemetry.alerts_firing(severity, count)
        for words, alerts in (("alert", outcome.begun), ("alert over", outcome.resolved)):
            for one in alerts:
                self._log.event(
                    words,
                    rule=one.rule,
                    severity=one.severity,
                    metric=str(one.series),
                    value=one.value,
                    run_id=one.run_id,
                )
        for note in (*outcome.notes, *filter(None, (outcome.problem,))):
            self._log.event(note)
        for each in outcome.deliveries:
            self._telemetry.alert_delivery(each.channel, "failed" if each.problem else "delivered")
            if each.problem:
                self._log.event("alert channel failed", channel=each.channel, why=each.problem)


def _grown(now: Figures, before: Figures, name: str) -> float:
    return sum(now.since(before, name).values())


def _quantile(buckets: Mapping[tuple[tuple[str, str], ...], float], share: float) -> float | None:
    """As Prometheus's `histogram_quantile`: within its bucket a value is taken to lie anywhere alike."""
    counts: dict[float, float] = {}
    for labels, count in buckets.items():
        said = dict(labels)
        if said["route"] not in OPERATIONS:
            bound = float(said["le"])
            counts[bound] = counts.get(bound, 0.0) + count
    bounds = sorted(counts)
    if not bounds or not counts[bounds[-1]]:
        return None
    rank, low, below = share * counts[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        if counts[bound] >= rank:
            if bound == float("inf"):
                return low
            return low + (bound - low) * (rank - below) / max(counts[bound] - below, 1e-9)
        low, below = bound, counts[bound]
    return low
