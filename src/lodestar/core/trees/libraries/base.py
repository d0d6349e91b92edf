"""What every library's plan is made of: how to ask it with a matrix, and its trees for the kernel."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lodestar.core.results import Predictions
from lodestar.core.trees.forest import Forest

__all__ = ["Ask", "NativeModel", "Says", "classified", "reader"]

# (n, p) features, or (n, outputs) of the kernel → what they say.
Ask: TypeAlias = Callable[[NDArray[Any]], Predictions]
# What the kernel's outputs are: a value; one probability for each class; the outcomes without and with
# a treatment, as float32.
Says = Literal["value", "probabilities", "outcomes"]


@dataclass(frozen=True)
class NativeModel:
    """Trees for the kernel, and what its outputs are."""

    forest: Forest
    says: Says


def reader(says: Says, classes: tuple[Any, ...]) -> Ask:
    """How to read the kernel's outputs."""
    if says == "probabilities":
        return classified(classes)
    if says == "outcomes":
        return lambda out: Predictions((out[:, 1] - out[:, 0]).astype(np.float64))
    return lambda out: Predictions(out[:, 0])


def classified(classes: tuple[Any, ...]) -> Ask:
    """The most probable class; the first of equal ones."""

    def read(probabilities: NDArray[Any]) -> Predictions:
        # With two, "p > 0.5" and "the larger one" agree: 1 - p is exact for p of at least 0.5.
        if probabilities.shape[1] == 2:  # noqa: PLR2004 -- a comparison takes a tenth of argmax's time
            values = (probabilities[:, 1] > probabilities[:, 0]).astype(np.int64)
        else:
            values = probabilities.argmax(axis=1).astype(np.int64, copy=False)
        return Predictions(values, probabilities, classes)

    return read
