"""LightGBM: arrays straight to the booster, its text format, its own TreeSHAP."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
from lodestar.core.models.watching import Course, Watch
from lodestar.core.results import Predictions, Truth
from lodestar.interface.learning import FeatureMatrix

__all__ = ["LightGBMFamily"]


# Objectives whose transformation from margins to predictions is known here, and the parameters that
# change it.
_ADDITIVE = frozenset({"regression", "regression_l1", "huber", "binary", "multiclass"})
_CHANGING = frozenset({"sigmoid", "reg_sqrt"})
# LightGBM's names for the number of rounds (its manual, Core Parameters).
_ROUNDS = (
    *("n_estimators", "num_iterations", "num_iteration", "n_iter", "num_tree", "num_trees"),
    *("num_round", "num_rounds", "nrounds", "num_boost_round", "max_iter"),
)
_BOOSTING = frozenset({"boosting_type", "boosting", "boost"})


class LightGBMFamily(Family):
    """LGBMClassifier and LGBMRegressor. A loaded model is the Booster, which the class wraps."""

    name: ClassVar[str] = "lightgbm"
    needs_validation: ClassVar[frozenset[str]] = frozenset(
        {"early_stopping_round", "early_stopping_rounds", "early_stopping", "n_iter_no_change"}
    )
    rounds: ClassVar[tuple[str, ...]] = _ROUNDS
    bins: ClassVar[tuple[str, ...]] = ("max_bin", "max_bins", "max_bin_by_feature")
    steps: ClassVar[tuple[str, ...]] = ("learning_rate", "shrinkage_rate", "eta")

    def parameters(self) -> frozenset[str]:
        """The signature's names and every alias that LightGBM knows, as the library lists them."""
        from lightgbm.basic import _ConfigAliases

        aliases = _ConfigAliases._get_all_param_aliases()  # noqa: SLF001 -- it has no public list
        known = {name for main, names in aliases.items() for name in (main, *names)}
        own = {name for base in self.cls.__mro__ for name in named_parameters(base) or ()}
        return frozenset(known | own)

    def boosts(self, hyperparameters: Iterable[str]) -> bool:
        """Not where a way of boosting is named: the trees of a random forest are no rounds."""
        return not _BOOSTING & set(hyperparameters) and super().boosts(hyperparameters)

    def refusals(self) -> tuple[type[Exception], ...]:
        """LightGBM's own error is no ValueError."""
        from lightgbm.basic import LightGBMError

        return (ValueError, TypeError, LightGBMError)

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
        """Fit, telling the metric at every checkpoint.

        Only new trees are evaluated where the objective's transformation is known here, all of them
        for other objectives and for boosting that changes trees later (dart, rf).
        """
        from lightgbm.callback import EarlyStopException

        refuse_absent_classes(truth)
        looks = _Looks(watch, self._input(watch.features))
        course: Course | None = None

        def look(environment: Any) -> None:  # noqa: ANN401 -- lightgbm's CallbackEnv
            nonlocal course
            # LightGBM knows the number of rounds by many names, and this is what it settled on.
            course = course or Course(watch, environment.end_iteration)
            done = environment.iteration + 1
            if course.looks_after(done):
                said = looks.look(environment.model, environment.params, done)
                if course.look(done, said):
                    raise EarlyStopException(environment.iteration, [])

        estimator.fit(self._input(features), truth.target, callbacks=[look])

    def predict(
        self, estimator: Estimator, features: FeatureMatrix, classes: tuple[Any, ...]
    ) -> Predictions:
        """Ask the booster, before and after saving alike."""
        booster = _booster(estimator)
        return _predictions(booster.predict(self._input(features)), classes)

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


@dataclass
class _Looks:
    """What the trees so far say of the validation rows."""

    watch: Watch
    rows: Matrix
    margins: Any = 0.0
    seen: int = 0

    def look(self, model: Estimator, params: Mapping[str, Any], done: int) -> Predictions:
        if not _additive(params):
            return _predictions(model.predict(self.rows, num_iteration=done), self.watch.classes)
        self.margins = self.margins + model.predict(
            self.rows, raw_score=True, start_iteration=self.seen, num_iteration=done - self.seen
        )
        self.seen = done
        margins, classes = self.margins, self.watch.classes
        if not classes:
            return Predictions(margins)
        if margins.ndim == 1:
            return _predictions(1.0 / (1.0 + np.exp(-margins)), classes)
        powers = np.exp(margins - margins.max(axis=1, keepdims=True))
        return _predictions(powers / powers.sum(axis=1, keepdims=True), classes)


def _additive(params: Mapping[str, Any]) -> bool:
    """Whether margins of trees add up, and become predictions in a way that is known here."""
    boosting = {params.get(name, "gbdt") for name in ("boosting", "boosting_type", "boost")}
    changed = _CHANGING & params.keys()
    return (
        not changed
        and boosting <= {"gbdt", "gbrt", "goss"}
        and params.get("objective") in _ADDITIVE
    )


def _booster(estimator: Estimator) -> Estimator:
    """A fitted class's booster; a loaded model is one."""
    return getattr(estimator, "booster_", estimator)


def _predictions(made: NDArray[Any], classes: tuple[Any, ...]) -> Predictions:
    """Predictions from what the booster says: values, or the probabilities of the classes."""
    if not classes:
        return Predictions(made)
    return _classified(np.column_stack([1.0 - made, made]) if made.ndim == 1 else made, classes)


def _classified(probabilities: NDArray[Any], classes: tuple[Any, ...]) -> Predictions:
    return Predictions(np.argmax(probabilities, axis=1), probabilities, classes)
