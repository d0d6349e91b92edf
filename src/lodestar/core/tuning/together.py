"""Fits side by side until all have ended or the time is up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lodestar.core.models.watching import WHOLE
from lodestar.interface.execution import TrialExecutor, TrialOutcome, TrialReport, TrialTask

__all__ = ["Fit", "together"]

# How long to wait for news, in seconds, before looking at the clock and at Ctrl-C.
TICK = 0.25


@dataclass(frozen=True)
class Fit:
    """One that has ended; `curve`, if it was watched: percent of its rounds → the metric."""

    outcome: TrialOutcome
    curve: Mapping[int, float]

    @property
    def to_its_end(self) -> Mapping[int, float]:
        """With what it came to in the end, if it did."""
        value = self.outcome.value
        return self.curve if value is None else {**self.curve, WHOLE: value}


def together(
    executor: TrialExecutor,
    tasks: Sequence[TrialTask],
    *,
    seconds: Callable[[], float],
    interrupted: Callable[[], bool],
) -> list[Fit]:
    """How each ended that was begun, as they ended; `seconds` are those that one has when it begins.

    Interrupted, none is begun any more, and those that run are stopped.
    """
    waiting = list(tasks)
    curves: dict[int, dict[int, float]] = {task.number: {} for task in tasks}
    ended: list[Fit] = []
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
                curves[event.number][event.step] = event.value
                executor.answer(event.number, "go on")
            else:
                ended.append(Fit(event, curves[event.number]))
                running -= 1
    return ended
