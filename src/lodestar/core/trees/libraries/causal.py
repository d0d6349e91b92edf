"""causalml's T-learner of two XGBRegressors, without causalml: the blueprint's own model.

Its prediction (causalml/inference/meta/tlearner.py) is the treated model's float32 minus the control
model's, kept as float64.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.core.fitted import FittedModel
from lodestar.core.results import Predictions
from lodestar.core.trees.forest import NotPlannedError, forest_of
from lodestar.core.trees.libraries.base import Ask, NativeModel
from lodestar.core.trees.libraries.xgboost import Booster, in_place, is_plain

__all__ = ["matrix_model", "native_model"]


def matrix_model(fitted: FittedModel) -> Ask | None:
    """None for all learners but that one."""
    pair = _pair(fitted.estimator)
    if pair is None or not all(map(is_plain, pair)):
        return None
    control, treated = map(in_place, pair)

    def uplift(matrix: NDArray[Any]) -> Predictions:
        return Predictions((treated(matrix) - control(matrix)).astype(np.float64))

    return uplift


def native_model(fitted: FittedModel, width: int) -> NativeModel | None:
    """Both models' trees in one forest with an output for each; None for all other learners.

    Raises:
        NotPlannedError: a booster is of a kind that the kernel does not know.
    """
    pair = _pair(fitted.estimator)
    if pair is None:
        return None
    boosters = [Booster.of(estimator, width) for estimator in pair]
    if {booster.link for booster in boosters} != {"identity"}:
        raise NotPlannedError("its two models are no plain regressors")
    forest = forest_of(
        [tree for output, booster in enumerate(boosters) for tree in booster.trees(output)],
        base=np.concatenate([booster.margins for booster in boosters]),
        width=width,
        strict=True,
        link="identity",
    )
    return NativeModel(forest, "outcomes")


def _pair(estimator: Any) -> tuple[Any, Any] | None:  # noqa: ANN401 -- untyped library
    """The models of control and treatment, where there is one treatment."""
    kind = type(estimator)
    if kind.__module__ != "causalml.inference.meta.tlearner" or kind.__name__ != "XGBTRegressor":
        return None
    treatments = list(estimator.models_t.values())
    return (estimator.model_c, treatments[0]) if len(treatments) == 1 else None
