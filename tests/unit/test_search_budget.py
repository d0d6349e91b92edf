"""How the time is divided: what is kept for finalists, and how many of them it is enough for."""

import time

import pytest
from tests.searching import Script

from lodestar.core.tuning.budget import TimeBudget
from lodestar.core.tuning.result import SearchLimits, TrialRecord


def budget_of(
    seconds: list[float],
    finalist_rows: float,
    *,
    draft: float | None = None,
    boosts: bool = False,
    windows: int | None = None,
) -> tuple[TimeBudget, list[TrialRecord]]:
    """A hundred seconds for one worker, and trials by what each took, best first."""
    limits = SearchLimits(
        n_trials=40,
        seconds=100.0,
        candidates=3,
        finalist_rows=finalist_rows,
        draft=draft,
        boosts=boosts,
        windows=windows,
    )
    best = [
        TrialRecord(number, "complete", 1.0 - number / 100, {}, (), taken)
        for number, taken in enumerate(seconds)
    ]
    return TimeBudget(limits, Script(lambda task: 0.5), draft), best


def kept_for_finalists(
    seconds: list[float], *, finalist_rows: float = 1.0, draft: float | None = None
) -> float:
    budget, best = budget_of(seconds, finalist_rows, draft=draft)
    began = time.monotonic()
    budget.reserve(best)
    return 100.0 - (budget.until - began)


def test_as_many_are_compared_as_can_be_judged_once_in_half_of_the_time() -> None:
    for seconds, numbers in (
        ([1.0, 1.0, 1.0, 1.0], [0, 1, 2]),
        ([20.0, 20.0, 20.0], [0, 1]),
        ([90.0, 10.0, 10.0], [0]),
    ):
        budget, best = budget_of(seconds, 1.0)
        assert [one.number for one in budget.affordable(best)] == numbers


def test_what_finalists_need_is_kept_up_to_a_fifth_or_what_one_common_split_takes() -> None:
    assert kept_for_finalists([0.1, 0.1, 0.1]) == pytest.approx(2.25, abs=0.1)
    assert kept_for_finalists([3.0, 3.0, 3.0]) == pytest.approx(20, abs=0.1)
    assert kept_for_finalists([9.0, 9.0, 9.0]) == pytest.approx(27, abs=0.1)
    assert kept_for_finalists([29.0, 29.0, 29.0]) == pytest.approx(50, abs=0.1)


def test_nothing_is_kept_where_not_even_the_best_would_end_in_time() -> None:
    assert kept_for_finalists([31.0, 1.0, 1.0]) == pytest.approx(0, abs=0.1)
    assert kept_for_finalists([29.0, 1.0, 1.0], finalist_rows=1.2) == pytest.approx(0, abs=0.1)


def test_a_third_is_kept_where_trials_are_drafts_that_are_not_looked_at() -> None:
    assert kept_for_finalists([1.0, 1.0, 1.0], draft=0.25) == pytest.approx(100 / 3, abs=0.1)


def test_whole_fits_are_expected_to_take_all_rounds_where_drafts_had_fewer() -> None:
    budget, best = budget_of([1.0, 1.0, 1.0], 1.0, draft=0.125)
    assert len(budget.affordable(best)) == 3  # 1 / .125 ** .9 = 6.5 s
    shortened, best = budget_of([2.0, 2.0, 2.0], 1.0, draft=0.125, boosts=True)
    assert len(shortened.affordable(best)) == 1  # 2 / .125 ** 1.3 = 29.9 s


def test_a_look_costs_more_rounds_as_well_as_more_rows() -> None:
    looks, best = budget_of([4.0, 4.0, 4.0], 1.0, draft=0.125)
    shortened, _ = budget_of([4.0, 4.0, 4.0], 1.0, draft=0.125, boosts=True)
    as_many, more = looks.looks(best), shortened.looks(best)
    assert as_many is not None
    assert more is not None
    assert as_many.seconds == pytest.approx(4 * 4**0.9)
    assert more.seconds == pytest.approx(4 * 4**1.3)


def test_whole_fits_are_expected_to_take_all_rows_and_rounds() -> None:
    budget, best = budget_of([4.0, 4.0, 4.0], 1.0, draft=0.25)
    assert len(budget.affordable(best)) == 3  # 4 / .25 ** .9 = 13.9 s, 3.6 of them in 50 s
    strided, best = budget_of([4.0, 4.0, 4.0], 1.0, draft=0.25, boosts=True)
    assert len(strided.affordable(best)) == 1  # 27.9 s
    # Finalists of drafts have the train rows of a whole trial, those of whole trials more.
    more, best = budget_of([4.0, 4.0, 4.0], 2.0, draft=0.25)
    assert len(more.affordable(best)) == 3
    windows, best = budget_of([4.0, 4.0, 4.0], 2.0, draft=0.25, windows=3)
    assert len(windows.affordable(best)) == 1
    more, best = budget_of([13.9, 13.9, 13.9], 2.0)
    assert len(more.affordable(best)) == 1
