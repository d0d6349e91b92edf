"""LightGBM: arrays straight to the booster, its text format, its own TreeSHAP."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.core.models.family import (
    Estimator,
    Family,
    Matrix,
    named_parameters,
    refuse_absent_classes,
)
from lodestar.core.models.watching import StoppedError, Watch, checkpoints
from lodestar.core.results import Predictions, Truth
from lodestar.interface.learning import FeatureMatrix

__all__ = ["LightGBMFamily"]


class LightGBMFamily(Family):
    """LGBMClassifier and LGBMRegressor. A loaded model is the Booster, which the class wraps."""

    name: ClassVar[str] = "lightgbm"

    def parameters(self) -> frozenset[str]:
        """The signature's names and every alias that LightGBM knows, as the library lists them."""
        from lightgbm.basic import _ConfigAliases

        aliases = _ConfigAliases._get_all_param_aliases()  # noqa: SLF001 -- it has no public list
        known = {name for main, names in aliases.items() for name in (main, *names)}
        own = {name for base in self.cls.__mro__ for name in named_parameters(base) or ()}
        return frozenset(known | own)

    def refusals(self) -> tuple[type[Exception], ...]:
        """LightGBM's own error is no ValueError."""
        from lightgbm.basic import LightGBMError

        return (ValueError, LightGBMError)

    def build(self, hyperparameters: Mapping[str, Any], *, seed: int) -> Estimator:
        """Seeded, and quiet unless the recipe asks for LightGBM's own log."""
        return super().build({"verbosity": -1, **hyperparameters}, seed=seed)

    def fit(self, estimator: Estimator, features: FeatureMatrix, truth: Truth) -> None:
        """Fit on the array: column names are kept by us, and LightGBM forbids some characters."""
        refuse_absent_classes(truth)
        estimator.fit(self._input(features), truth.target)

    def fit_watched(
        self, estimator: Estimator, features: FeatureMatrix, truth: Truth, watch: Watch
    ) -> None:
        """Fit, telling the metric at every tenth of the rounds; only new trees are evaluated."""
        rounds = estimator.get_params()["n_estimators"]
        marks = checkpoints(rounds)
        rows, seen = self._input(watch.features), 0
        margins: Any = 0.0

        def look(environment: Any) -> None:  # noqa: ANN401 -- lightgbm's CallbackEnv
            nonlocal margins, seen
            if watch.overdue():
                raise StoppedError
            done = environment.iteration + 1
            if done in marks:
                margins = margins + environment.model.predict(
                    rows, raw_score=True, start_iteration=seen, num_iteration=done - seen
                )
                seen = done
                watch.at(marks[done], self._judged(margins, watch.classes))

        estimator.fit(self._input(features), truth.target, callbacks=[look])

    def _judged(self, margins: NDArray[Any], classes: tuple[Any, ...]) -> Predictions:
        """Predictions from raw margins, for ranking trials while they learn."""
        if self.task != "classification":
            return Predictions(margins)
        if margins.ndim == 1:
            made = 1.0 / (1.0 + np.exp(-margins))
            return _classified(np.column_stack([1.0 - made, made]), classes)
        powers = np.exp(margins - margins.max(axis=1, keepdims=True))
        return _classified(powers / powers.sum(axis=1, keepdims=True), classes)

    def predict(
        self, estimator: Estimator, features: FeatureMatrix, classes: tuple[Any, ...]
    ) -> Predictions:
        """Ask the booster, before and after saving alike."""
        booster = _booster(estimator)
        made = booster.predict(self._input(features))
        if self.task != "classification":
            return Predictions(made)
        return _classified(np.column_stack([1.0 - made, made]) if made.ndim == 1 else made, classes)

    def contributions(
        self, estimator: Estimator, features: FeatureMatrix
    ) -> NDArray[np.float64] | None:
        """TreeSHAP by the booster; of several classes the sum."""
        booster = _booster(estimator)
        shap = np.asarray(booster.predict(self._input(features), pred_contrib=True))
        width = booster.num_feature() + 1
        summed: NDArray[np.float64] = np.abs(shap.reshape(len(features), -1, width)[:, :, :-1]).sum(
            axis=1
        )
        return summed

    def save(self, estimator: Estimator, folder: Path) -> str:
        """LightGBM's text format, which keeps every bit of the numbers."""
        _booster(estimator).save_model(folder / "model.txt")
        return "model.txt"

    def load(self, path: Path) -> Estimator:
        """Read the booster back."""
        import lightgbm

        return lightgbm.Booster(model_file=path)

    def _input(self, features: FeatureMatrix) -> Matrix:
        return features.data


def _booster(estimator: Estimator) -> Estimator:
    """A fitted class's booster; a loaded model is one."""
    return getattr(estimator, "booster_", estimator)


def _classified(probabilities: NDArray[Any], classes: tuple[Any, ...]) -> Predictions:
    return Predictions(np.argmax(probabilities, axis=1), probabilities, classes)
