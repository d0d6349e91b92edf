"""Scores of trials are corrected for how hard their own validation rows are."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from tests.searching import (
    CLASSIFIER,
    Script,
    between,
    metric_of,
    problem_of,
    searched,
    searching,
    whole,
)

from lodestar.core.results import Predictions, Truth
from lodestar.core.tuning.problem import TrialProblem
from lodestar.core.tuning.reference import Reference, cross_fitted
from lodestar.core.tuning.result import SearchLimits, described
from lodestar.errors import DataError
from lodestar.interface.execution import TrialOutcome, TrialTask

SMALL: dict[str, Any] = {"n_estimators": 10, "max_depth": 2, "n_jobs": 1}


def run(problem: TrialProblem, task: TrialTask) -> TrialOutcome:
    return problem.run(task, lambda step, value: None, lambda: False)


def reference_of(problem: TrialProblem, given: Mapping[str, Any] = SMALL) -> Reference:
    return cross_fitted(
        problem.inputs,
        problem.truth,
        problem.strata,
        learner=problem.learner,
        metric=problem.metric,
        hyperparameters=given,
        overdue=lambda: False,
    )


@pytest.mark.parametrize(
    ("path", "task", "metric"),
    [
        (CLASSIFIER, "classification", "roc_auc"),
        ("xgboost.XGBRegressor", "regression", "rmse"),
        ("sklearn.linear_model.LogisticRegression", "classification", "log_loss"),
    ],
)
def test_what_is_taken_off_is_the_references_difference(path: str, task: Any, metric: str) -> None:  # noqa: ANN401 -- a literal
    given = {} if "Logistic" in path else SMALL
    problem = problem_of(path, task, metric, rows=600)
    plain = run(problem, TrialTask(0, given, 5, watched=False))
    problem.reference = given
    corrected = run(problem, TrialTask(0, given, 5, watched=False, correction=1.0))
    assert plain.offset == 0.0
    assert corrected.offset != 0.0
    assert corrected.value == pytest.approx((plain.value or 0.0) - corrected.offset)
    positions = problem.splitter.validation(
        problem.split_columns, problem.strata, np.arange(600), seed=5
    ).test
    assert corrected.offset == reference_of(problem, given).offset(positions)


def test_only_trials_that_ask_for_it_are_corrected() -> None:
    problem = problem_of(rows=600)
    problem.reference = SMALL
    assert run(problem, TrialTask(0, SMALL, 5, watched=False)).offset == 0.0


def test_intermediate_values_are_corrected_alike() -> None:
    problem = problem_of(rows=600)
    given = {**SMALL, "n_estimators": 60}
    seen: dict[bool, list[float]] = {False: [], True: []}
    problem.reference = SMALL
    for corrected, values in seen.items():
        task = TrialTask(0, given, 5, watched=True, correction=1.0 if corrected else None)
        outcome = problem.run(task, lambda step, value, to=values: to.append(value), lambda: False)  # type: ignore[misc]  # bound here
    assert np.allclose(np.array(seen[False]) - outcome.offset, seen[True])


def test_no_row_is_predicted_by_a_model_that_was_fitted_on_it() -> None:
    """Fitted to the noise of every row, a forest of one deep tree would know the rows by heart."""
    path = "sklearn.tree.DecisionTreeClassifier"
    problem = problem_of(path, rows=900)
    found = reference_of(problem, {})
    fitted = problem.learner.prepare(problem.inputs, problem.truth)
    model = problem.learner.single_training_iteration(fitted, {})
    by_heart = model.predict(fitted.features)
    assert problem.metric.compute(problem.truth, by_heart) == 1.0
    assert found.overall < 0.9


def test_the_reference_is_the_same_on_every_worker() -> None:
    first, second = (reference_of(problem_of(rows=500)) for _ in range(2))
    assert np.array_equal(first.predictions.values, second.predictions.values)
    assert first.overall == second.overall


def test_a_metric_that_is_undefined_on_these_rows_corrects_nothing() -> None:
    problem = problem_of(rows=500)
    found = reference_of(problem)
    one_class = np.flatnonzero(problem.truth.target == 1)
    assert found.offset(one_class) == 0.0


class Choosy(LogisticRegression):  # type: ignore[misc]  # scikit-learn has no types
    """An estimator that some hyperparameters break."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "Choosy":  # noqa: ANN401 -- scikit-learn's
        if self.C == 7.0:
            raise RuntimeError("not with me")
        super().fit(X, y, sample_weight)
        return self


@pytest.mark.parametrize(
    ("path", "bad", "good"),
    [
        (CLASSIFIER, {"max_depth": -3}, SMALL),
        (f"{__name__}.Choosy", {"C": 7.0}, {"C": 1.0}),
    ],
)
def test_a_reference_that_the_estimator_refuses_leaves_values_as_they_are(
    path: str, bad: dict[str, Any], good: dict[str, Any]
) -> None:
    problem = problem_of(path, rows=500)
    problem.reference = bad
    outcome = run(problem, TrialTask(0, good, 5, watched=False, correction=1.0))
    assert outcome.state == "complete"
    assert outcome.offset == 0.0


def test_the_deadline_is_looked_at_before_every_fit() -> None:
    problem = problem_of(rows=500)
    problem.reference = SMALL
    task = TrialTask(0, SMALL, 5, watched=False, correction=1.0)
    outcome = problem.run(task, lambda step, value: None, lambda: True)
    assert outcome.state == "stopped"
    assert problem._measured is None


@pytest.mark.faults
def test_corrected_scores_rank_configurations_better() -> None:
    """Of a pool whose order is known, each on a split of its own; what the correction is for."""
    problem = problem_of(rows=500)
    pool = [{**SMALL, "max_depth": 1 + at % 6, "n_estimators": 5 + 4 * at} for at in range(16)]
    truth = [
        np.mean(
            [run(problem, TrialTask(0, given, 1_000 + at, watched=False)).value for at in range(8)]
        )
        for given in pool
    ]
    problem.reference = {"n_estimators": 40, "max_depth": 3, "n_jobs": 1}
    found: dict[float | None, list[float]] = {None: [], 1.0: []}
    for repetition in range(8):
        for correction, ranks in found.items():
            values = [
                run(
                    problem,
                    TrialTask(0, given, 50 * repetition + at, watched=False, correction=correction),
                ).value
                for at, given in enumerate(pool)
            ]
            ranks.append(float(spearmanr(values, truth).statistic))
    assert np.mean(found[1.0]) > np.mean(found[None])


def test_half_of_the_correction_takes_half_off() -> None:
    problem = problem_of(rows=600)
    problem.reference = SMALL
    whole_of_it, half = (
        run(problem, TrialTask(0, SMALL, 5, watched=False, correction=share))
        for share in (1.0, 0.5)
    )
    assert half.offset == pytest.approx(whole_of_it.offset / 2)
    assert (half.value or 0) + half.offset == pytest.approx(
        (whole_of_it.value or 0) + whole_of_it.offset
    )


def drawn_like(reference: Reference, times: float, noise: float) -> Predictions:
    """Of numbers whose error goes `times` as far from its mean as the reference's, and noise."""
    random = np.random.default_rng(1)
    error = reference.predictions.values - reference.truth.target
    moved = (
        times * (np.abs(error) - np.abs(error).mean())
        + 2.0
        + noise * random.normal(size=len(error))
    )
    return Predictions(reference.truth.target + moved)


@pytest.mark.parametrize(("times", "noise"), [(1.0, 0.0), (0.5, 0.0), (0.5, 0.2)])
def test_the_slope_is_how_far_a_models_metric_goes_with_the_references(
    times: float, noise: float
) -> None:
    random = np.random.default_rng(0)
    truth = Truth(random.normal(size=8_000))
    mae = metric_of("mae", "regression")
    predictions = Predictions(truth.target + random.normal(size=8_000))
    reference = Reference(truth, predictions, mae, mae.compute(truth, predictions))
    found = reference.slope(np.arange(8_000), drawn_like(reference, times, noise))
    assert found == pytest.approx(times, abs=0.1)


def test_of_few_rows_no_slope_is_known() -> None:
    problem = problem_of(rows=2_400)
    found = reference_of(problem)
    assert found.slope(np.arange(1_999), Predictions(found.predictions.values[:1_999])) is None
    rows = problem.learner.prepare(problem.inputs, problem.truth)
    predictions = problem.learner.single_training_iteration(rows, SMALL).predict(rows.features)
    slope = found.slope(np.arange(2_400), predictions)
    assert slope is not None
    assert 0.2 < slope <= 1.0
    # The reference goes with itself.
    assert found.slope(np.arange(2_400), found.predictions) == pytest.approx(1.0)


def test_later_trials_are_corrected_as_was_best_for_those_that_have_ended() -> None:
    slopes = {0: 0.8, 1: None, 2: 0.4}
    script = Script(
        lambda task: float(task.hyperparameters["x"]),
        slope=lambda task: slopes.get(task.number, 0.6),
    )
    limits = SearchLimits(
        n_trials=6, seconds=60.0, pruning=False, candidates=1, splits=1, corrected=True
    )
    space = {"x": between(0.0, 1.0)}
    result = searching(script, space, metric_of("roc_auc"), limits).run()
    trials = [task.correction for task in script.submitted[:6]]
    assert trials == pytest.approx([1.0, 0.8, 0.8, 0.6, 0.6, 0.6])
    assert [record.slope for record in result.history] == [0.8, None, 0.4, 0.6, 0.6, 0.6]


def test_trials_are_corrected_and_finalists_are_not() -> None:
    limits = SearchLimits(n_trials=12, seconds=60.0, candidates=2, splits=2, corrected=True)
    problem = problem_of(rows=400)
    problem.reference = SMALL
    result = searched(problem, {"n_estimators": whole(5, 20), "max_depth": whole(1, 4)}, limits)
    assert all(record.offset for record in result.history)
    history = described(result)["optimization_history"]
    assert {item["offset"] for item in history} == {record.offset for record in result.history}
    for finalist in result.finalists:
        for at, score in enumerate(finalist.scores):
            task = TrialTask(0, dict(finalist.params), 1_000_000 + at, watched=False, judges=0.25)
            assert run(problem, task).value == score


def test_an_objective_that_is_constant_is_seen_through_the_correction() -> None:
    class Corrected(Script):
        def events(self, *, timeout: float) -> Any:  # noqa: ANN401 -- as the port's
            return [
                replace(event, value=event.value - 0.01 * event.number, offset=0.01 * event.number)
                if isinstance(event, TrialOutcome) and event.value is not None
                else event
                for event in super().events(timeout=timeout)
            ]

    limits = SearchLimits(n_trials=30, seconds=60.0, corrected=True)
    search = searching(
        Corrected(lambda task: 0.7), {"x": between(0.0, 1.0)}, metric_of("roc_auc"), limits
    )
    with pytest.raises(DataError, match="does not depend on what is searched"):
        search.run()


def test_predictions_without_probabilities_are_enough() -> None:
    problem = problem_of("sklearn.svm.LinearSVC", metric="accuracy", rows=300)
    found = reference_of(problem, {})
    assert found.predictions.probabilities is None
    assert isinstance(found.predictions, Predictions)
    assert 0.5 < found.overall <= 1.0


@pytest.mark.parametrize("begun", [False, True])
def test_a_resumed_search_keeps_to_its_kind_of_scores(begun: bool) -> None:
    """More trials may be asked for then, and the two kinds cannot be compared."""
    study = optuna.create_study(direction="maximize")
    limits = SearchLimits(n_trials=4, seconds=60.0, candidates=1, splits=1, corrected=begun)
    space, metric = {"x": between(0.0, 1.0)}, metric_of("roc_auc")

    def play(task: TrialTask) -> float:
        return float(task.hyperparameters["x"])

    searching(Script(play), space, metric, limits, study=study).run()
    script = Script(play)
    resumed = replace(limits, n_trials=8, corrected=not begun)
    searching(script, space, metric, resumed, study=study).run()
    trials = [task for task in script.submitted if task.split_seed < 1_000]
    assert [task.correction for task in trials] == [1.0 if begun else None] * 4
