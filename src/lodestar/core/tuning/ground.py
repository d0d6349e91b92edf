"""What every part of one search works with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from lodestar.core.metrics import Metric
from lodestar.core.tuning.result import SearchLimits
from lodestar.interface.execution import TrialExecutor

__all__ = ["SearchGround"]


@dataclass(frozen=True)
class SearchGround:
    """One study, what it is judged by, what runs its fits, and how far it may go.

    `hyperparameters` takes what was chosen, and the threads of how many workers the fit may have.
    """

    study: optuna.Study
    metric: Metric
    limits: SearchLimits
    executor: TrialExecutor
    hyperparameters: Callable[[Mapping[str, Any], int], Mapping[str, Any]]
    interrupted: Callable[[], bool]

    @property
    def sign(self) -> float:
        """1 where more of the metric is better, else -1."""
        return 1.0 if self.metric.direction == "maximize" else -1.0
