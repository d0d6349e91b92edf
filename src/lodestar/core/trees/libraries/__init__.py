"""The quickest ways to ask a fitted estimator: with a matrix instead of a frame, and as flat trees."""

from importlib import import_module
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from lodestar.core.fitted import FittedModel
from lodestar.core.results import Predictions
from lodestar.core.trees.forest import NotPlannedError
from lodestar.core.trees.libraries.base import Ask, NativeModel, reader
from lodestar.interface.learning import FeatureMatrix

__all__ = [
    "IN_MACHINE_CODE",
    "Ask",
    "NativeModel",
    "is_planned",
    "matrix_model",
    "native_model",
    "reader",
]

# The families of which there may be trees for machine code.
IN_MACHINE_CODE = ("causal", "lightgbm", "xgboost")


def matrix_model(fitted: FittedModel, names: tuple[str, ...]) -> Ask:
    """Predict a matrix of the family's dtype in one thread; by the family itself where that is all."""
    library = _library(fitted)
    ask = library.matrix_model(fitted) if library else None

    def by_family(matrix: NDArray[Any]) -> Predictions:
        return fitted.predict(FeatureMatrix(matrix, names))

    return ask or by_family


def is_planned(fitted: FittedModel) -> bool:
    """Whether there is a quicker way than the family's own."""
    library = _library(fitted)
    return library is not None and library.matrix_model(fitted) is not None


def native_model(fitted: FittedModel, width: int) -> NativeModel:
    """The estimator as trees over `width` columns.

    Raises:
        NotPlannedError: it is something else, or of a kind that the kernel does not know.
    """
    library = _library(fitted)
    model: NativeModel | None = library.native_model(fitted, width) if library else None
    if model is None:
        kind = fitted.family.cls
        raise NotPlannedError(f"{kind.__module__}.{kind.__qualname__} has no trees that are known")
    return model


def _library(fitted: FittedModel) -> ModuleType | None:
    name = fitted.family.name
    return import_module(f"{__name__}.{name}") if name in IN_MACHINE_CODE else None
