"""LightGBM: its booster with one thread, and the trees of its text format.

https://github.com/microsoft/LightGBM, src/io/tree.cpp and src/io/gbdt_model_text.cpp.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.core.fitted import FittedModel
from lodestar.core.results import Predictions
from lodestar.core.trees.forest import Link, NotPlannedError, Tree, forest_of
from lodestar.core.trees.libraries.base import Ask, NativeModel, classified

__all__ = ["matrix_model", "native_model"]

# These objectives hand on the margin as it is; `sqrt`, behind the name, squares it.
IDENTITY = frozenset({"regression", "regression_l1", "huber", "fair", "quantile", "mape"})
CATEGORICAL, MISSING, ZERO_IS_MISSING = 0b1, 0b1100, 0b0100


def matrix_model(fitted: FittedModel) -> Ask:
    """The booster's own prediction, in one thread."""
    booster = getattr(fitted.estimator, "booster_", fitted.estimator)
    if not fitted.classes:
        return lambda matrix: Predictions(booster.predict(matrix, num_threads=1))
    read = classified(fitted.classes)

    def probabilities(matrix: NDArray[Any]) -> Predictions:
        said = booster.predict(matrix, num_threads=1)
        return read(np.stack([1.0 - said, said], axis=1) if said.ndim == 1 else said)

    return probabilities


def native_model(fitted: FittedModel, width: int) -> NativeModel:
    """The trees of a booster.

    Raises:
        NotPlannedError: the booster or its objective is of a kind that the kernel does not know.
    """
    text = getattr(fitted.estimator, "booster_", fitted.estimator).model_to_string()
    head, *trees = text.partition("\nend of trees")[0].split("\nTree=")
    model = _Model.of(head, width)
    classes = len(fitted.classes)
    first = 1 if model.link == "logistic" else 0
    if model.outputs + first != max(classes, 1):
        raise NotPlannedError(f"a booster with {model.outputs} outputs, not {classes} classes")
    forest = forest_of(
        [_tree(part, first + at % model.outputs) for at, part in enumerate(trees)],
        base=np.zeros(first + model.outputs),
        width=width,
        strict=False,
        link=model.link,
        slope=model.slope,
    )
    return NativeModel(forest, "probabilities" if classes else "value")


@dataclass(frozen=True)
class _Model:
    link: Link
    slope: float
    outputs: int

    @classmethod
    def of(cls, head: str, width: int) -> "_Model":
        """Read what stands before the trees."""
        lines = head.splitlines()
        if "average_output" in lines:
            raise NotPlannedError("the trees are averaged")
        values = dict(_pairs(lines))
        if int(values["max_feature_idx"]) + 1 != width:
            raise NotPlannedError(f"it has {values['max_feature_idx']} + 1 features, not {width}")
        name, *words = values.get("objective", "none").split(" ")
        options = dict(word.partition(":")[::2] for word in words)
        outputs = int(values["num_tree_per_iteration"])
        if name in IDENTITY and "sqrt" not in options:
            return cls("identity", 1.0, outputs)
        if name == "binary":
            return cls("logistic", float(options["sigmoid"]), outputs)
        if name == "multiclass":
            return cls("softmax", 1.0, outputs)
        raise NotPlannedError(f"the objective is {values.get('objective')}")


def _pairs(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, equals, value = line.partition("=")
        if equals:
            yield name, value


def _tree(text: str, output: int) -> Tree:
    values = dict(_pairs(text.splitlines()))
    if values["num_cat"] != "0" or values.get("is_linear", "0") != "0":
        raise NotPlannedError("it has categorical splits or linear leaves")
    leaves = _numbers(values["leaf_value"], np.float64)
    if len(leaves) == 1:
        alone = np.full(1, -1)
        return Tree(np.zeros(1, np.int64), leaves, alone, alone, output)
    kinds = _numbers(values["decision_type"], np.int64)
    if (kinds & CATEGORICAL).any() or ((kinds & MISSING) == ZERO_IS_MISSING).any():
        raise NotPlannedError("it has categorical splits, or takes zeros as missing")
    ends = np.full(len(leaves), -1)
    children = [
        np.concatenate([_numbers(values[name], np.int64), ends])
        for name in ("left_child", "right_child")
    ]
    # A child that is a leaf is given as -1 - its number; leaves stand behind the inner nodes here.
    inner = len(kinds)
    for child in children:
        child[:inner] = np.where(child[:inner] < 0, inner - 1 - child[:inner], child[:inner])
    return Tree(
        feature=np.concatenate([_numbers(values["split_feature"], np.int64), np.zeros_like(ends)]),
        threshold=np.concatenate([_numbers(values["threshold"], np.float64), leaves]),
        left=children[0],
        right=children[1],
        output=output,
    )


def _numbers(text: str, kind: type[np.generic]) -> NDArray[Any]:
    return np.array(text.split(" "), dtype=kind)
