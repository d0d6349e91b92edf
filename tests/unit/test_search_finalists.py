"""Finalists: judged on common splits, dropped by Wilcoxon's test, chosen by their paired mean."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray
from tests.searching import Script, between, metric_of, searching

from lodestar.core.metrics import Metric
from lodestar.core.tuning.common_splits import common_split_seed
from lodestar.core.tuning.finalists import Finals
from lodestar.core.tuning.ground import SearchGround
from lodestar.core.tuning.result import Finalist, SearchLimits, TrialRecord
from lodestar.errors import DataError
from lodestar.interface.execution import TrialOutcome, TrialReport, TrialTask

MAXIMIZED, MINIMIZED = metric_of("roc_auc"), metric_of("rmse", "regression")


def record(number: int, searched: float) -> TrialRecord:
    curve = ((10, searched - 0.3), (20, searched - 0.2), (40, searched - 0.1))
    return TrialRecord(number, "complete", searched, {"who": number}, curve, 0.1)


def finals(
    script: Script,
    searched: Mapping[int, float],
    *,
    metric: Metric = MAXIMIZED,
    splits: int = 10,
    study: optuna.Study | None = None,
    seconds: Sequence[float] = (),
    windows: int | None = None,
    look: float | None = None,
    correction: float | None = None,
) -> tuple[Finals, tuple[Finalist, ...]]:
    left = iter(seconds)
    made = Finals(
        ground=SearchGround(
            study=study or optuna.create_study(direction=metric.direction),
            metric=metric,
            limits=SearchLimits(n_trials=1, seconds=1.0),
            executor=script,
            hyperparameters=lambda params, workers: params,
            interrupted=lambda: False,
        ),
        trials=[record(number, value) for number, value in searched.items()],
        splits=splits,
        validation_size=0.25,
        seconds_left=lambda: next(left, 100.0),
        tell=lambda done, total: None,
        windows=windows,
        look=look,
        correction=correction,
    )
    return made, made.run()


def position(task: TrialTask) -> int:
    return task.split_seed - common_split_seed(0)


def scores(table: Mapping[int, Sequence[float] | NDArray[np.float64]]) -> Script:
    """Each finalist's score on each common split."""
    return Script(lambda task: table[task.hyperparameters["who"]][position(task)])


def test_the_winner_is_the_best_on_the_common_splits_not_the_best_that_was_searched() -> None:
    script = scores({1: [0.80, 0.90, 0.70], 2: [0.81, 0.91, 0.71], 3: [0.79, 0.85, 0.60]})
    _, found = finals(script, {1: 0.99, 2: 0.95, 3: 0.97}, splits=3)
    assert [item.number for item in found] == [2, 1, 3]
    assert found[0].mean == pytest.approx(0.81)
    assert found[0].scores == (0.81, 0.91, 0.71)
    assert found[0].searched == 0.95


def test_less_is_better_where_the_metric_says_so() -> None:
    script = scores({1: [3.0, 4.0], 2: [2.0, 5.0], 3: [9.0, 9.0]})
    _, found = finals(script, {1: 1.0, 2: 1.0, 3: 1.0}, metric=MINIMIZED, splits=2)
    assert [item.number for item in found] == [1, 2, 3]


def test_all_finalists_share_their_splits_which_no_trial_was_searched_on() -> None:
    script = scores({1: [0.5] * 4, 2: [0.6] * 4})
    finals(script, {1: 0.9, 2: 0.8}, splits=4)
    by_finalist = {
        who: [task.split_seed for task in script.submitted if task.number == who] for who in (1, 2)
    }
    assert by_finalist[1] == by_finalist[2] == [1_000_000 + split for split in range(4)]
    assert not any(task.watched for task in script.submitted)


def test_the_standard_error_is_corrected_for_the_overlap_of_the_splits() -> None:
    values = [0.7, 0.8, 0.9, 0.8]
    _, (only,) = finals(scores({1: values}), {1: 0.9}, splits=4)
    # By hand (Nadeau & Bengio 2003): mean .8, variance (.01 + 0 + .01 + 0) / 3 = 1 / 150,
    # times 1/4 + 1/3 = 7/12.
    assert only.mean == pytest.approx(0.8)
    assert only.error == pytest.approx(math.sqrt(7 / 12 / 150))


def test_one_split_has_no_standard_error() -> None:
    _, (only,) = finals(scores({1: [0.7]}), {1: 0.9}, splits=1)
    assert math.isnan(only.error)
    assert only.mean == 0.7


def test_a_finalist_that_is_worse_on_every_split_is_dropped_once_that_is_significant() -> None:
    random = np.random.default_rng(3)
    splits = random.normal(0.8, 0.1, size=10)
    near = splits + np.where(np.arange(10) % 2, 0.01, -0.0101)
    script = scores({1: splits, 2: splits - 0.02, 3: near})
    _, found = finals(script, {1: 0.9, 2: 0.95, 3: 0.9})
    assert [item.number for item in found] == [1, 3, 2]
    dropped = found[2]
    assert dropped.dropped
    assert len(dropped.scores) == 5  # with fewer pairs the test cannot tell
    assert len(found[0].scores) == len(found[1].scores) == 10
    assert not found[1].dropped


def test_equal_finalists_are_all_judged_to_the_end() -> None:
    script = scores({1: [0.8] * 10, 2: [0.8] * 10})
    _, found = finals(script, {1: 0.9, 2: 0.95})
    assert [len(item.scores) for item in found] == [10, 10]
    assert len(script.submitted) == 20


def test_when_one_is_left_the_comparison_ends() -> None:
    steps = np.linspace(0.7, 0.9, 10)
    script = scores({1: steps, 2: steps - 0.1})
    _, found = finals(script, {1: 0.9, 2: 0.95})
    assert len(script.submitted) == 10
    assert found[0].number == 1


def test_a_finalist_that_was_alone_from_the_start_is_judged_on_every_split() -> None:
    script = scores({4: np.linspace(0.7, 0.9, 10)})
    _, (only,) = finals(script, {4: 0.99})
    assert len(only.scores) == 10


def test_a_finalist_that_fails_on_a_common_split_is_not_chosen() -> None:
    def play(task: TrialTask) -> float | str:
        if task.number == 1 and position(task) == 1:
            return "ValueError: not here"
        return {1: 0.9, 2: 0.7, 3: 0.6}[task.number] + position(task) / 100

    made, found = finals(Script(play), {1: 0.9, 2: 0.8, 3: 0.8}, splits=3)
    assert [item.number for item in found] == [2, 3, 1]
    assert made.notes == ["finalist 1 failed: ValueError: not here"]


def test_when_all_of_them_fail_the_first_cause_is_said() -> None:
    with pytest.raises(DataError, match="every finalist failed; the first: ValueError: no 1"):
        finals(Script(lambda task: f"ValueError: no {task.number}"), {1: 0.9, 2: 0.8})


def test_a_split_that_the_deadline_cut_short_counts_for_nobody() -> None:
    def play(task: TrialTask) -> float | None:
        cut_off = task.number == 2 and position(task) == 2
        return None if cut_off else 0.5 + task.number / 10 + position(task) / 100

    made, found = finals(Script(play), {1: 0.9, 2: 0.8}, splits=6)
    assert [len(item.scores) for item in found] == [2, 2]
    assert found[0].number == 2
    assert made.notes == ["the time was up: the finalists were compared on 2 common splits"]


def test_without_a_common_split_the_score_is_the_searched_one_and_the_note_says_that() -> None:
    made, found = finals(scores({}), {1: 0.9, 2: 0.8}, seconds=[0.0])
    assert found[0].number == 1
    assert found[0].mean == found[0].searched == 0.9
    assert math.isnan(found[0].error)
    assert len(made.notes) == 1
    assert "which flatters it" in made.notes[0]


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("after", [3, 8, 17, 22])
def test_a_comparison_that_was_killed_goes_on_where_it_was(after: int) -> None:
    random = np.random.default_rng(5)
    base = random.normal(0.8, 0.05, size=10)
    table = {
        who: base - worse + random.normal(0, 0.004, size=10)
        for who, worse in {1: 0.0, 2: 0.002, 3: 0.03, 4: 0.01}.items()
    }
    searched = dict.fromkeys(table, 0.9)
    expected = finals(scores(table), searched)[1]
    study = optuna.create_study(direction="maximize")
    first = scores(table)

    def dying(task: TrialTask) -> float:
        if len(first.submitted) > after:
            raise KilledError
        return float(table[task.number][position(task)])

    first.play = dying
    with pytest.raises(KilledError):
        finals(first, searched, study=study)
    second = scores(table)
    assert finals(second, searched, study=study)[1] == expected
    total = sum(len(item.scores) for item in expected)
    # Only the split that was being judged is judged again.
    assert total - after <= len(second.submitted) <= total - after + 4


@pytest.mark.parametrize(("metric", "sign"), [("roc_auc", 1.0), ("log_loss", -1.0)])
def test_optimism_is_positive_where_the_naive_best_was_flattered(metric: str, sign: float) -> None:
    def play(task: TrialTask) -> float:
        lucky = task.split_seed == 7  # the best trial owes its score to its split
        return float(0.5 + sign * (0.3 if lucky else 0.0) + task.hyperparameters["x"] / 100)

    limits = SearchLimits(n_trials=12, seconds=60, candidates=3, splits=4)
    space: dict[str, Any] = {"x": between(0.0, 1.0)}
    result = searching(Script(play), space, metric_of(metric), limits).run()
    naive = next(item for item in result.finalists if item.number == 7)
    assert result.optimism == pytest.approx(0.3, abs=1e-9)
    assert result.optimism == pytest.approx(sign * (naive.searched - naive.mean))
    assert result.best_score == result.finalists[0].mean


def test_finalists_are_judged_by_the_share_that_is_given() -> None:
    script = scores({1: [0.5] * 2, 2: [0.6] * 2})
    finals(script, {1: 0.9, 2: 0.8}, splits=2)
    assert {task.judges for task in script.submitted} == {0.25}


def test_those_that_are_left_where_time_is_short_fill_the_workers() -> None:
    script = scores({who: [who / 10] * 10 for who in range(1, 6)})
    script.capacity, script.seconds = 2, 5.0
    # Two workers have 24 s: 4.8 fits of 5 s for four splits more. Three would keep one of them waiting.
    _, found = finals(script, dict.fromkeys(range(1, 6), 0.9), seconds=[12.0] * 1_000)
    by_split = [sum(position(task) == split for task in script.submitted) for split in range(2)]
    assert by_split == [5, 2]
    assert [one.number for one in found[:2]] == [5, 4]


def test_by_time_each_common_split_is_a_window() -> None:
    script = scores({1: [0.5] * 2, 2: [0.6] * 2})
    finals(script, {1: 0.9, 2: 0.8}, splits=2, windows=3)
    assert {(task.judges, task.window) for task in script.submitted} == {
        (None, (0, 3)),
        (None, (1, 3)),
    }


class Corrected(Script):
    """Takes 0.02 off on the first split, 0.04 on the second; 0.8 of that would be best."""

    def events(self, *, timeout: float) -> list[TrialReport | TrialOutcome]:
        split = position(self._queue[0][0])
        off = 0.02 * (split + 1)
        return [
            replace(event, value=event.value - off, offset=off, slope=0.4)
            if isinstance(event, TrialOutcome) and event.value is not None
            else event
            for event in super().events(timeout=timeout)
        ]


def test_scores_are_as_they_are_and_corrected_by_as_much_as_is_best_for_finalists() -> None:
    def play(task: TrialTask) -> float:
        return 0.5 + task.number / 10

    study = optuna.create_study(direction="maximize")
    made, found = finals(Corrected(play), {1: 0.9, 2: 0.8}, splits=2, correction=0.5, study=study)
    assert found[0].scores == pytest.approx([0.7, 0.7])
    # Half was taken off; 0.4 of it would have been best.
    expected = [0.7 - 0.8 * 0.02, 0.7 - 0.8 * 0.04]
    assert made.less_offsets(found[0].scores) == pytest.approx(expected)
    again, _ = finals(Script(play), {1: 0.9, 2: 0.8}, splits=2, correction=0.5, study=study)
    assert again.less_offsets(found[0].scores) == pytest.approx(expected)


def test_the_curve_of_the_first_look_is_kept() -> None:
    def curve(task: TrialTask) -> dict[int, float]:
        return {10: 0.1 + position(task), 20: 0.2 + position(task)}

    script = Script(lambda task: 0.5 + position(task), curve=curve)
    study = optuna.create_study(direction="maximize")
    made, _ = finals(script, {1: 0.9, 2: 0.8}, splits=2, look=0.3, study=study)
    assert made.curves == {one: {10: 0.1, 20: 0.2, 100: 0.5} for one in (1, 2)}
    again, _ = finals(script, {1: 0.9, 2: 0.8}, splits=2, look=0.3, study=study)
    assert again.curves == made.curves
