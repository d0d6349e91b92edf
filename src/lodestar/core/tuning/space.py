"""The recipe's ranges as Optuna's distributions."""

import json
from collections.abc import Mapping
from decimal import Decimal
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

    def first(self) -> dict[str, Any]:
        """The recipe's defaults, as Optuna keeps values: what the first trial is made of."""
        return {
            name: _encoded(found)
            for name, found in self.ranges.items()
            if found.default is not None
        }

    def chosen(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """What Optuna suggested, as the estimator takes it."""
        return {name: _decoded(self.ranges[name], value) for name, value in params.items()}

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
        choices = found.choices or ()
        return CategoricalDistribution(choices if _storable(found) else _texts(found))
    low, high = found.low or 0.0, found.high or 0.0
    if found.step is not None:
        # The last step below the upper bound; Optuna would cut it there as well, but warn.
        first, last, step = (Decimal(str(value)) for value in (low, high, found.step))
        high = float(first + (last - first) // step * step)
    if found.type == "int":
        return IntDistribution(int(low), int(high), log=found.log, step=int(found.step or 1))
    return FloatDistribution(low, high, log=found.log, step=found.step)


def _storable(found: HyperparameterRange) -> bool:
    """Whether a study can keep the choices; lists, such as layer sizes, it keeps as text."""
    return all(
        choice is None or isinstance(choice, str | int | float) for choice in found.choices or ()
    )


def _encoded(found: HyperparameterRange) -> object:
    """A range's default; the step that is next to it, where it lies between two."""
    if found.choices is not None:
        return found.default if _storable(found) else json.dumps(found.default)
    value = found.default
    if found.step is not None:
        first, last, step = (Decimal(str(one)) for one in (found.low, found.high, found.step))
        steps = round((Decimal(str(value)) - first) / step)
        value = first + min(steps, int((last - first) // step)) * step
    return int(value) if found.type == "int" else float(value)


def _texts(found: HyperparameterRange) -> list[str]:
    return [json.dumps(choice) for choice in found.choices or ()]


def _decoded(found: HyperparameterRange, value: object) -> object:
    if found.choices is None or _storable(found):
        return value
    return found.choices[_texts(found).index(str(value))]
