"""How many finalists there is time for: those whose fit will surely end, as many as can be compared."""

from tests.searching import Script

from lodestar.core.tuning.budget import TimeBudget
from lodestar.core.tuning.result import SearchLimits, TrialRecord


def record(number: int, seconds: float) -> TrialRecord:
    return TrialRecord(number, "complete", 1.0 - number / 100, {"who": number}, (), seconds)


def afforded(seconds: list[float], *, of: float = 100.0, finalist_rows: float = 1.0) -> list[int]:
    """The places of those that may be finalists, by what each took, best first; one worker."""
    limits = SearchLimits(n_trials=40, seconds=of, candidates=3, finalist_rows=finalist_rows)
    budget = TimeBudget(limits, Script(lambda task: 0.5))
    best = [record(number, taken) for number, taken in enumerate(seconds)]
    return [one.number for one in budget.affordable(best)]


def test_as_many_are_compared_as_can_be_judged_once_in_half_of_the_time() -> None:
    assert afforded([1.0, 1.0, 1.0, 1.0]) == [0, 1, 2]
    assert afforded([20.0, 20.0, 20.0]) == [0, 1]


def test_a_fit_that_may_not_end_in_time_makes_way_for_the_next_best() -> None:
    assert afforded([70.0, 50.0, 40.0]) == [1]
    assert afforded([50.0, 40.0], finalist_rows=1.25) == [1]


def test_where_none_will_surely_end_the_best_is_tried() -> None:
    assert afforded([90.0, 80.0]) == [0]
