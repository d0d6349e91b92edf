"""One trial: its own split, a preprocessor and a model of its train part, and how it can end."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.searching import metric_of, problem_of

from lodestar.core.models import family_of, import_class
from lodestar.core.models.watching import StoppedError, checkpoints
from lodestar.core.tuning.common_splits import common_split_seed
from lodestar.core.tuning.problem import TrialProblem, with_threads
from lodestar.errors import DataError
from lodestar.interface.execution import TrialOutcome, TrialTask
from lodestar.settings.recipe import Split

SMALL: dict[str, Any] = {"n_estimators": 10, "max_depth": 3, "n_jobs": 1}


def task(seed: int, given: dict[str, Any] | None = None, *, watched: bool = False) -> TrialTask:
    return TrialTask(seed, SMALL if given is None else given, seed, watched)


def run(problem: TrialProblem, what: TrialTask) -> TrialOutcome:
    return problem.run(what, lambda step, value: None, lambda: False)


def test_a_trials_value_is_that_of_the_pipeline_everyone_would_write() -> None:
    problem = problem_of()
    outcome = run(problem, task(3))
    split = problem.splitter.validation(
        problem.split_columns, problem.strata, np.arange(len(problem.truth)), seed=3
    )
    train = problem.learner.prepare(problem.inputs.take(split.train), problem.truth.at(split.train))
    model = problem.learner.single_training_iteration(train, SMALL)
    expected = problem.metric.compute(
        problem.truth.at(split.test), model.score(problem.inputs.take(split.test)).predictions
    )
    assert outcome.state == "complete"
    assert outcome.value == expected
    assert outcome.seconds > 0


def test_a_task_may_have_fewer_rows_judge_and_so_more_to_learn_from() -> None:
    problem = problem_of()
    whole, few = (
        problem.splitter.validation(
            problem.split_columns,
            problem.strata,
            np.arange(len(problem.truth)),
            seed=3,
            share=share,
        )
        for share in (None, 0.1)
    )
    assert len(few.test) == np.ceil(0.1 * len(problem.truth)) < len(whole.test)
    train = problem.learner.prepare(problem.inputs.take(few.train), problem.truth.at(few.train))
    model = problem.learner.single_training_iteration(train, SMALL)
    expected = problem.metric.compute(
        problem.truth.at(few.test), model.score(problem.inputs.take(few.test)).predictions
    )
    run(problem, task(3))
    assert run(problem, replace(task(3), judges=0.1)).value == expected


def test_every_row_judges_once_on_the_common_splits_of_one_shuffle() -> None:
    problem = problem_of()
    judges = []
    for split in range(5):
        run(problem, replace(task(common_split_seed(split)), judges=0.25))
        assert problem._last is not None
        judges.append(problem._last.judges)
    assert np.array_equal(np.sort(np.concatenate(judges[:4])), np.arange(len(problem.truth)))
    # The fifth is of another shuffle.
    assert not any(np.array_equal(judges[4], one) for one in judges[:4])


def test_the_slot_decides_the_split_and_so_the_value() -> None:
    problem = problem_of()
    values = [run(problem, task(seed)).value for seed in (0, 1, 2, 0, 1)]
    assert len({values[0], values[1], values[2]}) == 3
    assert values[:2] == values[3:]


def test_a_watched_trial_ends_with_the_same_value_as_an_unwatched_one() -> None:
    problem = problem_of()
    told: list[int] = []
    watched = problem.run(
        task(1, watched=True), lambda step, value: told.append(step), lambda: False
    )
    assert told == sorted(checkpoints(10).values())
    assert watched.value == run(problem, task(1)).value


def test_an_unwatched_trial_tells_nothing() -> None:
    told: list[int] = []
    problem_of().run(task(1), lambda step, value: told.append(step), lambda: False)
    assert told == []


def test_a_trial_that_is_told_to_stop_is_stopped_and_has_no_value() -> None:
    def stop(step: int, value: float) -> None:
        raise StoppedError

    outcome = problem_of().run(task(1, watched=True), stop, lambda: False)
    assert (outcome.state, outcome.value, outcome.error) == ("stopped", None, "")


def test_the_deadline_stops_a_trial_within_its_rounds() -> None:
    began = time.monotonic()
    outcome = problem_of(rows=2000).run(
        task(1, {"n_estimators": 100_000, "max_depth": 8, "n_jobs": 1}),
        lambda step, value: None,
        lambda: time.monotonic() - began > 0.5,
    )
    assert outcome.state == "stopped"
    assert time.monotonic() - began < 20  # all of its rounds take minutes


def test_an_estimators_failure_is_its_trials_in_one_line() -> None:
    outcome = run(problem_of(), task(1, {**SMALL, "max_depth": -7}))
    assert outcome.state == "failed"
    assert "max_depth" in outcome.error
    assert "\n" not in outcome.error


@pytest.mark.parametrize(
    ("path", "given"),
    [
        ("xgboost.XGBClassifier", {"n_estimators": "many"}),
        ("lightgbm.LGBMClassifier", {"n_estimators": "many"}),
        ("catboost.CatBoostClassifier", {"iterations": "many"}),
        ("sklearn.ensemble.RandomForestClassifier", {"n_estimators": "many"}),
        ("sklearn.linear_model.LogisticRegression", {"C": "big"}),
    ],
)
def test_a_fixed_value_of_a_wrong_type_is_named(path: str, given: dict[str, Any]) -> None:
    outcome = run(problem_of(path), task(1, given))
    assert outcome.state == "failed"
    assert f"{path.rpartition('.')[2]} refuses: " in outcome.error


def test_a_metric_that_is_not_a_number_fails_the_trial() -> None:
    problem = problem_of("xgboost.XGBClassifier", metric="roc_auc", split=Split(method="random"))
    # One class alone among the validation rows of this split: roc_auc is undefined there.
    split = problem.splitter.validation(
        problem.split_columns, None, np.arange(len(problem.truth)), seed=0
    )
    problem.truth.target[split.test] = 1
    problem.truth.target[split.train[::2]] = 0
    outcome = run(problem, task(0))
    assert outcome.state == "failed"
    assert outcome.error == "roc_auc is nan on its validation rows"


def test_rows_that_cannot_be_split_fail_the_trial_in_our_words() -> None:
    problem = problem_of(rows=4)
    outcome = run(problem, task(0))
    assert outcome.state == "failed"
    assert "stratified split" in outcome.error or "class" in outcome.error
    with pytest.raises(DataError):
        problem.splitter.validation(
            problem.split_columns, np.array([0, 0, 0, 1]), np.arange(4), seed=0
        )


def test_an_uplift_problem_keeps_treatment_and_outcome_together() -> None:
    problem = problem_of("lightgbm.LGBMRegressor", "causal", "auuc", rows=200)
    assert problem.strata is not None
    assert set(problem.strata.tolist()) == {0, 1, 2, 3}
    assert problem.metric is not metric_of("roc_auc")


@pytest.mark.parametrize(
    ("path", "given", "expected"),
    [
        ("xgboost.XGBClassifier", {}, {"n_jobs": 2}),
        ("xgboost.XGBClassifier", {"nthread": 1}, {"nthread": 1}),
        ("xgboost.XGBClassifier", {"n_jobs": 7}, {"n_jobs": 7}),
        ("lightgbm.LGBMRegressor", {}, {"n_jobs": 2}),
        ("lightgbm.LGBMRegressor", {"num_threads": 1}, {"num_threads": 1}),
        ("catboost.CatBoostRegressor", {}, {"thread_count": 2}),
        ("sklearn.ensemble.RandomForestRegressor", {}, {"n_jobs": 2}),
        ("sklearn.ensemble.RandomForestRegressor", {"n_jobs": None}, {"n_jobs": None}),
        ("sklearn.linear_model.Ridge", {"alpha": 1.0}, {"alpha": 1.0}),
    ],
)
def test_an_estimator_is_told_its_threads_unless_the_recipe_does(
    path: str, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    family = family_of(import_class(path, ["*"], where="", methods=("fit",)), "regression")
    assert with_threads(family, given, 2) == expected


@pytest.mark.parametrize("path", ["sklearn.linear_model.LogisticRegression"])
def test_being_told_of_threads_makes_no_estimator_warn(path: str) -> None:
    problem = problem_of(path)
    given = with_threads(problem.learner.family, {}, 2)
    outcome = run(problem, task(0, given))
    assert outcome.state == "complete", outcome.error
