"""XGBoost: float32 arrays straight to the booster, its own file format, its own TreeSHAP."""

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
from lodestar.core.models.watching import Course, Watch, checkpoints
from lodestar.core.results import Predictions, Task, Truth
from lodestar.interface.learning import FeatureMatrix

__all__ = ["BOOSTER_PARAMETERS", "XGBoostFamily"]

# Booster parameters that the scikit-learn classes pass on as keyword arguments (XGBoost 3 manual).
BOOSTER_PARAMETERS = frozenset(
    {
        *("eta", "lambda", "alpha", "min_split_loss", "sketch_ratio", "updater", "refresh_leaf"),
        *("process_type", "max_cached_hist_node", "rate_drop", "skip_drop", "sample_type"),
        *("normalize_type", "one_drop", "feature_selector", "top_k", "tweedie_variance_power"),
        *("huber_slope", "quantile_alpha", "expectile_alpha", "aft_loss_distribution"),
        *("aft_loss_distribution_scale", "nthread", "seed", "seed_per_iteration"),
        "disable_default_eval_metric",
    }
)


# Objectives whose transformation from margins to predictions is known here; None is the default.
_ADDITIVE: dict[Task, frozenset[str | None]] = {
    "classification": frozenset({None, "binary:logistic", "multi:softprob", "multi:softmax"}),
    "regression": frozenset({None, "reg:squarederror"}),
    "causal": frozenset(),
}


class XGBoostFamily(Family):
    """XGBClassifier, XGBRegressor and their kin."""

    name: ClassVar[str] = "xgboost"
    needs_validation: ClassVar[frozenset[str]] = frozenset({"early_stopping_rounds"})
    rounds: ClassVar[tuple[str, ...]] = ("n_estimators",)
    bins: ClassVar[tuple[str, ...]] = ("max_bin",)
    steps: ClassVar[tuple[str, ...]] = ("learning_rate", "eta")
    dtype: ClassVar[type[np.floating[Any]]] = np.float32

    def parameters(self) -> frozenset[str]:
        """The signature's names and the booster's."""
        return (named_parameters_of_base(self.cls) | BOOSTER_PARAMETERS) - {"kwargs"}

    def drafted(self, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
        """Fewer bins, where it makes histograms: not for linear boosters and exact splits."""
        booster = hyperparameters.get("booster") or "gbtree"
        if booster == "gblinear" or hyperparameters.get("tree_method") == "exact":
            return dict(hyperparameters)
        return super().drafted(hyperparameters)

    def boosts(self, hyperparameters: Iterable[str]) -> bool:
        """Not forests, whose trees are no rounds, nor where a booster is named: it may be linear."""
        from xgboost import XGBRFClassifier, XGBRFRegressor

        forest = issubclass(self.cls, (XGBRFClassifier, XGBRFRegressor))
        return not forest and "booster" not in hyperparameters and super().boosts(hyperparameters)

    def fit(self, estimator: Estimator, features: FeatureMatrix, truth: Truth) -> None:
        """Fit on the array."""
        refuse_absent_classes(truth)
        super().fit(estimator, features, truth)

    def fit_watched(
        self, estimator: Estimator, features: FeatureMatrix, truth: Truth, watch: Watch
    ) -> None:
        """Fit, telling the metric at every checkpoint.

        Only new trees are evaluated where the objective's transformation is known here, all of them
        for other objectives. Boosters that cannot be asked half-way (a forest in one round, linear,
        an objective of one's own) are judged on a third of the rows instead.
        """
        parameters = estimator.get_params()
        looks = _looks(self.task, parameters)
        rounds = estimator.get_num_boosting_rounds()
        if looks is None or not (watch.patience or checkpoints(rounds)):
            super().fit_watched(estimator, features, truth, watch)
            return
        estimator.callbacks = [_watching(looks(watch, parameters["missing"]), rounds)]
        try:
            self.fit(estimator, features, truth)
        finally:
            estimator.callbacks = None

    def predict(
        self, estimator: Estimator, features: FeatureMatrix, classes: tuple[Any, ...]
    ) -> Predictions:
        """One pass over the trees: the class is read off the probabilities, as XGBoost does it."""
        rows = self._input(features)
        if self.task != "classification":
            return Predictions(estimator.predict(rows))
        return _classified(estimator.predict_proba(rows), classes)

    def contributions(
        self, estimator: Estimator, features: FeatureMatrix
    ) -> NDArray[np.float64] | None:
        """TreeSHAP by the booster (Lundberg et al. 2020); None for linear boosters."""
        import xgboost

        booster = estimator.get_booster()
        if estimator.booster == "gblinear":
            return None
        shap = booster.predict(xgboost.DMatrix(features.array()), pred_contribs=True)
        absolute = np.abs(np.asarray(shap, dtype=np.float64)[..., :-1])
        summed: NDArray[np.float64] = absolute.reshape(len(features), -1, absolute.shape[-1]).sum(1)
        return summed

    def save(self, estimator: Estimator, folder: Path) -> str:
        """XGBoost's universal binary JSON."""
        estimator.save_model(folder / "model.ubj")
        return "model.ubj"

    def load(self, path: Path) -> Estimator:
        """Read it back into the same class."""
        estimator = self.cls()
        estimator.load_model(path)
        return estimator

    def _input(self, features: FeatureMatrix) -> Matrix:
        return features.data


def named_parameters_of_base(cls: type) -> frozenset[str]:
    """The names of an XGBoost class, whose constructors end in **kwargs for the booster."""
    import xgboost

    own = {name for base in cls.__mro__ for name in _own_names(base)}
    return frozenset(own | set(xgboost.XGBModel().get_params()))


def _own_names(base: type) -> frozenset[str]:
    return (named_parameters(base) or frozenset()) if base is not object else frozenset()


def _classified(probabilities: NDArray[Any], classes: tuple[Any, ...]) -> Predictions:
    values = (
        (probabilities[:, 1] > 0.5).astype(np.int64)  # noqa: PLR2004 -- XGBClassifier's own rule
        if probabilities.shape[1] == 2  # noqa: PLR2004 -- two classes
        else np.argmax(probabilities, axis=1)
    )
    return Predictions(values, probabilities, classes)


@dataclass
class _NewTrees:
    """Adds the margins of the trees since the last look to those before."""

    watch: Watch
    missing: float
    margins: NDArray[Any] | None = None
    seen: int = 0

    def look(self, model: Estimator, done: int) -> Predictions:
        self.margins = model.inplace_predict(
            self.watch.features.data,
            iteration_range=(self.seen, done),
            predict_type="margin",
            missing=self.missing,
            base_margin=self.margins,
        )
        self.seen = done
        margins: NDArray[Any] = np.asarray(self.margins)
        if not self.watch.classes:
            return Predictions(margins)
        if margins.ndim == 1:
            positive = 1.0 / (1.0 + np.exp(-margins))
            return _classified(np.column_stack([1.0 - positive, positive]), self.watch.classes)
        powers = np.exp(margins - margins.max(axis=1, keepdims=True))
        return _classified(powers / powers.sum(axis=1, keepdims=True), self.watch.classes)


@dataclass
class _AllTrees:
    """Asks every tree anew: right for any objective, as XGBoost transforms the values itself."""

    watch: Watch
    missing: float

    def look(self, model: Estimator, done: int) -> Predictions:
        return Predictions(
            model.inplace_predict(
                self.watch.features.data, iteration_range=(0, done), missing=self.missing
            )
        )


def _looks(task: Task, parameters: Mapping[str, Any]) -> type[_NewTrees] | type[_AllTrees] | None:
    """How to judge half-way; None where that cannot be."""
    objective, booster = parameters["objective"], parameters["booster"] or "gbtree"
    if callable(objective) or booster == "gblinear":
        return None
    additive = booster == "gbtree" and objective in _ADDITIVE[task]
    if additive:
        return _NewTrees
    return _AllTrees if task == "regression" else None


def _watching(looks: _NewTrees | _AllTrees, rounds: int) -> Any:  # noqa: ANN401 -- xgboost's class
    from xgboost.callback import TrainingCallback

    course = Course(looks.watch, rounds)

    class Watching(TrainingCallback):
        """Looks where the course says; true ends the training."""

        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:  # noqa: ANN401 -- untyped
            del evals_log
            done = epoch + 1
            return course.looks_after(done) and course.look(done, looks.look(model, done))

    return Watching()
