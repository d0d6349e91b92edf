"""Blocking calls side by side: a few at a time, their results in the calls' order."""

from collections.abc import Callable, Sequence
from concurrent.futures import wait
from typing import TypeVar

from lodestar.adapters.threads.daemon import DaemonThreads

__all__ = ["side_by_side"]

T = TypeVar("T")


def side_by_side(calls: Sequence[Callable[[], T]], at_once: int, name: str) -> list[T]:
    """The results of all calls, at most `at_once` of which run at a time.

    Where one raises, those that wait are not made, and those that run have ended before it is raised
    here. An interrupt waits for none.
    """
    threads = DaemonThreads(at_once, name)
    futures = [threads.submit(call) for call in calls]
    try:
        return [future.result() for future in futures]
    except Exception:
        for future in futures:
            future.cancel()
        wait(futures)
        raise
    finally:
        for future in futures:
            future.cancel()
        threads.end()
