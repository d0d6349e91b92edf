"""scikit-learn's gradient boosting: asked half-way, round by round, for what it has learned so far."""

import copy
from typing import ClassVar

from lodestar.core.models.family import Estimator, Family
from lodestar.core.models.watching import Course, StoppedError, Watch
from lodestar.core.results import Truth
from lodestar.interface.learning import FeatureMatrix

__all__ = ["GradientBoostingFamily", "HistGradientBoostingFamily"]

# Every further fit of histogram boosting bins all rows anew: look less often than elsewhere.
STEPS = (10, 30, 60)


class GradientBoostingFamily(Family):
    """GradientBoostingClassifier and -Regressor, which call back after every round."""

    rounds: ClassVar[tuple[str, ...]] = ("n_estimators",)

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


class HistGradientBoostingFamily(Family):
    """HistGradientBoostingClassifier and -Regressor, which go on from where they were."""

    def fit_watched(
        self, estimator: Estimator, features: FeatureMatrix, truth: Truth, watch: Watch
    ) -> None:
        """Fit in steps by `warm_start`, telling the metric after each."""
        if not watch.looks:
            self.fit(estimator, features, truth)
            return
        rounds, before = estimator.max_iter, estimator.warm_start
        steps = {after: percent for percent in STEPS if (after := rounds * percent // 100)}
        estimator.set_params(warm_start=True)
        for done, percent in steps.items():
            estimator.set_params(max_iter=done)
            self.fit(estimator, features, truth)
            if estimator.n_iter_ < done:
                break  # it has stopped by itself
            watch.at(percent, self.predict(estimator, watch.features, watch.classes))
            if watch.overdue():
                raise StoppedError
        else:
            estimator.set_params(max_iter=rounds)
            self.fit(estimator, features, truth)
        estimator.set_params(max_iter=rounds, warm_start=before)
