"""The recipe's ranges as Optuna's distributions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lodestar.settings.recipe import HyperparameterRange

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["SearchSpace"]


class SearchSpace:
    """Which hyperparameters are searched, and which are fixed."""

    def __init__(self, hyperparameters: Mapping[str, Any]) -> None:
        ranges = {k: v for k, v in hyperparameters.items() if isinstance(v, HyperparameterRange)}
        self.fixed = {k: v for k, v in hyperparameters.items() if k not in ranges}
        self.ranges = ranges

    def distributions(self) -> "dict[str, BaseDistribution]":
        """For Optuna, which is imported when a search begins and not before."""
        return {name: _distribution(found) for name, found in self.ranges.items()}

    def described(self) -> dict[str, dict[str, Any]]:
        """The ranges as plain values, for the artifact."""
        return {
            name: found.model_dump(mode="json", exclude_none=True)
            for name, found in self.ranges.items()
        }


def _distribution(found: HyperparameterRange) -> "BaseDistribution":
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if found.type == "categorical":
        return CategoricalDistribution(list(found.choices or ()))
    low, high = found.low or 0.0, found.high or 0.0
    if found.type == "int":
        step = int(found.step or 1)
        return IntDistribution(int(low), int(high), log=found.log, step=step)
    return FloatDistribution(low, high, log=found.log, step=found.step)
