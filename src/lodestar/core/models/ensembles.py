"""scikit-learn's ensembles: asked half-way for what they have learned so far."""

import copy
from typing import ClassVar

from lodestar.core.models.family import Estimator, Family
from lodestar.core.models.watching import Course, StoppedError, Watch
from lodestar.core.results import Truth
from lodestar.interface.learning import FeatureMatrix

__all__ = ["ForestFamily", "GradientBoostingFamily", "HistGradientBoostingFamily"]

# Every further fit takes in all rows anew: look less often than elsewhere.
STEPS = (10, 30, 60)


class GradientBoostingFamily(Family):
    """GradientBoostingClassifier and -Regressor, which call back after every round."""

    rounds: ClassVar[tuple[str, ...]] = ("n_estimators",)
    steps: ClassVar[tuple[str, ...]] = ("learning_rate",)

    def fit_watched(
        self, estimator: Estimator, features: FeatureMatrix, truth: Truth, watch: Watch
    ) -> None:
        """Fit, telling the metric at every checkpoint."""
        course = Course(watch, estimator.n_estimators)

        def monitor(round_: int, unfinished: Estimator, frame: object) -> bool:
            del frame
            done = round_ + 1
            if not course.looks_after(done):
                return False
            # The rounds to come are empty places in it: ask a copy that ends here.
            sofar = copy.copy(unfinished)
            sofar.estimators_ = unfinished.estimators_[:done]
            return course.look(done, self.predict(sofar, watch.features, watch.classes))

        estimator.fit(self._input(features), truth.target, monitor=monitor)


class _WarmStartFamily(Family):
    """Goes on from where it was by `warm_start`, and ends with the model that one fit would make."""

    # The hyperparameter that says how far a fit goes.
    size: ClassVar[str]

    def fit_watched(
        self, estimator: Estimator, features: FeatureMatrix, truth: Truth, watch: Watch
    ) -> None:
        """Fit in steps, telling the metric after each."""
        if not watch.looks:
            self.fit(estimator, features, truth)
            return
        whole, before = getattr(estimator, self.size), estimator.warm_start
        steps = {after: percent for percent in STEPS if (after := whole * percent // 100)}
        estimator.set_params(warm_start=True)
        for done, percent in steps.items():
            estimator.set_params(**{self.size: done})
            self.fit(estimator, features, truth)
            if self.reached(estimator) < done:
                break  # it has stopped by itself
            watch.at(percent, self.predict(estimator, watch.features, watch.classes))
            if watch.overdue():
                raise StoppedError
        else:
            estimator.set_params(**{self.size: whole})
            self.fit(estimator, features, truth)
        estimator.set_params(**{self.size: whole}, warm_start=before)

    def reached(self, estimator: Estimator) -> int:
        """How far it came: as far as it was told to."""
        reached: int = getattr(estimator, self.size)
        return reached


class HistGradientBoostingFamily(_WarmStartFamily):
    """HistGradientBoostingClassifier and -Regressor."""

    size: ClassVar[str] = "max_iter"
    bins: ClassVar[tuple[str, ...]] = ("max_bins",)

    def reached(self, estimator: Estimator) -> int:
        """Rounds; fewer than asked for where it stopped early by itself."""
        rounds: int = estimator.n_iter_
        return rounds


class ForestFamily(_WarmStartFamily):
    """Random forests and extremely randomized trees; the trees of a part are the whole's first ones."""

    size: ClassVar[str] = "n_estimators"

    def fit_watched(
        self, estimator: Estimator, features: FeatureMatrix, truth: Truth, watch: Watch
    ) -> None:
        """As for the others; "balanced" weights would be computed for each step's trees apart."""
        if isinstance(getattr(estimator, "class_weight", None), str):
            Family.fit_watched(self, estimator, features, truth, watch)
            return
        super().fit_watched(estimator, features, truth, watch)
