"""Estimators: found by class path, handled by the family of the library they come from."""

from lodestar.core.models.family import Family
from lodestar.core.models.importing import import_class
from lodestar.core.results import Task

__all__ = ["Family", "family_of", "import_class"]


def family_of(cls: type, task: Task) -> Family:
    """Pick how to handle a class by the library that made it, or that its parents come from."""
    if task == "causal":
        from lodestar.core.models.causal import CausalFamily

        return CausalFamily(cls, task)
    libraries = {base.__module__.partition(".")[0] for base in cls.__mro__}
    if "xgboost" in libraries:
        from lodestar.core.models.xgboost import XGBoostFamily

        return XGBoostFamily(cls, task)
    if "lightgbm" in libraries:
        from lodestar.core.models.lightgbm import LightGBMFamily

        return LightGBMFamily(cls, task)
    if "catboost" in libraries:
        from lodestar.core.models.catboost import CatBoostFamily

        return CatBoostFamily(cls, task)
    if "sklearn" in libraries:
        return _of_sklearn(cls, task)
    return Family(cls, task)


def _of_sklearn(cls: type, task: Task) -> Family:
    from lodestar.core.models.ensembles import (
        ForestFamily,
        GradientBoostingFamily,
        HistGradientBoostingFamily,
    )

    names = {base.__name__ for base in cls.__mro__ if base.__module__.startswith("sklearn.")}
    if "BaseHistGradientBoosting" in names:
        return HistGradientBoostingFamily(cls, task)
    if "BaseGradientBoosting" in names:
        return GradientBoostingFamily(cls, task)
    if "BaseForest" in names:
        return ForestFamily(cls, task)
    return Family(cls, task)
