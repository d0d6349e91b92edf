"""Every metric, once: what it needs, which way is better, and the weighted formula behind it."""

from lodestar.core.metrics.base import Metric
from lodestar.core.metrics.registry import find_metric, metric_names, metrics_for

__all__ = ["Metric", "find_metric", "metric_names", "metrics_for"]
