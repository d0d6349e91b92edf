"""XGBoost without its scikit-learn classes: the booster in place, and its trees.

What a class's `predict` and `predict_proba` do (xgboost/sklearn.py): one `inplace_predict` up to the
best iteration; the probability of the first of two classes is 1 minus the other one's.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.core.fitted import FittedModel
from lodestar.core.results import Predictions
from lodestar.core.trees.c_library import math_function
from lodestar.core.trees.forest import Link, NotPlannedError, Tree, forest_of
from lodestar.core.trees.libraries.base import Ask, NativeModel, classified
from lodestar.core.trees.ubjson import read_ubjson

__all__ = ["Booster", "in_place", "is_plain", "matrix_model", "native_model"]

LINKS: dict[str, Link] = {
    "reg:squarederror": "identity",
    "binary:logistic": "logistic",
    "multi:softprob": "softmax",
}


def matrix_model(fitted: FittedModel) -> Ask | None:
    """None for classes and objectives whose predictions are made in another way."""
    estimator = fitted.estimator
    if not is_plain(estimator) or (fitted.classes and estimator.objective == "multi:softmax"):
        return None
    ask = in_place(estimator)
    if not fitted.classes:
        return lambda matrix: Predictions(ask(matrix))
    read = classified(fitted.classes)

    def probabilities(matrix: NDArray[Any]) -> Predictions:
        said = ask(matrix)
        return read(np.stack([1.0 - said, said], axis=1) if said.ndim == 1 else said)

    return probabilities


def in_place(estimator: Any) -> Callable[[NDArray[Any]], NDArray[Any]]:  # noqa: ANN401 -- untyped library
    """The values of a matrix, from a copy of the booster that takes one thread."""
    booster = estimator.get_booster().copy()
    booster.set_param({"nthread": 1})
    rounds, missing = (0, _best_rounds(estimator)), estimator.missing

    def ask(matrix: NDArray[Any]) -> NDArray[Any]:
        said: NDArray[Any] = booster.inplace_predict(
            matrix, iteration_range=rounds, missing=missing, validate_features=False
        )
        return said

    return ask


def is_plain(estimator: Any) -> bool:  # noqa: ANN401 -- untyped library
    """Whether it is one of XGBoost's own classes, with trees."""
    return type(estimator).__module__ == "xgboost.sklearn" and estimator.booster != "gblinear"


def native_model(fitted: FittedModel, width: int) -> NativeModel:
    """The trees of one of XGBoost's own classes.

    Raises:
        NotPlannedError: the booster or its objective is of a kind that the kernel does not know.
    """
    booster = Booster.of(fitted.estimator, width)
    classes = len(fitted.classes)
    first = 1 if booster.link == "logistic" else 0
    if len(booster.margins) + first != max(classes, 1):
        raise NotPlannedError(
            f"a booster with {len(booster.margins)} outputs, not {classes} classes"
        )
    forest = forest_of(
        booster.trees(first),
        base=np.concatenate([np.zeros(first, np.float32), booster.margins]),
        width=width,
        strict=True,
        link=booster.link,
    )
    return NativeModel(forest, "probabilities" if classes else "value")


@dataclass(frozen=True)
class Booster:
    """What a booster's own file says: its trees in their order, the output of each, and the margins."""

    link: Link
    margins: NDArray[np.float32]
    parts: Sequence[dict[str, Any]]
    outputs: Sequence[int]

    @classmethod
    def of(cls, estimator: Any, width: int) -> "Booster":  # noqa: ANN401 -- untyped library
        """Read it, and refuse what the kernel does not know."""
        if not is_plain(estimator) or not np.isnan(estimator.missing):
            raise NotPlannedError("it is no plain XGBoost class whose missing values are NaN")
        learner = read_ubjson(estimator.get_booster().save_raw("ubj"))["learner"]
        gradient, parameters = learner["gradient_booster"], learner["learner_model_param"]
        objective = learner["objective"]["name"]
        if gradient["name"] != "gbtree":
            raise NotPlannedError(f"the booster is {gradient['name']}")
        if objective not in LINKS or parameters["num_target"] != "1":
            raise NotPlannedError(f"the objective is {objective} of {parameters['num_target']}")
        if int(parameters["num_feature"]) != width:
            raise NotPlannedError(f"it has {parameters['num_feature']} features, not {width}")
        model = gradient["model"]
        last = model["iteration_indptr"][_best_rounds(estimator) or -1]
        trees = model["trees"][:last]
        if any(tree["split_type"].any() for tree in trees):
            raise NotPlannedError("it has categorical splits")
        if any(tree["tree_param"]["size_leaf_vector"] not in {"0", "1"} for tree in trees):
            raise NotPlannedError("its leaves hold vectors")
        margins = _margins(parameters, LINKS[objective])
        return cls(LINKS[objective], margins, trees, list(map(int, model["tree_info"][:last])))

    def trees(self, first: int) -> list[Tree]:
        """The trees; output 0 is the kernel's output `first`."""
        return [
            Tree(
                feature=tree["split_indices"],
                threshold=tree["split_conditions"],
                left=tree["left_children"],
                right=tree["right_children"],
                output=first + output,
            )
            for tree, output in zip(self.parts, self.outputs, strict=True)
        ]


def _margins(parameters: dict[str, Any], link: Link) -> NDArray[np.float32]:
    """The intercept, kept as a prediction, as the margin it came from; one for every output."""
    texts = parameters["base_score"].strip("[]").split(",")
    scores = np.array([float(text) for text in texts], np.float32)
    if link == "logistic":
        # src/objective/regression_loss.h, ProbToMargin; numpy's own logarithm rounds otherwise.
        kind = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_float)
        logarithm, one = kind(math_function("logf")), np.float32(1.0)
        odds = one / scores - one
        scores = np.array([-logarithm(value) for value in odds], np.float32)
    outputs = max(int(parameters["num_class"]), 1)
    return np.ascontiguousarray(np.broadcast_to(scores, outputs))


def _best_rounds(estimator: Any) -> int:  # noqa: ANN401 -- untyped library
    """After how many rounds early stopping found the best; 0 means all of them."""
    try:
        return int(estimator.best_iteration) + 1
    except AttributeError:
        return 0
