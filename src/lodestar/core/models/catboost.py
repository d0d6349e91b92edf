"""CatBoost: its own file format and TreeSHAP, and no training folder left behind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.core.models.family import Estimator, Family, Matrix
from lodestar.interface.learning import FeatureMatrix

__all__ = ["CatBoostFamily"]


class CatBoostFamily(Family):
    """CatBoostClassifier and CatBoostRegressor."""

    name: ClassVar[str] = "catboost"
    dtype: ClassVar[type[np.floating[Any]]] = np.float32

    def refusals(self) -> tuple[type[Exception], ...]:
        """CatBoost's own error is no ValueError."""
        from catboost import CatBoostError

        return (ValueError, CatBoostError)

    def build(self, hyperparameters: Mapping[str, Any], *, seed: int) -> Estimator:
        """Seeded, quiet and without writing `catboost_info/` unless the recipe asks otherwise."""
        quiet: dict[str, Any] = {"allow_writing_files": False}
        if not {"verbose", "silent", "logging_level", "verbose_eval"} & set(hyperparameters):
            quiet["silent"] = True
        if not {"random_seed", "random_state"} & set(hyperparameters):
            quiet["random_seed"] = seed
        return self.cls(**{**quiet, **hyperparameters})

    def contributions(
        self, estimator: Estimator, features: FeatureMatrix
    ) -> NDArray[np.float64] | None:
        """TreeSHAP by CatBoost; of several classes the sum."""
        from catboost import Pool

        shap = np.abs(estimator.get_feature_importance(Pool(features.data), type="ShapValues"))
        return np.asarray(shap[:, :-1] if shap.ndim == 2 else shap[:, :, :-1].sum(axis=1))  # noqa: PLR2004

    def save(self, estimator: Estimator, folder: Path) -> str:
        """CatBoost's binary format."""
        estimator.save_model(str(folder / "model.cbm"))
        return "model.cbm"

    def load(self, path: Path) -> Estimator:
        """Read it back into the same class."""
        return self.cls().load_model(str(path))

    def _input(self, features: FeatureMatrix) -> Matrix:
        return features.data
