"""CatBoost: its own file format and TreeSHAP, and no training folder left behind."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lodestar.core.models.family import Estimator, Family, Matrix
from lodestar.core.models.watching import CHECKPOINTS, StoppedError, Watch, checkpoints
from lodestar.core.results import Truth
from lodestar.interface.learning import FeatureMatrix

__all__ = ["CatBoostFamily"]


_EVALUATIONS = 50  # per training; the checkpoints lie on them, or next to one
_ROUNDS = ("iterations", "n_estimators", "num_boost_round", "num_trees")
# With these the recipe has plans of its own for what CatBoost computes while it learns.
_OWN = frozenset({"custom_metric", "eval_metric", "metric_period"})
_USUAL = {None, "RMSE", "MAE", "Logloss", "MultiClass"}
# (task, more than two classes, our metric) → the same figure in CatBoost's words.
_NATIVE = {
    ("classification", False, "roc_auc"): "AUC",
    ("classification", False, "log_loss"): "Logloss",
    ("classification", False, "accuracy"): "Accuracy",
    ("classification", True, "accuracy"): "Accuracy",
    ("classification", True, "log_loss"): "MultiClass",
    ("regression", False, "rmse"): "RMSE",
    ("regression", False, "mae"): "MAE",
    ("regression", False, "r2"): "R2",
}


class CatBoostFamily(Family):
    """CatBoostClassifier and CatBoostRegressor."""

    name: ClassVar[str] = "catboost"
    needs_validation: ClassVar[frozenset[str]] = frozenset(
        {"early_stopping_rounds", "od_type", "od_wait", "od_pval", "use_best_model"}
    )
    rounds: ClassVar[tuple[str, ...]] = _ROUNDS
    bins: ClassVar[tuple[str, ...]] = ("border_count", "max_bin")
    steps: ClassVar[tuple[str, ...]] = ("learning_rate", "eta")
    dtype: ClassVar[type[np.floating[Any]]] = np.float32

    def refusals(self) -> tuple[type[Exception], ...]:
        """CatBoost's own error is no ValueError."""
        from catboost import CatBoostError

        return (ValueError, TypeError, CatBoostError)

    def build(self, hyperparameters: Mapping[str, Any], *, seed: int) -> Estimator:
        """Seeded, quiet and without writing `catboost_info/` unless the recipe asks otherwise."""
        quiet: dict[str, Any] = {"allow_writing_files": False}
        if not {"verbose", "silent", "logging_level", "verbose_eval"} & set(hyperparameters):
            quiet["silent"] = True
        if not {"random_seed", "random_state"} & set(hyperparameters):
            quiet["random_seed"] = seed
        return self.cls(**{**quiet, **hyperparameters})

    def unstoppable(self, hyperparameters: Iterable[str]) -> str | None:
        """What CatBoost would choose anew for fewer rounds must be given."""
        free = [] if {"learning_rate", "eta"} & set(hyperparameters) else ["learning_rate"]
        if self.task == "classification":
            free += {"leaf_estimation_iterations"} - set(hyperparameters)
        return (
            f"CatBoost chooses {' and '.join(free)} by the number of rounds, and would choose anew "
            "for those that were best: give a value or a range"
            if free
            else None
        )

    def fit_watched(
        self, estimator: Estimator, features: FeatureMatrix, truth: Truth, watch: Watch
    ) -> None:
        """Fit, telling CatBoost's own figure of the same metric at the checkpoints.

        Its training cannot be asked for predictions half-way, but computes some metrics itself, one
        round after every fiftieth of them. A metric that it does not know, or a recipe that gives
        CatBoost metrics or an objective of its own, is judged on a third of the rows instead.
        """
        if not (watch.looks or watch.patience):
            self._fit_watched(estimator, features, truth, _Watching(watch))
            return
        parameters = estimator.get_params()
        native = _NATIVE.get((self.task, len(watch.classes) > 2, watch.metric))  # noqa: PLR2004 -- two classes
        rounds = next((parameters[name] for name in _ROUNDS if name in parameters), 1000)
        objectives = {parameters.get(name) for name in ("loss_function", "objective")}
        own = _OWN & parameters.keys() or not objectives <= _USUAL
        if native is None or own or not (watch.patience or checkpoints(rounds)):
            super().fit_watched(estimator, features, truth, watch)
            return
        beat = watch.patience.beat if watch.patience else rounds
        period = max(1, min(rounds // _EVALUATIONS, beat))
        estimator.set_params(custom_metric=[native], metric_period=period)
        self._fit_watched(
            estimator, features, truth, _Watching(watch, native, 100 * period / rounds)
        )

    def _fit_watched(
        self, estimator: Estimator, features: FeatureMatrix, truth: Truth, watching: "_Watching"
    ) -> None:
        from catboost import Pool

        rows = watching.watch
        judged = Pool(self._input(rows.features), rows.truth.target) if watching.metric else None
        estimator.fit(
            self._input(features),
            truth.target,
            eval_set=judged,
            use_best_model=False,
            callbacks=[watching],
        )
        if watching.stopped:
            raise StoppedError

    def contributions(
        self, estimator: Estimator, features: FeatureMatrix
    ) -> NDArray[np.float64] | None:
        """TreeSHAP by CatBoost; of several classes the sum."""
        from catboost import Pool

        shap = np.abs(estimator.get_feature_importance(Pool(features.data), type="ShapValues"))
        return np.asarray(shap[:, :-1] if shap.ndim == 2 else shap[:, :, :-1].sum(axis=1))  # noqa: PLR2004 -- a matrix

    def save(self, estimator: Estimator, folder: Path) -> str:
        """CatBoost's binary format."""
        estimator.save_model(str(folder / "model.cbm"))
        return "model.cbm"

    def load(self, path: Path) -> Estimator:
        """Read it back into the same class."""
        return self.cls().load_model(str(path))

    def _input(self, features: FeatureMatrix) -> Matrix:
        return features.data


@dataclass
class _Watching:
    """CatBoost's callback. It turns exceptions into its own error, so stopping is remembered."""

    watch: Watch
    metric: str = ""
    percent: float = 0.0  # of the rounds, between two evaluations
    seen: int = 1  # the first value is that of the first round alone
    told: int = 0
    stopped: bool = False

    def after_iteration(self, info: Any) -> bool:  # noqa: ANN401 -- catboost's, without a public class
        """Tell a new value; False ends the training."""
        told: list[float] = info.metrics["validation"][self.metric] if self.metric else []
        enough = False
        try:
            if self.watch.overdue():
                raise StoppedError
            if len(told) > self.seen:
                self.seen = len(told)
                enough = self._take(info.iteration, float(told[-1]))
        except StoppedError:
            self.stopped = True
        return not (self.stopped or enough)

    def _take(self, done: int, value: float) -> bool:
        patience = self.watch.patience
        enough = patience is not None and patience.spent(done, value)
        if self.watch.looks:
            self._tell(value if patience is None else patience.best)
        return enough

    def _tell(self, value: float) -> None:
        done = (self.seen - 1) * self.percent
        passed = [percent for percent in CHECKPOINTS if self.told < percent <= done < 100]  # noqa: PLR2004 -- percent
        if passed:
            self.told = passed[-1]
            self.watch.tell(self.told, value)
