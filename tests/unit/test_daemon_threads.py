"""Threads that nobody waits for: how many there are, whose errors are whose, and when they end."""

import threading
import time
from concurrent.futures import Future
from functools import partial

import pytest

from lodestar.adapters.threads.daemon import DaemonThreads


def running(name: str) -> int:
    return sum(one.name.startswith(f"{name}-") for one in threading.enumerate())


def test_no_more_calls_run_at_a_time_than_there_may_be_threads() -> None:
    threads = DaemonThreads(3, "three")
    go, lock = threading.Event(), threading.Lock()
    most: list[int] = []
    at_work: list[int] = []

    def call() -> None:
        with lock:
            at_work.append(1)
            most.append(len(at_work))
        go.wait(10)
        with lock:
            at_work.pop()

    futures = [threads.submit(call) for _ in range(12)]
    assert running("three") == 3
    go.set()
    for future in futures:
        future.result(10)
    assert max(most) <= 3
    threads.end()


def test_one_call_after_another_needs_one_thread() -> None:
    threads = DaemonThreads(8, "one")
    for number in range(20):
        assert threads.submit(partial(int, number)).result(10) == number
        time.sleep(0.01)  # until the thread waits again
    assert running("one") <= 2
    threads.end()


def test_an_error_is_raised_where_the_result_is_awaited_and_the_next_call_works() -> None:
    threads = DaemonThreads(1, "error")

    def fails() -> int:
        raise KeyError("no")

    failed, works = threads.submit(fails), threads.submit(lambda: 5)
    with pytest.raises(KeyError):
        failed.result(10)
    assert works.result(10) == 5
    threads.end()


def test_what_waits_is_done_before_they_end_and_what_was_cancelled_is_not() -> None:
    threads = DaemonThreads(1, "end")
    go = threading.Event()
    done: list[int] = []
    first: Future[bool] = threads.submit(lambda: go.wait(10))
    kept, gone = threads.submit(lambda: done.append(1)), threads.submit(lambda: done.append(2))
    assert gone.cancel()
    threads.end()
    go.set()
    first.result(10)
    kept.result(10)
    ends = time.monotonic() + 10
    while running("end") and time.monotonic() < ends:
        time.sleep(0.01)
    assert running("end") == 0
    assert done == [1]
