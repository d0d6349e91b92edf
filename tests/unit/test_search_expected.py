"""The end of a search: looks where no whole fit would end, and the score to expect of the model."""

import io
import time
from dataclasses import replace

import numpy as np
import optuna
import pytest
from rich.console import Console
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

from lodestar.cli.drawing import print_tuning, tuning_json
from lodestar.core.tuning.budget import TimeBudget
from lodestar.core.tuning.result import SearchLimits, TrialRecord, TuningResult, described
from lodestar.core.tuning.row_gain import POWER, SMALLER, row_gain
from lodestar.core.tuning.search import SearchProgress
from lodestar.interface.execution import TrialTask

SPACE = {"x": between(0.0, 1.0)}
WHOLE = SearchLimits(
    n_trials=12, seconds=1e6, candidates=4, splits=5, validation_size=0.1, gains=True
)
# Drafts on an eighth of three quarters: a look has up to half of them.
DRAFTS = replace(WHOLE, n_trials=40, seconds=100.0, draft=0.125, finalist_rows=1.2)
# Watched, and never pruned.
NOT_PRUNED = replace(DRAFTS, splits=1, pruner="MedianPruner", startup_trials=100)
COMMON = 1_000_000


def by_rows(task: TrialTask) -> float:
    """A score that nears x / 2 with the rows, as far as a power of them goes."""
    return float(task.hyperparameters["x"]) / 2 - 0.1 * float(fitted(task) ** -POWER - 1)


def fitted(task: TrialTask) -> float:
    """The share of all rows: a quarter judges trials and looks."""
    return (1 - (task.judges or 0.25)) * (task.share or task.draft or 1.0)


def played(script: Script, limits: SearchLimits, study: optuna.Study | None = None) -> TuningResult:
    return searching(script, SPACE, metric_of("roc_auc"), limits, study=study).run()


def common(script: Script) -> list[TrialTask]:
    return [task for task in script.submitted if task.split_seed >= COMMON]


def test_the_gain_is_that_of_a_power_of_the_rows() -> None:
    def score(share: float) -> float:
        return 0.9 - 0.05 * float(share**-POWER)

    for smaller, larger in ((0.3, 0.9), (0.1, 0.3), (0.04, 0.125)):
        ahead = score(larger) - score(smaller)
        assert score(larger) + row_gain(smaller, larger, ahead) == pytest.approx(score(1.0))
    assert row_gain(0.3, 1.0, 0.2) == pytest.approx(0)


def test_what_is_reported_is_what_the_model_of_all_rows_will_score() -> None:
    script = Script(by_rows)
    result = played(script, WHOLE)
    winner = result.finalists[0]
    assert winner.mean == pytest.approx(result.best_params["x"] / 2 - 0.1 * (0.9**-POWER - 1))
    assert result.expected is not None
    assert result.expected.mean == winner.mean
    assert result.expected.rows == 0.9
    # The script is the power law: so the score of all rows is hit.
    assert result.best_score == pytest.approx(result.best_params["x"] / 2)
    smaller = [task for task in common(script) if task.share is not None]
    assert {task.share for task in smaller} == {SMALLER}
    assert [task.split_seed - COMMON for task in smaller] == [0, 1, 2]
    assert {task.hyperparameters["x"] for task in smaller} == {result.best_params["x"]}
    assert not any(task.coarse for task in smaller)
    parts = described(result)["best_score_parts"]
    assert parts["mean"] - parts["offset"] + parts["gain"] == pytest.approx(result.best_score)


def test_without_gains_it_is_the_mean_on_the_common_splits() -> None:
    script = Script(by_rows)
    result = played(script, replace(WHOLE, gains=False))
    assert result.best_score == result.finalists[0].mean
    assert {task.share for task in common(script)} == {None}


def test_a_smaller_fit_that_fails_costs_the_gain_and_nothing_else() -> None:
    script = Script(lambda task: "too few rows" if task.share else by_rows(task))
    result = played(script, WHOLE)
    assert result.best_score == result.finalists[0].mean
    assert result.expected is not None
    assert result.expected.gain is None
    assert any(note.endswith("is not known: too few rows") for note in result.notes)


def test_interrupted_nothing_more_is_fitted() -> None:
    script, stop = Script(by_rows), []

    def listen(progress: SearchProgress) -> None:
        if progress.stage == "finalists" and progress.done == 2:
            stop.append(True)

    search = searching(
        script,
        SPACE,
        metric_of("roc_auc"),
        WHOLE,
        interrupted=lambda: bool(stop),
        listener=listen,
    )
    result = search.run()
    assert result.best_score == result.finalists[0].mean
    assert not [task for task in common(script) if task.share]


def test_where_no_whole_fit_ends_the_best_drafts_are_looked_at_on_more_rows() -> None:
    script = Script(by_rows, seconds=12.0)  # a whole fit takes some 80
    result = played(script, DRAFTS)
    looked = [task for task in common(script) if task.number >= 0]
    (share,) = {task.share or 0.0 for task in looked}
    assert 0.125 < share < 0.5
    assert all(task.coarse for task in looked)
    assert {task.judges for task in looked} == {0.25}
    assert result.draft_share == 0.125
    assert result.finalist_share == described(result)["finalist_share"] == share
    assert result.expected is not None
    assert result.expected.rows == pytest.approx(0.75 * share)
    assert result.best_score == pytest.approx(result.best_params["x"] / 2)
    assert any("what all rows will bring is estimated" in note for note in result.notes)


def test_where_not_even_a_look_ends_a_smaller_draft_says_what_all_rows_bring() -> None:
    script = Script(lambda task: None if task.split_seed >= COMMON else by_rows(task), seconds=40.0)
    result = played(script, DRAFTS)
    assert result.finalists[0].scores == ()
    smaller = script.submitted[-1]
    assert smaller.draft == pytest.approx(0.125 / 3)
    assert smaller.split_seed == result.finalists[0].number
    assert result.expected is not None
    assert result.expected.rows == pytest.approx(0.75 * 0.125)
    assert result.best_score == pytest.approx(result.best_params["x"] / 2)


def test_of_the_best_trial_alone_nothing_is_known_but_its_score() -> None:
    script = Script(lambda task: None if task.split_seed >= COMMON else by_rows(task))
    result = played(script, WHOLE)
    assert result.finalists[0].scores == ()
    assert result.best_score == result.finalists[0].searched
    assert not [task for task in script.submitted if task.share or task.draft]


def test_where_a_whole_fit_ends_it_is_one_of_those_that_looked_best() -> None:
    def turned(task: TrialTask) -> float:
        """Drafts rank the other way round than looks do."""
        return by_rows(task) if task.split_seed >= COMMON else -by_rows(task)

    script = Script(turned, seconds=4.0)
    result = played(script, DRAFTS)
    assert result.finalist_share is None
    whole = [task for task in common(script) if task.share is None]
    looked = [task for task in common(script) if task.coarse and task.number >= 0]
    assert 0 < len({task.number for task in whole}) <= len({task.number for task in looked})
    best = max(task.hyperparameters["x"] for task in looked)
    assert whole[0].hyperparameters["x"] == best


def test_killed_between_looks_and_whole_fits_a_search_looks_no_more() -> None:
    study = optuna.create_study(direction="maximize")
    first = Script(by_rows, seconds=12.0)
    before = played(first, DRAFTS, study)
    again = Script(by_rows, seconds=12.0)
    after = played(again, DRAFTS, study)
    assert not [task for task in common(again) if task.number >= 0]
    assert after.best_params == before.best_params
    assert after.best_score == before.best_score


def by_rounds(task: TrialTask) -> dict[int, float]:
    """A score that comes to its end evenly, from 0.1 below it."""
    return {step: by_rows(task) - 0.1 * (1 - step / 100) for step in (10, 20, 40, 80)}


def cut_off_after(step: int, script: Script) -> None:
    """No look and no smaller fit comes further than that."""
    whole_curve, whole_play = script.curve, script.play
    script.curve = lambda task: {
        at: value
        for at, value in whole_curve(task).items()
        if task.split_seed < COMMON or at <= step
    }
    script.play = lambda task: None if task.split_seed >= COMMON else whole_play(task)


@pytest.mark.parametrize("boosts", [False, True])
def test_a_look_that_is_cut_off_goes_on_as_its_draft_went_on(boosts: bool) -> None:
    script = Script(by_rows, seconds=20.0, curve=by_rounds)
    cut_off_after(40, script)
    result = played(script, replace(NOT_PRUNED, boosts=boosts))
    looked = [task for task in common(script) if task.number >= 0]
    assert all(task.watched for task in looked)
    winner = result.finalists[0]
    rows, x = 0.75 * (result.finalist_share or 0), result.best_params["x"]
    # A look of fewer rounds gains less at their end than its draft did.
    less = 0.1 * (1 - 40 / 100) * (1 - 0.85) if boosts else 0.0
    assert winner.scores == pytest.approx([x / 2 - 0.1 * (rows**-POWER - 1) - less])
    assert result.expected is not None
    assert result.expected.gain is not None
    assert result.best_score == pytest.approx(winner.mean + result.expected.gain)
    assert any("cut off after 40% of its rounds" in note for note in result.notes)


def test_a_smaller_fit_that_is_cut_off_is_compared_where_both_came_to() -> None:
    whole_looks = Script(by_rows, seconds=20.0, curve=by_rounds)
    expected = played(whole_looks, NOT_PRUNED)
    script = Script(by_rows, seconds=20.0, curve=by_rounds)
    script.play = lambda task: (
        None if task.number < 0 and task.split_seed >= COMMON else by_rows(task)
    )
    script.curve = lambda task: {
        step: value for step, value in by_rounds(task).items() if task.number >= 0 or step <= 20
    }
    result = played(script, NOT_PRUNED)
    assert result.best_params == expected.best_params
    assert result.best_score == pytest.approx(expected.best_score)


def test_looks_are_ranked_by_what_all_rows_will_bring() -> None:
    """The one that is worse with a share of the rows has further to go, and is better with all."""

    def crossing(task: TrialTask) -> float:
        x = float(task.hyperparameters["x"])
        return 0.5 + 0.05 * x - 0.1 * x * float(fitted(task) ** -POWER - 1)

    script = Script(crossing, seconds=18.0, capacity=2)
    result = played(script, replace(DRAFTS, splits=1))
    first, second = result.finalists[:2]
    assert first.scores < second.scores
    assert first.params["x"] > second.params["x"]
    assert result.best_params == first.params
    assert result.best_score == pytest.approx(0.5 + 0.05 * first.params["x"])
    assert result.best_score > 0.5 + 0.05 * second.params["x"]


def told(result: TuningResult) -> str:
    file = io.StringIO()
    print_tuning(Console(file=file, width=300, highlight=False), result)
    return file.getvalue()


def test_the_terminal_says_what_the_score_comes_from() -> None:
    whole_fits = played(Script(by_rows), WHOLE)
    assert f"{whole_fits.best_score:.4f} ± " in told(whole_fits)
    assert " expected, from 5 common splits; the best single trial" in told(whole_fits)
    looks = played(Script(by_rows, seconds=12.0), replace(DRAFTS, splits=1))
    assert (
        f"{looks.best_score:.4f} expected, from 1 common split and 25% of the rows; trials were "
        "drafts, on 12% of their rows"
    ) in told(looks)
    assert tuning_json(looks)["finalist_share"] == pytest.approx(0.25, abs=0.005)


def budget_of(seconds: float, taken: float, *, capacity: int = 2) -> TimeBudget:
    limits = replace(DRAFTS, seconds=seconds, candidates=8, finalist_rows=1.2)
    return TimeBudget(limits, Script(by_rows, capacity=capacity), draft=0.125)


# Where a look may be cut off, as its trial was watched, it has more rows.
WATCHED = tuple((step, 0.5) for step in (10, 20, 40))


@pytest.mark.parametrize(
    ("seconds", "share", "watched"),
    [
        (300.0, 0.5, 0.5),
        (70.0, 0.5, 0.5),
        (45.0, 0.31, 0.5),
        (28.0, 0.18, 0.29),
        (15.0, None, 0.13),
    ],
)
def test_looks_have_as_many_rows_as_there_is_time_for(
    seconds: float, share: float | None, watched: float
) -> None:
    for curve, expected in (((), share), (WATCHED, watched)):
        best = [TrialRecord(number, "complete", 0.5, {}, curve, 4.5) for number in range(9)]
        budget = budget_of(seconds, 4.5)
        looks = budget.looks(best)
        assert (looks.share if looks else None) == pytest.approx(expected, abs=0.01)
        if looks:
            assert looks.count % 2 == 0
            assert looks.seconds <= 0.34 * seconds
        began = time.monotonic()
        budget.reserve(best)
        kept = seconds - (budget.until - began)
        # Else the time for the fit of a third of a draft.
        alone = 1.25 * 4.5 / 3**0.9
        assert kept == pytest.approx(looks.seconds if looks else alone, abs=0.1) or seconds > 80


def test_where_no_gain_is_wanted_no_time_is_kept_for_it() -> None:
    best = [TrialRecord(number, "complete", 0.5, {}, (), 4.5) for number in range(9)]
    wanted, other = budget_of(70.0, 4.5), budget_of(70.0, 4.5)
    other.limits = replace(other.limits, gains=False)
    looks, bare = wanted.looks(best), other.looks(best)
    assert looks is not None
    assert bare is not None
    assert looks.seconds > bare.seconds
    assert other.gain_seconds(best, 0.375) == other.gain_seconds(best, None) == 0.0
    assert wanted.gain_seconds(best, 0.375) > 0.0


def test_only_drafts_are_looked_at() -> None:
    best = [TrialRecord(0, "complete", 0.5, {}, (), 1.0)]
    budget = budget_of(1_000.0, 1.0)
    budget.draft = None
    assert budget.looks(best) is None
    budget.draft = 0.25  # three times of it are nearly all
    assert budget.looks(best) is None
    assert budget_of(1_000.0, 1.0).looks([]) is None


def test_what_was_looked_at_says_whether_a_whole_fit_would_end() -> None:
    best = [TrialRecord(number, "complete", 0.5, {}, (), 1.0) for number in range(4)]
    budget = budget_of(100.0, 1.0)
    # At three eighths of the rows 10 s: some 39 s for all of them, 19 with the threads of both.
    assert budget.affordable_after(best, dict.fromkeys(range(4), 10.0), 0.375) == best[:2]
    assert budget.affordable_after(best, dict.fromkeys(range(4), 50.0), 0.375) == []
    assert budget.affordable_after([], {}, 0.375) == []


def test_a_share_is_taken_of_the_train_rows_and_all_others_judge() -> None:
    problem = problem_of(CLASSIFIER, rows=2_000)
    task = TrialTask(0, {"n_estimators": 5}, 3, watched=False, judges=0.1)
    all_rows = problem.run(task, lambda step, value: None, lambda: False)
    assert problem._last is not None
    judges, rows = problem._last.judges, len(problem._last.train.truth)
    some = problem.run(replace(task, share=0.25), lambda step, value: None, lambda: False)
    assert len(problem._last.train.truth) == pytest.approx(rows / 4, abs=2)
    assert np.array_equal(problem._last.judges, judges)
    coarse = problem.run(
        replace(task, share=0.25, coarse=True), lambda step, value: None, lambda: False
    )
    assert len({all_rows.value, some.value, coarse.value}) == 3


def test_a_splits_rows_are_taken_for_no_harder_than_all() -> None:
    """The reference says so of each common split, and what is reported is what it says of all rows."""
    problem = problem_of(CLASSIFIER, rows=1_200)
    problem.reference = {"n_estimators": 20}
    limits = SearchLimits(
        n_trials=4, seconds=1e6, candidates=2, splits=2, validation_size=0.1, corrected=True
    )
    result = searched(problem, {"n_estimators": whole(10, 40)}, limits)
    assert result.expected is not None
    assert problem._measured is not None
    assert result.expected.offset != 0
    assert result.best_score == pytest.approx(
        result.finalists[0].mean - result.expected.offset, abs=1e-12
    )


def test_what_the_rest_of_the_rounds_brought_is_read_between_the_looks() -> None:
    trial = TrialRecord(0, "complete", 0.9, {}, ((20, 0.5), (60, 0.7)), 1.0)
    assert trial.rise(60) == pytest.approx(0.2)
    assert trial.rise(40) == pytest.approx(0.3)
    assert trial.rise(80) == pytest.approx(0.1)
    assert trial.rise(10) == pytest.approx(0.4)


def test_a_smaller_draft_has_fewer_rounds_than_the_draft_that_it_is_held_against() -> None:
    script = Script(lambda task: None if task.split_seed >= COMMON else by_rows(task), seconds=40.0)
    played(script, replace(DRAFTS, boosts=True))
    smaller = script.submitted[-1]
    assert smaller.draft == pytest.approx(0.125 / 3)
    assert smaller.rounds == pytest.approx((0.125 / 3) ** 0.4)


def test_a_smaller_draft_takes_steps_as_large_as_the_draft_that_it_is_held_against() -> None:
    script = Script(lambda task: None if task.split_seed >= COMMON else by_rows(task), seconds=40.0)
    played(script, replace(DRAFTS, draft=0.25, boosts=True))
    smaller = script.submitted[-1]
    assert smaller.draft == pytest.approx(0.25 / 3)
    assert smaller.strided
