"""Trials that stop early: where they are best on their own validation rows; finalists repeat that."""

from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from tests.searching import Script, between, metric_of, problem_of, searched, searching

from lodestar.core.models.watching import Patience
from lodestar.core.results import Task
from lodestar.core.tuning.problem import TrialProblem
from lodestar.core.tuning.result import SearchLimits
from lodestar.interface.execution import TrialOutcome, TrialTask

ROUNDS, PATIENCE = 200, 20
BEAT = PATIENCE // 10
LIMITS = SearchLimits(n_trials=6, seconds=60, candidates=3, splits=2, patience=PATIENCE)


def outcome_of(
    problem: TrialProblem, given: dict[str, Any], *, patience: int | None, watched: bool = False
) -> TrialOutcome:
    task = TrialTask(0, given, 3, watched, patience)
    return problem.run(task, lambda step, value: None, lambda: False)


BOOSTERS = {
    "xgboost.XGB": ("n_estimators", {"n_jobs": 1, "learning_rate": 0.3, "max_depth": 4}),
    "lightgbm.LGBM": ("num_iterations", {"n_jobs": 1, "learning_rate": 0.3}),
    "catboost.CatBoost": (
        "iterations",
        {"thread_count": 1, "learning_rate": 0.5, "depth": 5, "leaf_estimation_iterations": 2},
    ),
    "sklearn.ensemble.GradientBoosting": ("n_estimators", {"learning_rate": 0.4}),
}


@pytest.mark.parametrize("library", BOOSTERS)
@pytest.mark.parametrize(
    ("task", "metric", "classes"),
    [
        ("regression", "rmse", 2),
        ("classification", "roc_auc", 2),
        ("classification", "log_loss", 3),
    ],
)
def test_a_trial_stops_where_its_metric_was_best(
    library: str, task: Task, metric: str, classes: int
) -> None:
    name, given = BOOSTERS[library]
    path = f"{library}{'Regressor' if task == 'regression' else 'Classifier'}"
    problem = problem_of(path, task, metric, classes=classes)
    found = outcome_of(problem, {**given, name: ROUNDS}, patience=PATIENCE)
    assert found.error == ""
    assert found.rounds is not None
    assert found.rounds < ROUNDS - PATIENCE
    # No round that it looked at, and none that it would have come to, is better before it ended.
    offset = 1 if "CatBoost" in library else 0  # which evaluates after round 1, 3, 5, …
    around = [found.rounds + BEAT * away for away in (-3, -2, -1, 0, 1, 2, 5, 9)]
    values = {
        rounds: outcome_of(problem, {**given, name: rounds}, patience=None).value
        for rounds in around
        if rounds > 0
    }
    assert (found.rounds - offset) % BEAT == 0
    assert found.value == pytest.approx(values[found.rounds], rel=1e-5)
    sign = 1 if problem.metric.direction == "maximize" else -1
    others = [value for value in values.values() if value is not None]
    assert sign * (found.value or 0) >= max(sign * value for value in others) - 1e-6


@pytest.mark.parametrize("library", BOOSTERS)
def test_what_gets_better_to_the_end_is_not_stopped(library: str) -> None:
    name, given = BOOSTERS[library]
    problem = problem_of(f"{library}Regressor", "regression", "rmse")
    slow = {**given, "learning_rate": 0.001, name: 53}
    assert outcome_of(problem, slow, patience=PATIENCE).rounds == 53


@pytest.mark.parametrize("watched", [True, False])
def test_looking_on_does_not_change_where_a_trial_stops(watched: bool) -> None:
    problem = problem_of("xgboost.XGBRegressor", "regression", "rmse")
    given = {"n_estimators": ROUNDS, "learning_rate": 0.3, "n_jobs": 1}
    told: dict[int, float] = {}
    task = TrialTask(0, given, 3, watched, PATIENCE)
    found = problem.run(task, lambda step, value: told.update({step: value}), lambda: False)
    assert found.value is not None
    assert bool(told) is watched
    # Told is what the trial is worth so far, so that a pruner does not take its decline for its end.
    assert list(told.values()) == sorted(told.values(), reverse=True)
    assert all(value >= found.value for value in told.values())


def test_patience_ends_after_so_many_rounds_without_a_better_value() -> None:
    patience = Patience(rounds=10, maximize=True)
    assert patience.beat == 1
    values = [float("nan"), 0.5, 0.7, 0.7, 0.6]
    assert [patience.spent(done, value) for done, value in enumerate(values, start=1)] == [
        False
    ] * 5
    assert (patience.best, patience.after) == (0.7, 3)
    assert not patience.spent(12, 0.69)
    assert patience.spent(13, 0.69)
    least = Patience(rounds=10, maximize=False)
    assert not any(least.spent(done, value) for done, value in ((1, 0.5), (2, 0.7), (3, 0.4)))
    assert (least.best, least.after) == (0.4, 3)


@pytest.mark.parametrize(
    ("path", "given", "metric"),
    [
        ("xgboost.XGBRegressor", {"booster": "gblinear"}, "rmse"),
        ("catboost.CatBoostRegressor", {"eval_metric": "MAE"}, "rmse"),
        ("sklearn.linear_model.Ridge", {}, "rmse"),
    ],
)
def test_what_cannot_be_looked_at_round_by_round_says_so(
    path: str, given: dict[str, Any], metric: str
) -> None:
    found = outcome_of(problem_of(path, "regression", metric), given, patience=5)
    assert found.state == "failed"
    assert "cannot be looked at round by round" in found.error
    assert "cannot stop early" in found.error


def test_the_finalists_have_their_own_rounds_and_are_not_stopped_again() -> None:
    class Stopping(Script):
        def events(self, *, timeout: float) -> list[Any]:
            return [
                replace(event, rounds=10 + event.number)
                if isinstance(event, TrialOutcome)
                else event
                for event in super().events(timeout=timeout)
            ]

    script = Stopping(lambda task: 0.5 + task.hyperparameters["x"] / 100)
    space = {"n_estimators": 500, "x": between(0.0, 1.0)}
    result = searching(
        script, space, metric_of("roc_auc"), LIMITS, rounds_name="n_estimators"
    ).run()
    trials, finals = script.submitted[:6], script.submitted[6:]
    assert {task.patience for task in trials} == {PATIENCE}
    assert {task.hyperparameters["n_estimators"] for task in trials} == {500}
    assert {task.patience for task in finals} == {None}
    assert all(task.hyperparameters["n_estimators"] == 10 + task.number for task in finals)
    assert result.best_params["n_estimators"] == 10 + result.finalists[0].number
    assert [record.rounds for record in result.history] == [10 + slot for slot in range(6)]
    assert "n_estimators" not in result.history[0].params


def test_a_resumed_search_knows_the_rounds_again() -> None:
    problem = problem_of("lightgbm.LGBMRegressor", "regression", "rmse", rows=200)
    space = {"num_trees": ROUNDS, "n_jobs": 1, "learning_rate": between(0.1, 0.5)}
    study = optuna.create_study(direction="minimize")
    first = searched(problem, space, replace(LIMITS, n_trials=4), study=study)
    again = searched(problem, space, replace(LIMITS, n_trials=4), study=study)
    assert all(record.rounds for record in first.history)
    assert [record.rounds for record in again.history] == [item.rounds for item in first.history]
    assert again.best_params == first.best_params
    assert again.best_params["num_trees"] < ROUNDS


def test_the_search_chooses_a_model_that_does_not_overfit_by_its_rounds() -> None:
    # Of fewer rows the choice is luck: with 400 it depends on the splits which is better.
    problem = problem_of("xgboost.XGBRegressor", "regression", "rmse", rows=1_600)
    space = {"n_estimators": 600, "n_jobs": 1, "learning_rate": between(0.1, 0.5), "max_depth": 6}
    stopped = searched(problem, space, LIMITS)
    whole = searched(problem, space, replace(LIMITS, patience=None))
    assert stopped.best_score < whole.best_score
    assert np.isfinite(stopped.best_error)
