"""Drafts: trials on a share of their rows, where whole ones would not fit into the time."""

from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
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

from lodestar.core.models import Family, family_of, import_class
from lodestar.core.splitter import Split
from lodestar.core.tuning.drafts import draft_share, thinned, whole_seconds
from lodestar.core.tuning.result import SearchLimits, TuningResult, described
from lodestar.errors import DataError
from lodestar.interface.execution import TrialOutcome, TrialReport, TrialTask

LIMITS = SearchLimits(n_trials=40, seconds=10.0, candidates=3, splits=3, draft=0.25)
SPACE = {"x": between(0.0, 1.0)}


def shape(task: TrialTask) -> float:
    """A draft is worse by 0.2 than the whole fit of the same hyperparameters."""
    return float(task.hyperparameters["x"]) / 2 - (0.2 if task.draft else 0.0)


def played(script: Script, limits: SearchLimits, study: optuna.Study | None = None) -> TuningResult:
    return searching(script, SPACE, metric_of("roc_auc"), limits, study=study).run()


def test_trials_that_fit_into_the_time_are_whole() -> None:
    script = Script(shape, seconds=0.001)
    result = played(script, LIMITS)
    assert result.draft_share is None
    assert {task.draft for task in script.submitted if task.number >= 0} == {None}
    assert not any("drafts" in note for note in result.notes)


def test_trials_that_do_not_are_drafts_and_their_finalists_are_whole() -> None:
    script = Script(shape, seconds=1.0)
    result = played(script, LIMITS)
    trials = [
        task for task in script.submitted if 0 <= task.split_seed < 1_000 and task.number >= 0
    ]
    finalists = [task for task in script.submitted if task.split_seed >= 1_000_000]
    assert {task.draft for task in trials} == {0.25}
    assert {task.draft for task in finalists} == {None}
    assert result.draft_share == 0.25
    assert described(result)["draft_share"] == 0.25
    assert any("fitted on 25% of their rows" in note for note in result.notes)
    # What is reported is the whole fit's, and a draft's score says nothing of flattery.
    assert result.best_score == pytest.approx(result.best_params["x"] / 2)
    assert np.isnan(result.optimism)


@pytest.mark.parametrize(("seconds", "judges"), [(1.0, 0.25), (0.001, 0.1)])
def test_more_rows_judge_the_finalists_of_drafts(seconds: float, judges: float) -> None:
    script = Script(shape, seconds=seconds)
    played(script, replace(LIMITS, validation_size=0.1, finalist_rows=1.2))
    finalists = [task for task in script.submitted if task.split_seed >= 1_000_000]
    assert {round(task.judges or 0, 9) for task in finalists} == {judges}


def test_what_the_rehearsal_fits_is_no_trial() -> None:
    script = Script(shape, seconds=1.0)
    study = optuna.create_study(direction="maximize")
    result = played(script, LIMITS, study)
    rehearsed = [task for task in script.submitted if task.number < 0]
    assert len(rehearsed) == 2
    assert [record.number for record in result.history] == list(range(40))
    assert len(study.trials) == 40


@pytest.mark.parametrize("limits", [replace(LIMITS, draft=None), replace(LIMITS, n_trials=5)])
def test_few_rows_and_few_trials_are_not_rehearsed(limits: SearchLimits) -> None:
    script = Script(shape, seconds=1.0)
    result = played(script, limits)
    assert not [task for task in script.submitted if task.number < 0]
    assert result.draft_share is None


def test_a_resumed_search_keeps_to_what_was_decided() -> None:
    study = optuna.create_study(direction="maximize")
    played(Script(shape, seconds=1.0), replace(LIMITS, n_trials=20), study)
    script = Script(shape, seconds=0.0)
    result = played(script, LIMITS, study)
    assert result.draft_share == 0.25
    assert not [task for task in script.submitted if task.number < 0]


def test_a_search_from_before_goes_on_whole() -> None:
    study = optuna.create_study(direction="maximize")
    played(Script(shape, seconds=1.0), replace(LIMITS, n_trials=20, draft=None), study)
    script = Script(shape, seconds=1.0)
    assert played(script, LIMITS, study).draft_share is None


def test_a_thinned_split_keeps_every_stratum_in_its_share() -> None:
    strata = np.array(["often"] * 900 + ["seldom"] * 99 + ["once"])
    split = Split(np.arange(0, 1000, 2), np.arange(1, 1000, 2), "stratified")
    found = thinned(split, strata, 0.1, seed=3)
    assert set(found.train) <= set(split.train)
    kinds, counts = np.unique(strata[found.train], return_counts=True)
    assert dict(zip(kinds.tolist(), counts.tolist(), strict=True)) == {"often": 45, "seldom": 5}
    # Fewer than 10,000 rows judge as they are.
    assert np.array_equal(found.test, split.test)
    assert "once" in strata[found.test]


def test_a_thinned_split_is_the_seeds_and_sorted() -> None:
    split = Split(np.arange(80_000), np.arange(80_000, 120_000), "random")
    first, again, other = (thinned(split, None, 0.125, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.train, again.train)
    assert not np.array_equal(first.train, other.train)
    assert len(first.train) == len(first.test) == 10_000
    assert np.array_equal(first.train, np.sort(first.train))


def test_only_many_rows_are_worth_a_draft() -> None:
    assert draft_share(19_999) is None
    assert draft_share(30_000) == pytest.approx(1 / 3)
    assert draft_share(1_000_000) == 0.125
    assert whole_seconds(2.0, None) == 2.0
    assert 4 < whole_seconds(1.0, 0.125) < 8


@pytest.mark.parametrize(
    ("path", "given", "bins"),
    [
        ("xgboost.XGBClassifier", {}, ("max_bin", 63)),
        ("xgboost.XGBClassifier", {"max_bin": 512}, ("max_bin", 512)),
        ("xgboost.XGBClassifier", {"booster": "gblinear"}, ("max_bin", None)),
        ("xgboost.XGBClassifier", {"tree_method": "exact"}, ("max_bin", None)),
        ("lightgbm.LGBMClassifier", {}, ("max_bin", 63)),
        ("catboost.CatBoostClassifier", {"max_bin": 32}, ("border_count", None)),
        ("sklearn.ensemble.HistGradientBoostingClassifier", {}, ("max_bins", 63)),
        ("sklearn.ensemble.RandomForestClassifier", {}, ("max_bins", None)),
    ],
)
def test_a_draft_has_coarse_histograms_where_the_recipe_says_none(
    path: str, given: dict[str, object], bins: tuple[str, object]
) -> None:
    cls = import_class(path, ["*"], where="", methods=("fit", "predict"))
    name, value = bins
    drafted = family_of(cls, "classification").drafted(given)
    assert drafted.get(name) == value
    assert {key: drafted[key] for key in given} == given


def regressor(path: str) -> Family:
    return family_of(import_class(path, ["*"], where="", methods=("fit", "predict")), "regression")


@pytest.mark.parametrize(
    ("path", "given", "strided"),
    [
        (
            "xgboost.XGBRegressor",
            {"learning_rate": 0.05, "n_estimators": 901, "max_depth": 3},
            {"learning_rate": 0.1, "n_estimators": 450, "max_depth": 3},
        ),
        # A step is no larger than 1, and one round stays one.
        (
            "xgboost.XGBRegressor",
            {"eta": 0.8, "n_estimators": 100},
            {"eta": 1.0, "n_estimators": 80},
        ),
        (
            "xgboost.XGBRegressor",
            {"eta": 0.1, "n_estimators": 1},
            {"eta": 0.2, "n_estimators": 1},
        ),
        ("lightgbm.LGBMRegressor", {"eta": 0.1, "num_trees": 50}, {"eta": 0.2, "num_trees": 25}),
        (
            "catboost.CatBoostRegressor",
            {"learning_rate": 0.1, "iterations": 50},
            {"learning_rate": 0.2, "iterations": 25},
        ),
        (
            "sklearn.ensemble.GradientBoostingRegressor",
            {"learning_rate": 0.1, "n_estimators": 50},
            {"learning_rate": 0.2, "n_estimators": 25},
        ),
    ],
)
def test_half_as_many_rounds_have_steps_twice_as_large(
    path: str, given: dict[str, object], strided: dict[str, object]
) -> None:
    family = regressor(path)
    assert family.boosts(given)
    assert family.strided(given) == strided


@pytest.mark.parametrize(
    ("path", "given"),
    [
        ("xgboost.XGBRegressor", {"learning_rate": 0.1}),
        ("xgboost.XGBRegressor", {"n_estimators": 100}),
        ("xgboost.XGBRegressor", {"learning_rate": 0.1, "eta": 0.1, "n_estimators": 100}),
        ("xgboost.XGBRegressor", {"learning_rate": 0.1, "n_estimators": 100, "booster": "dart"}),
        ("xgboost.XGBRFRegressor", {"learning_rate": 0.1, "n_estimators": 100}),
        ("lightgbm.LGBMRegressor", {"eta": 0.1, "num_trees": 50, "boosting": "rf"}),
        ("sklearn.ensemble.RandomForestRegressor", {"n_estimators": 50}),
    ],
)
def test_what_is_no_boosting_of_known_rounds_and_steps_stays_as_it_is(
    path: str, given: dict[str, object]
) -> None:
    family = regressor(path)
    assert not family.boosts(given)
    assert family.strided(given) == given


def test_a_subclass_with_a_constructor_of_its_own_boosts_as_well() -> None:
    import xgboost

    class Gentle(xgboost.XGBRegressor):
        def __init__(self, *, gentle: bool) -> None:
            super().__init__(learning_rate=0.01 if gentle else 0.3)

    assert family_of(Gentle, "regression").boosts({"learning_rate": 0.1, "n_estimators": 10})


@pytest.mark.parametrize("step", [None, 1.0, 1.5, 0.0])
def test_steps_that_cannot_be_twice_as_large_stay_as_they_are(step: float | None) -> None:
    given = {"learning_rate": step, "n_estimators": 100}
    assert regressor("xgboost.XGBRegressor").strided(given) == given


@pytest.mark.parametrize(
    ("path", "given", "share", "rounds"),
    [
        ("xgboost.XGBRegressor", {"learning_rate": 0.05, "n_estimators": 901}, 0.4, 360),
        ("xgboost.XGBRegressor", {"eta": 0.05, "n_estimators": 2}, 0.1, 1),
        ("lightgbm.LGBMRegressor", {"eta": 0.1, "n_estimators": 50}, 0.5, 25),
        ("catboost.CatBoostRegressor", {"learning_rate": 0.1, "n_estimators": 50}, 0.5, 25),
        # What is not known to be boosting keeps its trees, and what has no number keeps none.
        ("sklearn.ensemble.RandomForestRegressor", {"n_estimators": 50}, 0.5, 50),
        ("xgboost.XGBRegressor", {"learning_rate": 0.1, "n_estimators": None}, 0.5, None),
    ],
)
def test_fewer_rounds_keep_their_steps(
    path: str, given: dict[str, object], share: float, rounds: int | None
) -> None:
    assert regressor(path).shortened(given, share) == {**given, "n_estimators": rounds}


@pytest.mark.parametrize(
    ("draft", "boosts"), [(0.125, True), (0.125, False), (0.25, True), (None, True)]
)
def test_drafts_and_looks_have_fewer_rounds_where_they_have_fewer_rows(
    draft: float | None, boosts: bool
) -> None:
    script = Script(shape, seconds=1.0)
    result = played(script, replace(LIMITS, draft=draft, boosts=boosts))
    taken = boosts and draft == 0.125
    trials = [
        task for task in script.submitted if 0 <= task.split_seed < 1_000 and task.number >= 0
    ]
    looks = [task for task in script.submitted if task.split_seed >= 1_000_000]
    assert {task.rounds for task in trials} == {0.125**0.4 if taken else None}
    for task in looks:
        assert task.rounds == (task.share**0.4 if taken and task.share else None)
    assert any(task.share for task in looks) == (draft == 0.125)
    assert any("in 44% of their rounds" in note for note in result.notes) == taken


@pytest.mark.parametrize(
    ("asked", "same_as"),
    [
        ({"strided": True}, {"n_estimators": 10, "learning_rate": 0.2}),
        ({"rounds": 0.5}, {"n_estimators": 10, "learning_rate": 0.1}),
    ],
)
def test_a_trial_of_fewer_rounds_is_the_fit_of_fewer_with_larger_steps_or_the_same(
    asked: dict[str, Any], same_as: dict[str, float]
) -> None:
    problem = problem_of(CLASSIFIER, rows=2_000)

    def value(task: TrialTask) -> float | None:
        return problem.run(task, lambda step, value: None, lambda: False).value

    whole = TrialTask(0, {"n_estimators": 20, "learning_rate": 0.1}, 3, watched=False)
    fewer = replace(whole, hyperparameters=same_as)
    assert value(replace(whole, **asked)) == value(fewer) != value(whole)


@pytest.mark.parametrize(("draft", "boosts"), [(0.25, True), (0.25, False), (0.125, True)])
def test_drafts_take_larger_steps_where_whole_fits_come_next(
    draft: float,
    boosts: bool,
) -> None:
    script = Script(shape, seconds=1.0)
    result = played(script, replace(LIMITS, draft=draft, boosts=boosts))
    trials = {
        task.strided
        for task in script.submitted
        if 0 <= task.split_seed < 1_000 and task.number >= 0
    }
    others = {
        task.strided for task in script.submitted if task.split_seed >= 1_000_000 or task.number < 0
    }
    taken = boosts and draft == 0.25
    assert trials == {taken}
    assert others == {False}
    assert any("1/2 of their rounds" in note for note in result.notes) == taken


def test_a_real_draft_is_fitted_on_its_share_of_the_train_part() -> None:
    problem = problem_of(CLASSIFIER, rows=2_000)
    task = TrialTask(0, {"n_estimators": 5}, 3, watched=False, draft=0.25)
    outcome = problem.run(task, lambda step, value: None, lambda: False)
    assert outcome.state == "complete"
    assert problem._last is not None
    assert len(problem._last.train.truth) == 376  # of 1,500, in shares of two classes
    whole_fit = problem.run(replace(task, draft=None), lambda step, value: None, lambda: False)
    assert whole_fit.value != outcome.value
    assert len(problem._last.train.truth) == 1_500


def test_a_real_search_by_drafts_ends_with_whole_finalists() -> None:
    limits = SearchLimits(n_trials=300, seconds=4.0, candidates=3, splits=3, draft=0.25)
    space = {"n_estimators": whole(20, 60), "max_depth": whole(2, 4)}
    result = searched(problem_of(CLASSIFIER, rows=20_000), space, limits)
    assert result.draft_share == 0.25
    assert result.finalists[0].scores
    assert result.seconds < 30  # all 300 trials take minutes


@pytest.mark.faults
def test_a_rehearsal_that_was_killed_for_its_time_counts_for_all_of_it() -> None:
    """It says 0 seconds of itself, and would have taken more than it was given."""

    class Late(Script):
        def events(self, *, timeout: float) -> list[TrialReport | TrialOutcome]:
            return [
                TrialOutcome(event.number, "stopped", None, 0.0) if event.number < 0 else event
                for event in super().events(timeout=timeout)
            ]

    limits = replace(LIMITS, n_trials=1_000)
    assert played(Late(shape, seconds=0.0001), limits).draft_share == 0.25


def test_rehearsals_one_after_another_share_their_time() -> None:
    script = Script(shape, seconds=1.0)
    played(script, LIMITS)
    assert script.allowed[:2] == [pytest.approx(0.15)] * 2


def test_ctrl_c_ends_a_rehearsal() -> None:
    script = Script(shape, seconds=1.0)
    search = searching(script, SPACE, metric_of("roc_auc"), LIMITS, interrupted=lambda: True)
    with pytest.raises(DataError, match="interrupted before"):
        search.run()
    assert script.submitted == []
    assert script.halted
