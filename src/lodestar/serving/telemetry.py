"""What Prometheus scrapes: how much is asked, how long it takes, and what the answers are like."""

import os
from bisect import bisect_left
from collections import Counter as Counted
from collections.abc import Sequence
from typing import Generic, Literal, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector

from lodestar.serving.served_gauges import UNKNOWN, OfServedRuns

__all__ = ["SHARED_FOLDER", "Telemetry", "Unheard"]

# prometheus-client itself looks at it, once, when it is imported: the server sets it for its workers.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"

REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
STAGE_SECONDS = (0.00005, 0.0001, 0.00025, 0.0005, *REQUEST_SECONDS[:10])
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
# The middle is for probabilities, the rest for targets of any scale.
DIFFERENCES = (0.0, 1e-9, 1e-6, 1e-4, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 10.0, 100.0, 1e4)
# A minute, a quarter of an hour, … a quarter of a year.
AGES = (60.0, 900.0, 3_600.0, 21_600.0, 86_400.0, 259_200.0, 604_800.0, 2_592_000.0, 7_776_000.0)
# For probabilities; targets of another scale give their own.
PREDICTIONS = tuple(step / 20 for step in range(21))

Kind = TypeVar("Kind", bound=MetricWrapperBase)


class Telemetry:
    """Counts; every method is cheap enough for each request, and none raises.

    Workers that share a port share the figures too: what any of them is asked for is all of theirs.
    `predictions` are the upper bounds of the histogram of what the models say.
    """

    def __init__(self, *, predictions: Sequence[float] = PREDICTIONS) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # not annotated there
        self._registry = CollectorRegistry()
        self._requests = self._counter("requests", "Requests answered", "route", "method", "status")
        self._seconds = self._histogram(
            "request_seconds", "From a request's headers to its answer", REQUEST_SECONDS, "route"
        )
        self._stages = self._histogram(
            "stage_seconds", "Parts of answering, per micro-batch", STAGE_SECONDS, "stage"
        )
        self._rows = self._histogram("batch_rows", "Rows scored together", ROWS)
        self._predictions = self._histogram(
            "prediction", "Predictions, or the positive class's probability", predictions, "run_id"
        )
        self._labels = self._counter("predictions", "Predictions by label", "run_id", "label")
        self._missing = self._counter(
            "features_missing", "Values that the online store did not have", "feature"
        )
        self._stale = self._counter(
            "features_stale", "Values that were older than their max_age", "feature"
        )
        self._ages = self._histogram(
            "feature_age_seconds",
            "How long ago a namespace's values happened, of one row per micro-batch",
            AGES,
            "namespace",
        )
        self._unknown = self._counter(
            "unknown_categories", "Categories that training had not seen", "column"
        )
        self._unlogged = self._counter(
            "prediction_log_dropped", "Rows that the prediction log had no room for"
        )
        self._shed = self._counter("shed", "Requests turned away", "reason")
        self._online = self._counter("online_failures", "Reads that the online store failed")
        self._queue = self._gauge("queue", "Requests that wait for their turn", "livesum")
        self._breaker = self._gauge(
            "breaker_open", "1 while the online store is not asked because it failed", "livemax"
        )
        self._models = self._gauge(
            "model_info", "1 for what is served, and as what", "livemax", "run_id", "digest", "role"
        )
        self._shadowed = self._counter(
            "shadow_rows", "Rows that the shadow was asked too: same, different, failed", "result"
        )
        self._differences = self._histogram(
            "shadow_difference", "How far the shadow's watched number lies off", DIFFERENCES
        )
        self._swaps = self._counter("swaps", "Champions brought in, or refused", "cause", "result")
        self._rollbacks = self._counter("rollbacks", "Champions taken back", "reason")
        self._generation = self._gauge(
            "generation",
            "How often the champion has changed, as the slowest worker has it",
            "livemin",
        )
        self._drifted = self._gauge(
            "drifted_columns", "Columns with an alarm in the last window", "livemax", "run_id"
        )
        self._compared = self._gauge(
            "drift_window_rows", "Rows of the last window that were compared", "livesum", "run_id"
        )
        self._psi = self._gauge(
            "drift_psi", "Stability index of the last window", "livemax", "run_id", "column"
        )
        self._deliveries = self._counter(
            "alert_deliveries", "Messages to alert channels: delivered, failed", "channel", "result"
        )
        self._firing = self._gauge(
            "alerts_firing",
            "Alerts that fire, as the rules of the config say",
            "livemax",
            "severity",
        )
        self._served: dict[str, tuple[str, Gauge]] = {}

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is the template, never what the client sent."""
        self._requests(route, method, status).inc()
        self._seconds(route).observe(seconds)

    def stage(self, name: str, seconds: float) -> None:
        """A micro-batch spent this in a stage: wait, online, score, encode."""
        self._stages(name).observe(seconds)

    def batch(self, rows: int) -> None:
        """So many rows were scored together."""
        self._rows().observe(rows)

    def predicted(self, run_id: str, values: Sequence[float], labels: Sequence[str] = ()) -> None:
        """What a model said of the rows of a micro-batch: numbers, and labels if it has classes."""
        self._predictions(run_id).observe_all(values)
        if labels:
            for label, count in Counted(labels).items():
                self._labels(run_id, label).inc(count)

    def missing(self, feature: str, count: int = 1) -> None:
        """The online store had no value."""
        self._missing(feature).inc(count)

    def stale(self, feature: str, count: int = 1) -> None:
        """A value was older than its max_age."""
        self._stale(feature).inc(count)

    def feature_age(self, namespace: str, seconds: float) -> None:
        """A namespace's values of an entity were so old when they were served."""
        self._ages(namespace).observe(seconds)

    def unknown_categories(self, column: str, count: int = 1) -> None:
        """Training had not seen these."""
        self._unknown(column).inc(count)

    def unlogged(self, count: int) -> None:
        """The prediction log dropped so many rows."""
        self._unlogged().inc(count)

    def shed(self, reason: str) -> None:
        """A request was turned away: queue, deadline, bodies, connections, draining."""
        self._shed(reason).inc()

    def online_failed(self) -> None:
        """The online store did not answer."""
        self._online().inc()

    def queue(self, waiting: int) -> None:
        """So many requests wait for their turn."""
        self._queue().set(waiting)

    def breaker(self, *, is_open: bool) -> None:
        """Whether the online store is left alone for now."""
        self._breaker().set(is_open)

    def model(self, role: str, run_id: str | None, digest: str = "") -> None:
        """From now on this run has the role; None: none has."""
        before, left = self._served.pop(role, None), ""
        if before is not None:
            left, gauge = before
            gauge.set(0)
        if run_id is not None:
            now = self._models(run_id, digest, role)
            self._served[role] = run_id, now
            now.set(1)
        if left and left not in {run for run, _ in self._served.values()}:
            self._forget(left)

    def shadowed(self, result: str, rows: int = 1) -> None:
        """The shadow was asked rows: same, different, failed; or dropped, for lack of time."""
        self._shadowed(result).inc(rows)

    def shadow_differences(self, values: Sequence[float]) -> None:
        """How far the shadow's watched numbers lie from those that were answered."""
        self._differences().observe_all(values)

    def drift(self, run_id: str, drifted: int, rows: int) -> None:
        """A window was compared with the training."""
        self._drifted(run_id).set(drifted)
        self._compared(run_id).set(rows)

    def column_drift(self, run_id: str, column: str, psi: float) -> None:
        """How far a column of the window lies from the training's."""
        self._psi(run_id, column).set(psi)

    def alert_delivery(self, channel: str, result: str) -> None:
        """A message to an alert channel was delivered, or failed."""
        self._deliveries(channel, result).inc()

    def alerts_firing(self, severity: str, count: int) -> None:
        """So many alerts of a severity fire."""
        self._firing(severity).set(count)

    def swapped(self, cause: str, result: str) -> None:
        """Somebody (swap), or an alias (follow), brought in a champion: done, refused or failed."""
        self._swaps(cause, result).inc()

    def rolled_back(self, reason: str) -> None:
        """The former champion came back: errors, latency, predictions, starts, loading or asked."""
        self._rollbacks(reason).inc()

    def generation(self, number: int) -> None:
        """This worker answers with this generation of the champion."""
        self._generation().set(number)

    def render(self) -> tuple[bytes, str]:
        """The text that Prometheus reads, and its content type."""
        return generate_latest(self._shown()), CONTENT_TYPE_PLAIN_0_0_4

    def families(self) -> list[Metric]:
        """What `render` says, as values."""
        return list(self._shown().collect())

    def _shown(self) -> OfServedRuns:
        """The figures of all workers."""
        registry = self._registry
        if SHARED_FOLDER in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # not annotated there
        return OfServedRuns(registry)

    def _forget(self, run_id: str) -> None:
        """A run is served no more: should it come back, its next window counts, not its last one."""
        for gauge in (*self._drifted.of(run_id), *self._psi.of(run_id)):
            gauge.set(UNKNOWN)
        for gauge in self._compared.of(run_id):
            gauge.set(0)

    def _counter(self, name: str, what: str, *labels: str) -> "_Children[Counter]":
        return _Children(Counter(f"lodestar_{name}", what, labels, registry=self._registry))

    def _histogram(
        self, name: str, what: str, buckets: Sequence[float], *labels: str
    ) -> "_Children[_Distribution]":
        return _Children(
            _Distribution(
                f"lodestar_{name}", what, labels, buckets=buckets, registry=self._registry
            )
        )

    def _gauge(
        self,
        name: str,
        what: str,
        over_workers: Literal["livesum", "livemax", "livemin"],
        *labels: str,
    ) -> "_Children[Gauge]":
        return _Children(
            Gauge(
                f"lodestar_{name}",
                what,
                labels,
                multiprocess_mode=over_workers,
                registry=self._registry,
            )
        )


class Unheard(Telemetry):
    """For a version whose doings are nobody's, a shadow: it has no metrics at all."""

    def __init__(self) -> None:
        """Make none."""

    def predicted(self, run_id: str, values: Sequence[float], labels: Sequence[str] = ()) -> None:
        """Not counted."""

    def stage(self, name: str, seconds: float) -> None:
        """Not counted."""

    def batch(self, rows: int) -> None:
        """Not counted."""

    def missing(self, feature: str, count: int = 1) -> None:
        """Not counted."""

    def stale(self, feature: str, count: int = 1) -> None:
        """Not counted."""

    def feature_age(self, namespace: str, seconds: float) -> None:
        """Not counted."""

    def unknown_categories(self, column: str, count: int = 1) -> None:
        """Not counted."""

    def online_failed(self) -> None:
        """Not counted."""

    def breaker(self, *, is_open: bool) -> None:
        """Not counted."""


class _Children(Generic[Kind]):
    """A metric's children by their labels, kept: looking one up costs more than counting."""

    def __init__(self, metric: Kind) -> None:
        self._metric = metric
        self._kept: dict[tuple[object, ...], Kind] = {}

    def __call__(self, *labels: object) -> Kind:
        found = self._kept.get(labels)
        if found is None:
            found = self._kept[labels] = self._metric.labels(*labels) if labels else self._metric
        return found

    def of(self, first: object) -> list[Kind]:
        """The children whose first label is this."""
        return [child for labels, child in list(self._kept.items()) if labels[0] == first]


class _Distribution(Histogram):
    """A histogram that finds a value's bucket at once, and takes many values together."""

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """As the original, without looking at every bucket; exemplars are not kept."""
        del exemplar
        self._sum.inc(amount)
        self._buckets[bisect_left(self._upper_bounds, amount)].inc(1)

    def observe_all(self, values: Sequence[float]) -> None:
        """As `observe` for each, at the price of one per bucket; what is no number is left out."""
        total, bounds = 0.0, self._upper_bounds
        counts: dict[int, int] = {}
        for value in values:
            if value == value:  # noqa: PLR0124 -- NaN is not itself
                total += value
                at = bisect_left(bounds, value)
                counts[at] = counts.get(at, 0) + 1
        for at, count in counts.items():
            self._buckets[at].inc(count)
        self._sum.inc(total)
