"""The list of all metrics. A name may stand for one formula per task (`roc_auc`)."""

from lodestar.core.metrics.base import Metric
from lodestar.core.metrics.causal import CAUSAL
from lodestar.core.metrics.classification import CLASSIFICATION
from lodestar.core.metrics.regression import REGRESSION
from lodestar.core.results import Task

__all__ = ["find_metric", "metric_names", "metrics_for"]

_METRICS = (*CLASSIFICATION, *REGRESSION, *CAUSAL)


def metrics_for(task: Task) -> tuple[Metric, ...]:
    """Every metric of a task, in the order of reports."""
    return tuple(metric for metric in _METRICS if task in metric.tasks)


def metric_names(task: Task) -> list[str]:
    """The valid names, for hints."""
    return [metric.name for metric in metrics_for(task)]


def find_metric(name: str, task: Task) -> Metric | None:
    """The task's metric of that name, or None: the caller knows the file and key to blame."""
    return next((metric for metric in metrics_for(task) if metric.name == name), None)
