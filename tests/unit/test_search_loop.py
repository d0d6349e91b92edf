"""The search's loop: budget, seeds, pruning, deadlines, failures, and going on after a kill."""

import signal
import time
from collections.abc import Callable
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState
from tests.searching import Script, between, metric_of, searched, searching, whole
from tests.searching import problem_of as real_problem

from lodestar.core.models.watching import CHECKPOINTS
from lodestar.core.tuning.algorithms import pruner_of, sampler_of
from lodestar.core.tuning.result import SearchLimits, TuningResult
from lodestar.core.tuning.search import NoTrialInTimeError, SearchProgress
from lodestar.errors import DataError
from lodestar.interface.execution import TrialExecutor, TrialTask
from lodestar.interface.progress import Silent
from lodestar.pipelines.tuning import _interruptible as interruptible
from lodestar.settings.recipe import HyperparameterRange

LIMITS = SearchLimits(n_trials=40, seconds=60.0, candidates=3, splits=3)
DEFAULT = 0.25
SPACE = {
    "x": HyperparameterRange(type="float", low=-1.0, high=1.0, default=DEFAULT),
    "depth": whole(1, 8),
}


def hill(task: TrialTask) -> float:
    """Best at x = 0.3; every split shifts it a little."""
    shift = (task.split_seed * 7919 % 101 - 50) / 5000
    return float(0.9 - (task.hyperparameters["x"] - 0.3) ** 2 + shift)


def played(
    script: Script, limits: SearchLimits = LIMITS, *, study: optuna.Study | None = None
) -> TuningResult:
    return searching(script, SPACE, metric_of("roc_auc"), limits, study=study).run()


def study_of(limits: SearchLimits = LIMITS) -> optuna.Study:
    return optuna.create_study(direction="maximize", pruner=pruner_of(limits))


def test_every_slot_is_tried_once_on_a_split_of_its_own() -> None:
    script = Script(hill)
    result = played(script)
    assert [record.number for record in result.history] == list(range(40))
    explored = script.submitted[:40]
    assert [task.split_seed for task in explored] == list(range(40))
    assert result.asked == 40


@pytest.mark.parametrize("sampler", ["TPESampler", "RandomSampler", "QMCSampler"])
def test_the_same_seed_searches_the_same_and_another_one_does_not(sampler: str) -> None:
    limits = replace(LIMITS, sampler=sampler, n_trials=15)
    first, second = (played(Script(hill), limits) for _ in range(2))
    assert [item.params for item in first.history] == [item.params for item in second.history]
    assert first.best_params == second.best_params
    other = played(Script(hill), replace(limits, seed=7))
    assert [item.params for item in other.history] != [item.params for item in first.history]


@pytest.mark.parametrize("sampler", ["TPESampler", "RandomSampler", "QMCSampler"])
def test_no_sampler_suggests_the_same_twice(sampler: str) -> None:
    space = {
        "x": between(0.0, 1.0),
        "c": HyperparameterRange(type="categorical", choices=("a", "b")),
    }
    limits = replace(LIMITS, sampler=sampler)
    result = searching(Script(hill), space, metric_of("roc_auc"), limits).run()
    assert len({record.params["x"] for record in result.history}) == 40
    assert {record.params["c"] for record in result.history} == {"a", "b"}


class KilledError(Exception):
    """Stands for the end of the process: nothing of the search runs after it."""


def killed(script: Script, study: optuna.Study, *, after: int, limits: SearchLimits) -> None:
    """Run the search until so many trials were submitted; the last one stays RUNNING for ever."""
    submit = script.submit
    count = 0

    def dying(task: TrialTask, *, seconds: float | None) -> None:
        nonlocal count
        count += 1
        if count > after:
            raise KilledError
        submit(task, seconds=seconds)

    mortal: TrialExecutor = Dying(script, dying)
    with pytest.raises(KilledError):
        searching(mortal, SPACE, metric_of("roc_auc"), limits, study=study).run()


class Dying:
    """An executor whose process ends at one of its submissions."""

    def __init__(self, script: Script, submit: Callable[..., None]) -> None:
        self.capacity = script.capacity
        self.submit = submit
        self.events, self.answer = script.events, script.answer
        self.halt, self.close = script.halt, script.close


@pytest.mark.parametrize(
    ("pruner", "after"),
    [
        *(("MedianPruner", after) for after in (0, 1, 9, 23, 39)),
        *((name, 23) for name in ("LearningCurvePruner", "WilcoxonPruner")),
    ],
)
def test_a_killed_search_goes_on_as_if_nothing_had_happened(pruner: str, after: int) -> None:
    limits = replace(LIMITS, pruner=pruner)
    undisturbed = played(Script(hill, curve=curve), limits, study=study_of(limits))
    study = study_of(limits)
    killed(Script(hill, curve=curve), study, after=after, limits=limits)
    assert any(trial.state == TrialState.RUNNING for trial in study.get_trials(deepcopy=False))
    resumed = played(Script(hill, curve=curve), limits, study=study)
    assert [record.number for record in resumed.history] == list(range(40))
    assert resumed.best_params == undisturbed.best_params
    assert resumed.best_score == undisturbed.best_score
    assert [item.params for item in resumed.history] == [
        item.params for item in undisturbed.history
    ]
    assert [item.curve for item in resumed.history] == [item.curve for item in undisturbed.history]
    assert (f"resumed after {after} of 40 trials" in resumed.notes) == bool(after)
    assert not any(trial.state == TrialState.RUNNING for trial in study.get_trials())


def test_the_recipes_defaults_are_tried_first_and_once() -> None:
    script = Script(hill)
    result = played(script)
    tried = [record.params["x"] for record in result.history]
    assert tried[0] == DEFAULT
    assert tried.count(DEFAULT) == 1


def test_defaults_that_a_killed_search_was_about_to_try_are_tried_once() -> None:
    study = study_of()
    study.enqueue_trial({"x": DEFAULT})
    result = played(Script(hill), study=study)
    assert [record.params["x"] for record in result.history].count(DEFAULT) == 1
    assert not study.get_trials(states=(TrialState.WAITING,))


def test_a_failure_that_was_not_yet_acknowledged_is_counted_once() -> None:
    study = study_of()
    trial = study.ask({"x": optuna.distributions.FloatDistribution(-1, 1)})
    trial.set_user_attr("slot", 0)
    trial.set_user_attr("error", "ValueError: no")  # killed before the study was told
    result = played(Script(hill), replace(LIMITS, n_trials=12), study=study)
    assert [record.number for record in result.history] == list(range(12))
    assert result.history[0].state == "failed"


def test_a_resumed_search_may_be_given_more_trials() -> None:
    study = study_of()
    played(Script(hill), replace(LIMITS, n_trials=12), study=study)
    more = Script(hill)
    result = played(more, replace(LIMITS, n_trials=20), study=study)
    assert len(result.history) == 20
    assert [task.number for task in more.submitted[:8]] == list(range(12, 20))


def curve(task: TrialTask) -> dict[int, float]:
    """Approaches the final value from below, so that bad trials are seen to be bad."""
    return {step: hill(task) - (100 - step) / 1000 for step in range(10, 100, 10)}


@pytest.mark.parametrize(
    "pruner", ["LearningCurvePruner", "MedianPruner", "HyperbandPruner", "WilcoxonPruner"]
)
def test_trials_that_fall_behind_are_pruned(pruner: str) -> None:
    result = played(Script(hill, curve=curve), replace(LIMITS, pruner=pruner))
    assert result.count("pruned") > 0
    assert result.count("complete") + result.count("pruned") == 40
    pruned = [record for record in result.history if record.state == "pruned"]
    assert all(record.curve for record in pruned)
    chosen = result.finalists[0].number
    assert chosen not in {record.number for record in pruned}


def test_nothing_is_pruned_when_pruning_is_off() -> None:
    script = Script(hill, curve=curve)
    result = played(script, replace(LIMITS, pruning=False))
    assert result.count("complete") == 40
    assert not any(task.watched for task in script.submitted)


@pytest.mark.parametrize("startup", [0, 5])
def test_trials_of_milliseconds_are_not_pruned_and_the_note_says_why(startup: int) -> None:
    script = Script(hill, seconds=0.004, curve=curve)
    result = played(script, replace(LIMITS, startup_trials=startup))
    assert [task.watched for task in script.submitted].count(True) <= max(startup, 1) + 3
    assert any("pruning them would save nothing" in note for note in result.notes)


def test_the_best_so_far_is_a_whole_trials_value() -> None:
    seen: list[SearchProgress] = []
    flattering = Script(hill, curve=lambda task: {10: 5.0, 20: -1.0})
    searching(flattering, SPACE, metric_of("roc_auc"), LIMITS, listener=seen.append).run()
    assert seen[-1].best is not None
    assert all(item.best is None or item.best < 1 for item in seen)
    assert [item for item in seen if item.stage == "trials"][-1].done == 40


def test_when_every_trial_fails_the_first_cause_is_said_once() -> None:
    with pytest.raises(DataError, match="every one of the first 5 trials failed") as caught:
        played(Script(lambda task: f"ValueError: no {task.number}"))
    assert "ValueError: no 0" in caught.value.what
    assert "no 1" not in caught.value.what


def test_a_failing_trial_fails_alone() -> None:
    result = played(Script(lambda task: "MemoryError: big" if task.number % 3 == 0 else hill(task)))
    assert result.count("failed") == 14
    assert result.count("complete") == 26
    assert result.history[0].value is None


def test_an_objective_that_never_moves_stops_the_search() -> None:
    script = Script(lambda task: 0.5)
    with pytest.raises(DataError, match=r"roc_auc is 0.5 in each of the first 10 trials"):
        played(script)
    assert len(script.submitted) == 10


def test_a_perfect_score_is_no_error() -> None:
    result = played(Script(lambda task: 1.0))
    assert result.best_score == 1.0
    assert any("nothing is left to search for" in note for note in result.notes)


def test_a_timeout_too_short_for_one_trial_says_so() -> None:
    script = Script(lambda task: None, seconds=0.3, sleeps=True)
    with pytest.raises(NoTrialInTimeError, match=r"no trial ended within 0.2 s") as caught:
        played(script, replace(LIMITS, seconds=0.2))
    assert "hyperparameter_tuning.timeout" in str(caught.value)


def test_a_trial_that_the_deadline_cut_off_is_tried_again_on_resume() -> None:
    study = study_of()
    script = Script(
        lambda task: None if task.number == 11 else hill(task), seconds=0.1, sleeps=True
    )
    first = played(script, replace(LIMITS, seconds=1.5), study=study)
    assert 11 not in {record.number for record in first.history}
    assert any("the time was up after" in note for note in first.notes)
    second = played(Script(hill), replace(LIMITS, n_trials=14), study=study)
    assert [record.number for record in second.history] == list(range(14))


@pytest.mark.parametrize(
    ("each", "seconds", "capacity"), [(0.01, 1.5, 1), (0.1, 1.5, 1), (0.1, 1.5, 2), (0.25, 1.5, 1)]
)
def test_the_deadline_leaves_time_for_a_common_split(
    each: float, seconds: float, capacity: int
) -> None:
    limits = replace(LIMITS, n_trials=1000, seconds=seconds, candidates=8, splits=10)
    script = Script(hill, seconds=each, sleeps=True, capacity=capacity)
    began = time.monotonic()
    result = played(script, limits)
    assert time.monotonic() - began < seconds + each + 6.0  # all 1,000 trials take ten and more
    assert len(result.finalists[0].scores) >= 1
    # Where the time is short, the better half goes on, and one of them wins.
    assert len(result.finalists[0].scores) == max(len(item.scores) for item in result.finalists)
    if len(result.finalists) < 8:
        assert any("is enough to compare" in note for note in result.notes)
    finals = [task for task in script.submitted if task.split_seed >= 1_000_000]
    assert len(finals) * each <= seconds * 0.75


def test_an_interrupted_search_finishes_with_the_best_so_far() -> None:
    script = Script(hill)
    interrupted = False

    def listen(progress: SearchProgress) -> None:
        nonlocal interrupted
        interrupted = progress.done >= 12

    search = searching(
        script,
        SPACE,
        metric_of("roc_auc"),
        LIMITS,
        interrupted=lambda: interrupted,
        listener=listen,
    )
    result = search.run()
    assert len(result.history) == 12
    assert result.best_score == max(record.value or 0 for record in result.history)
    assert result.finalists[0].scores == ()
    assert any("interrupted after 12 of 40 trials" in note for note in result.notes)
    assert any("which flatters it" in note for note in result.notes)


def test_interrupted_before_anything_ended_there_is_nothing_to_finish_with() -> None:
    search = searching(Script(hill), SPACE, metric_of("roc_auc"), LIMITS, interrupted=lambda: True)
    with pytest.raises(DataError, match="interrupted before a single trial had ended"):
        search.run()


def test_samplers_of_two_slots_draw_differently() -> None:
    space: dict[str, optuna.distributions.BaseDistribution] = {
        "x": optuna.distributions.FloatDistribution(0, 1)
    }
    drawn = []
    for slot in range(4):
        study = optuna.create_study(sampler=sampler_of(LIMITS, slot))
        drawn.append(study.ask(space).params["x"])
    assert len(set(drawn)) == 4


@pytest.mark.parametrize(
    ("pruner", "path", "rounds"),
    [
        ("LearningCurvePruner", "xgboost.XGBClassifier", "n_estimators"),
        ("MedianPruner", "xgboost.XGBClassifier", "n_estimators"),
        ("HyperbandPruner", "lightgbm.LGBMClassifier", "n_estimators"),
        ("WilcoxonPruner", "sklearn.ensemble.GradientBoostingClassifier", "n_estimators"),
    ],
)
def test_a_real_search_prunes(pruner: str, path: str, rounds: str) -> None:
    problem = real_problem(path, metric="log_loss", rows=800)
    space = {
        rounds: 60,
        "learning_rate": between(0.001, 0.5, log=True),
        "max_depth": whole(2, 6),
    }
    limits = SearchLimits(n_trials=20, seconds=60, candidates=2, splits=2, pruner=pruner)
    study = optuna.create_study(direction="minimize", pruner=pruner_of(limits))
    study.set_user_attr("trials_are_short", False)  # whatever this machine's speed
    result = searched(problem, space, limits, study=study)
    assert result.count("pruned") > 0
    assert result.count("complete") > 0
    assert result.count("failed") == 0
    for record in result.history:
        if record.state == "pruned":
            assert 0 < len(record.curve) <= len(CHECKPOINTS)


def test_ctrl_c_twice_says_how_to_go_on() -> None:
    with interruptible(Silent()) as interrupted:
        signal.raise_signal(signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt, match="train --resume goes on"):
            signal.raise_signal(signal.SIGINT)
