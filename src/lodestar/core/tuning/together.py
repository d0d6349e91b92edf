"""Fits side by side until all have ended or the time is up."""

from collections.abc import Callable, Sequence

from lodestar.interface.execution import TrialExecutor, TrialOutcome, TrialReport, TrialTask

__all__ = ["together"]

# How long to wait for news, in seconds, before looking at the clock and at Ctrl-C.
TICK = 0.25


def together(
    executor: TrialExecutor,
    tasks: Sequence[TrialTask],
    *,
    seconds: Callable[[], float],
    interrupted: Callable[[], bool],
) -> list[TrialOutcome]:
    """How each ended that was begun, as they ended; `seconds` are those that one has when it begins.

    Interrupted, none is begun any more, and those that run are stopped.
    """
    waiting, ended = list(tasks), []
    running = 0
    while waiting or running:
        if interrupted():
            waiting = []
            executor.halt()
            if not running:
                break
        while waiting and running < executor.capacity:
            executor.submit(waiting.pop(0), seconds=seconds())
            running += 1
        for event in executor.events(timeout=TICK):
            if isinstance(event, TrialReport):
                executor.answer(event.number, "go on")
            else:
                ended.append(event)
                running -= 1
    return ended
