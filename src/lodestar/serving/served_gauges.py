"""Figures of runs that are served: what is said of a run ends with its time.

Prometheus's client cannot take a labelled value back where several processes share the figures, so it is
left out when they are shown.
"""

from collections.abc import Iterable, Iterator
from math import isfinite
from typing import Protocol

from prometheus_client import Metric

__all__ = ["OF_WINDOWS", "UNKNOWN", "OfServedRuns"]

# Its gauges say which runs are served.
MODELS = "lodestar_model_info"
OF_WINDOWS = ("lodestar_drifted_columns", "lodestar_drift_window_rows", "lodestar_drift_psi")
ROWS = "lodestar_drift_window_rows"
# What a gauge is set to when it stands for nothing: the largest of several workers' is another one's.
UNKNOWN = float("-inf")


class Collects(Protocol):
    """A registry, or what stands for one."""

    def collect(self) -> Iterable[Metric]:
        """All families of samples."""
        ...


class OfServedRuns:
    """A registry without the windows of runs that nobody serves, and without what stands for none."""

    def __init__(self, registry: Collects) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """The families, fewer samples."""
        families = list(self._registry.collect())
        served = {
            sample.labels["run_id"]
            for family in families
            if family.name == MODELS
            for sample in family.samples
            if sample.value == 1
        }
        for family in families:
            if family.name in OF_WINDOWS:
                family.samples = [
                    sample
                    for sample in family.samples
                    if sample.labels["run_id"] in served
                    and isfinite(sample.value)
                    and (sample.value or family.name != ROWS)
                ]
            yield family
