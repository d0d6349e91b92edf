"""Intermediate values: what a trial tells while it learns is what its model would say at that point."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.searching import problem_of

from lodestar.core.models.watching import CHECKPOINTS, StoppedError, Watch, checkpoints
from lodestar.core.results import Predictions, Task, Truth
from lodestar.core.tuning.problem import TrialProblem
from lodestar.interface.learning import FeatureMatrix

ROUNDS = 100


class Watched:
    """One fit that was looked at, and the rows that it was judged on."""

    def __init__(
        self,
        problem: TrialProblem,
        hyperparameters: Mapping[str, Any],
        *,
        overdue: Callable[[], bool] = lambda: False,
        stop_at: int = 1000,
        looks: bool = True,
    ) -> None:
        self.problem, self.family = problem, problem.learner.family
        self.hyperparameters = hyperparameters
        positions = np.arange(len(problem.truth))
        split = problem.splitter.validation(
            problem.split_columns, problem.strata, positions, seed=0
        )
        self.train = problem.learner.prepare(
            problem.inputs.take(split.train), problem.truth.at(split.train)
        )
        self.rows: FeatureMatrix = self.train.preprocessor.transform(
            problem.inputs.take(split.test), dtype=self.family.dtype
        )
        self.truth: Truth = problem.truth.at(split.test)
        self.told: dict[int, float] = {}
        self.stop_at = stop_at
        watch = Watch(
            metric=problem.metric.name,
            features=self.rows,
            truth=self.truth,
            classes=problem.truth.classes,
            score=problem.metric.compute,
            tell=self._tell,
            overdue=overdue,
            looks=looks,
        )
        self.model = self.family.build(hyperparameters, seed=1)
        self.family.fit_watched(self.model, self.train.features, self.train.truth, watch)

    def _tell(self, step: int, value: float) -> None:
        self.told[step] = value
        if step >= self.stop_at:
            raise StoppedError

    def score(self, model: Any) -> float:  # noqa: ANN401 -- any estimator
        said = self.family.predict(model, self.rows, self.problem.truth.classes)
        return self.problem.metric.compute(self.truth, said)

    def unwatched(self) -> float:
        """The final value of the same fit that nobody looked at."""
        model = self.family.build(self.hyperparameters, seed=1)
        self.family.fit(model, self.train.features, self.train.truth)
        return self.score(model)

    def array(self) -> NDArray[Any]:
        return self.rows.array()


def test_looks_grow_rarer_and_the_end_is_none_of_them() -> None:
    assert checkpoints(100) == {percent: percent for percent in CHECKPOINTS}
    assert checkpoints(1) == {}
    assert checkpoints(5) == {1: 32, 2: 50, 3: 64, 4: 80}
    assert checkpoints(1000)[20] == 2
    assert max(checkpoints(1000)) == 800


@pytest.mark.parametrize(
    ("task", "classes", "metric", "given"),
    [
        ("classification", 2, "roc_auc", {}),
        ("classification", 2, "log_loss", {"subsample": 0.7}),
        ("classification", 3, "log_loss", {"colsample_bytree": 0.7}),
        ("classification", 3, "accuracy", {"objective": "multi:softmax"}),
        ("regression", 2, "rmse", {}),
        ("regression", 2, "rmse", {"objective": "count:poisson"}),
        ("regression", 2, "rmse", {"objective": "reg:gamma"}),
        ("regression", 2, "rmse", {"objective": "reg:tweedie"}),
        ("regression", 2, "mae", {"objective": "reg:absoluteerror"}),
        ("regression", 2, "rmse", {"missing": 0.0}),
    ],
)
def test_xgboost_tells_what_its_first_rounds_alone_predict(
    task: Task, classes: int, metric: str, given: dict[str, Any]
) -> None:
    path = "xgboost.XGBClassifier" if task == "classification" else "xgboost.XGBRegressor"
    problem = problem_of(path, task, metric, classes=classes)
    fit = Watched(problem, {"n_estimators": ROUNDS, "n_jobs": 1, **given})
    assert list(fit.told) == list(CHECKPOINTS)
    for percent, value in fit.told.items():
        # The same model, cut off: nothing of ours computes these predictions.
        ends = (0, ROUNDS * percent // 100)
        if task == "classification":
            probabilities = fit.model.predict_proba(fit.array(), iteration_range=ends)
            values = np.argmax(probabilities, axis=1)
        else:
            probabilities, values = None, fit.model.predict(fit.array(), iteration_range=ends)
        expected = problem.metric.compute(
            fit.truth, Predictions(values, probabilities, problem.truth.classes)
        )
        assert value == pytest.approx(expected, rel=1e-5), percent
    assert fit.score(fit.model) == pytest.approx(fit.unwatched(), rel=1e-6)


def test_a_share_target_is_judged_on_shares_not_on_margins() -> None:
    problem = problem_of("xgboost.XGBRegressor", "regression", "rmse")
    target = problem.truth.target
    problem.truth = Truth((target - target.min()) / (target.max() - target.min()))
    fit = Watched(problem, {"n_estimators": ROUNDS, "n_jobs": 1, "objective": "reg:logistic"})
    assert all(0 < value < 0.5 for value in fit.told.values())
    assert fit.told[80] == pytest.approx(fit.score(fit.model), abs=0.01)


@pytest.mark.parametrize(
    ("path", "given"),
    [
        ("xgboost.XGBRegressor", {"booster": "gblinear", "n_estimators": ROUNDS}),
        ("xgboost.XGBRFRegressor", {"n_estimators": ROUNDS}),
        ("xgboost.XGBRegressor", {"n_estimators": 1}),
        ("sklearn.ensemble.BaggingRegressor", {"n_estimators": 5, "warm_start": True}),
        ("catboost.CatBoostRegressor", {"n_estimators": ROUNDS, "eval_metric": "MAE"}),
    ],
)
def test_what_cannot_be_asked_half_way_is_judged_on_a_third_of_the_rows(
    path: str, given: dict[str, Any]
) -> None:
    problem = problem_of(path, "regression", "rmse")
    fit = Watched(problem, given)
    assert list(fit.told) == [33]
    third = np.arange(0, len(fit.train.truth), 3)
    model = fit.family.build(given, seed=1)
    part = FeatureMatrix(fit.train.features.rows(third), fit.rows.names)
    fit.family.fit(model, part, fit.train.truth.at(third))
    assert fit.told[33] == pytest.approx(fit.score(model), rel=1e-4)
    assert fit.score(fit.model) == pytest.approx(fit.unwatched(), rel=1e-4)


def squared_error(truth: NDArray[Any], said: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    return said - truth, np.ones_like(truth)


def test_an_objective_of_ones_own_is_judged_on_a_third_of_the_rows() -> None:
    problem = problem_of("xgboost.XGBRegressor", "regression", "rmse")
    assert list(Watched(problem, {"n_estimators": 20, "objective": squared_error}).told) == [33]


def test_a_third_without_one_of_the_classes_is_left_out() -> None:
    problem = problem_of("sklearn.naive_bayes.GaussianNB", metric="accuracy", rows=60)
    fit = Watched(problem, {})
    train = fit.train.truth.target
    # Rows that the third does not have are the only ones of their class.
    train[:] = 0
    train[1] = 1
    told: dict[int, float] = {}
    watch = Watch(
        metric="accuracy",
        features=fit.rows,
        truth=fit.truth,
        classes=problem.truth.classes,
        score=problem.metric.compute,
        tell=lambda step, value: told.update({step: value}),
        overdue=lambda: False,
    )
    fit.family.fit_watched(fit.model, fit.train.features, fit.train.truth, watch)
    assert told == {}


@pytest.mark.parametrize(
    ("task", "classes", "metric", "given"),
    [
        ("classification", 2, "roc_auc", {}),
        ("classification", 2, "log_loss", {"sigmoid": 2.0}),
        ("classification", 3, "log_loss", {}),
        ("classification", 3, "log_loss", {"objective": "multiclassova"}),
        ("regression", 2, "rmse", {}),
        ("regression", 2, "rmse", {"objective": "poisson"}),
        ("regression", 2, "rmse", {"objective": "tweedie"}),
        ("regression", 2, "rmse", {"reg_sqrt": True}),
        (
            "regression",
            2,
            "rmse",
            {"boosting_type": "rf", "bagging_fraction": 0.5, "bagging_freq": 1},
        ),
    ],
)
def test_lightgbm_tells_what_its_first_rounds_alone_predict(
    task: Task, classes: int, metric: str, given: dict[str, Any]
) -> None:
    path = "lightgbm.LGBMClassifier" if task == "classification" else "lightgbm.LGBMRegressor"
    problem = problem_of(path, task, metric, classes=classes)
    # `num_iterations` is LightGBM's own name of n_estimators.
    fit = Watched(problem, {"num_iterations": ROUNDS, "n_jobs": 1, **given})
    assert list(fit.told) == list(CHECKPOINTS)
    for percent, value in fit.told.items():
        short = {**fit.hyperparameters, "num_iterations": ROUNDS * percent // 100}
        model = fit.family.build(short, seed=1)
        fit.family.fit(model, fit.train.features, fit.train.truth)
        assert value == pytest.approx(fit.score(model), rel=1e-6), percent
    assert fit.score(fit.model) == pytest.approx(fit.unwatched(), rel=1e-9)


@pytest.mark.parametrize(
    ("task", "classes", "metric"),
    [
        ("classification", 2, "roc_auc"),
        ("classification", 2, "log_loss"),
        ("classification", 2, "accuracy"),
        ("classification", 3, "accuracy"),
        ("classification", 3, "log_loss"),
        ("regression", 2, "rmse"),
        ("regression", 2, "mae"),
        ("regression", 2, "r2"),
    ],
)
def test_catboost_computes_our_metric_itself(task: Task, classes: int, metric: str) -> None:
    path = f"catboost.CatBoost{'Classifier' if task == 'classification' else 'Regressor'}"
    problem = problem_of(path, task, metric, classes=classes)
    fit = Watched(problem, {"iterations": ROUNDS, "thread_count": 1})
    # It looks one round after every fiftieth of them: 13 and 25 percent are a little late.
    late = {13: 14, 25: 26}
    assert list(fit.told) == [step for step in CHECKPOINTS if step not in {3, 5}]
    for percent, value in fit.told.items():
        cut = fit.model.copy()
        cut.shrink(ROUNDS * late.get(percent, percent) // 100 + 1)
        assert value == pytest.approx(fit.score(cut), rel=1e-5), percent
    assert fit.score(fit.model) == pytest.approx(fit.unwatched(), rel=1e-9)


@pytest.mark.parametrize(
    ("name", "given", "steps"),
    [
        ("GradientBoosting", {"n_estimators": ROUNDS, "subsample": 0.5}, list(CHECKPOINTS)),
        ("HistGradientBoosting", {"max_iter": 20}, [10, 30, 60]),
        ("RandomForest", {"n_estimators": 20}, [10, 30, 60]),
        ("ExtraTrees", {"n_estimators": 20, "bootstrap": True, "max_samples": 0.5}, [10, 30, 60]),
    ],
)
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_scikit_learns_ensembles_tell_what_its_first_rounds_alone_predict(
    name: str, given: dict[str, Any], steps: list[int], task: Task
) -> None:
    kind, metric = ("Classifier", "log_loss") if task == "classification" else ("Regressor", "rmse")
    problem = problem_of(f"sklearn.ensemble.{name}{kind}", task, metric, classes=3)
    fit = Watched(problem, given)
    assert list(fit.told) == steps
    rounds = next(key for key in given if key in {"n_estimators", "max_iter"})
    for percent, value in fit.told.items():
        model = fit.family.build({**given, rounds: given[rounds] * percent // 100}, seed=1)
        fit.family.fit(model, fit.train.features, fit.train.truth)
        assert value == pytest.approx(fit.score(model), rel=1e-4), percent
    assert fit.score(fit.model) == pytest.approx(fit.unwatched(), rel=1e-4)


def test_a_forest_that_was_watched_is_bit_by_bit_the_one_that_was_not() -> None:
    fit = Watched(problem_of("sklearn.ensemble.RandomForestClassifier"), {"n_estimators": 20})
    assert fit.score(fit.model) == fit.unwatched()
    assert fit.model.get_params()["warm_start"] is False
    assert len(fit.model.estimators_) == fit.model.n_estimators == 20


def test_a_forest_with_balanced_weights_is_not_grown_in_steps() -> None:
    given = {"n_estimators": 20, "class_weight": "balanced"}
    fit = Watched(problem_of("sklearn.ensemble.RandomForestClassifier"), given)
    assert list(fit.told) == [33]
    assert fit.score(fit.model) == fit.unwatched()


def test_histogram_boosting_that_has_stopped_by_itself_does_not_go_on() -> None:
    problem = problem_of("sklearn.ensemble.HistGradientBoostingRegressor", "regression", "rmse")
    fit = Watched(problem, {"max_iter": 500, "early_stopping": True, "n_iter_no_change": 3})
    assert 50 < fit.model.n_iter_ < 150
    assert list(fit.told) == [10]


BOOSTERS = [
    ("xgboost.XGBClassifier", {"n_estimators": 200, "n_jobs": 1}),
    ("lightgbm.LGBMClassifier", {"n_estimators": 200, "n_jobs": 1}),
    ("catboost.CatBoostClassifier", {"iterations": 200, "thread_count": 1}),
    ("sklearn.ensemble.GradientBoostingClassifier", {"n_estimators": 200}),
    ("sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 200}),
    ("sklearn.ensemble.RandomForestClassifier", {"n_estimators": 50}),
]


@pytest.mark.parametrize(("path", "given"), BOOSTERS)
def test_a_verdict_ends_the_training(path: str, given: dict[str, Any]) -> None:
    with pytest.raises(StoppedError):
        Watched(problem_of(path), given, stop_at=30)


@pytest.mark.parametrize(("path", "given"), BOOSTERS)
def test_the_deadline_is_looked_at_while_a_trial_learns(path: str, given: dict[str, Any]) -> None:
    class Clock:
        asked: ClassVar[int] = 0

        def __call__(self) -> bool:
            Clock.asked += 1
            return Clock.asked > 1

    with pytest.raises(StoppedError):
        Watched(problem_of(path), given, overdue=Clock())
    assert Clock.asked == 2


@pytest.mark.parametrize(
    ("path", "given"), [*BOOSTERS, ("sklearn.linear_model.LogisticRegression", {})]
)
def test_a_fit_that_nobody_watches_is_the_plain_one(path: str, given: dict[str, Any]) -> None:
    fit = Watched(problem_of(path), given, looks=False)
    assert fit.told == {}
    assert fit.score(fit.model) == pytest.approx(fit.unwatched(), rel=1e-9)


@pytest.mark.parametrize(("path", "given"), BOOSTERS[:4])
def test_a_fit_that_nobody_watches_still_meets_its_deadline(
    path: str, given: dict[str, Any]
) -> None:
    with pytest.raises(StoppedError):
        Watched(problem_of(path), given, looks=False, overdue=lambda: True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries that causalml imports
def test_an_uplift_model_is_judged_on_a_third_with_its_treatment() -> None:
    problem = problem_of("causalml.inference.meta.XGBTRegressor", "causal", "auuc", rows=600)
    fit = Watched(problem, {"n_estimators": 10, "n_jobs": 1})
    assert list(fit.told) == [33]
    assert fit.told[33] != fit.score(fit.model)
    assert fit.score(fit.model) == pytest.approx(fit.unwatched())
