"""Calls side by side: their order, how many run at a time, and what one that fails leaves behind."""

import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from lodestar.adapters.threads.side_by_side import side_by_side


def test_results_come_in_the_calls_order_whichever_ends_first() -> None:
    def later(number: int) -> int:
        time.sleep(0.02 * (5 - number))
        return number

    assert side_by_side([partial(later, number) for number in range(5)], 5, "order") == [*range(5)]


def test_no_more_run_at_a_time_than_may() -> None:
    meet = threading.Barrier(3)

    def call() -> int:
        meet.wait(10)  # passes where three run, breaks where fewer do
        return sum(one.name.startswith("bound-") for one in threading.enumerate())

    assert side_by_side([call] * 9, 3, "bound") == [3] * 9


def test_one_that_fails_ends_those_that_wait_and_waits_for_those_that_run() -> None:
    began, ended = list[int](), list[int]()
    both = threading.Barrier(2)

    def fails() -> None:
        both.wait(10)
        raise KeyError("no")

    def runs(number: int) -> None:
        began.append(number)
        if number == 1:
            both.wait(10)
        time.sleep(0.2)
        ended.append(number)

    calls: list[Callable[[], None]] = [fails, *(partial(runs, number) for number in range(1, 20))]
    with pytest.raises(KeyError):
        side_by_side(calls, 2, "fails")
    assert began == ended
    assert len(began) < 5


def test_no_calls_are_no_results() -> None:
    assert side_by_side([], 3, "none") == []
