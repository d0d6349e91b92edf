"""What every library's plan is made of: how to ask it with a matrix, and its trees for the kernel."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lodestar.core.results import Predictions
from lodestar.serving.plan.forest import Forest

__all__ = ["Ask", "NativeModel", "classified"]

# (n, p) features, or (n, outputs) of the kernel → what they say.
Ask: TypeAlias = Callable[[NDArray[Any]], Predictions]


@dataclass(frozen=True)
class NativeModel:
    """Trees for the kernel, and how to read its outputs."""

    forest: Forest
    read: Ask


def classified(classes: tuple[Any, ...]) -> Ask:
    """The most probable class; the first of equal ones."""

    def read(probabilities: NDArray[Any]) -> Predictions:
        # With two, "p > 0.5" and "the larger one" agree: 1 - p is exact for p of at least 0.5.
        values = probabilities.argmax(axis=1).astype(np.int64, copy=False)
        return Predictions(values, probabilities, classes)

    return read
