"""Spans of a search's trials, made of what their executor is told and tells; workers need nothing."""

import time

from lodestar.core.tuning.common_splits import common_split_seed
from lodestar.interface.execution import (
    TrialExecutor,
    TrialOutcome,
    TrialReport,
    TrialTask,
    Verdict,
)
from lodestar.interface.tracing import Span

__all__ = ["TracedTrials", "traced_trials"]


def traced_trials(executor: TrialExecutor, span: Span | None) -> TrialExecutor:
    """The executor, whose trials are parts of the span; as it is where there is none."""
    return executor if span is None else TracedTrials(executor, span)


class TracedTrials:
    """An executor that tells a span of each trial when it has ended.

    A trial takes from its submission to its outcome; `lodestar.seconds` is what its worker measured.
    """

    def __init__(self, executor: TrialExecutor, span: Span) -> None:
        self._executor = executor
        self._span = span
        self._tasks: dict[int, tuple[TrialTask, int]] = {}
        self._seen: dict[int, float] = {}
        self._pruned: set[int] = set()

    @property
    def capacity(self) -> int:
        """That of the executor."""
        return self._executor.capacity

    def submit(self, task: TrialTask, *, seconds: float | None) -> None:
        """Start a trial, and its span."""
        self._tasks[task.number] = task, time.time_ns()
        self._executor.submit(task, seconds=seconds)

    def events(self, *, timeout: float) -> list[TrialReport | TrialOutcome]:
        """Wait for news; of outcomes the span is told."""
        found = self._executor.events(timeout=timeout)
        for event in found:
            if isinstance(event, TrialReport):
                self._seen[event.number] = event.value
            else:
                self._end(event)
        return found

    def answer(self, number: int, verdict: Verdict) -> None:
        """Answer a report, and remember which trial is pruned: it ends as stopped."""
        if verdict == "prune":
            self._pruned.add(number)
        self._executor.answer(number, verdict)

    def halt(self) -> None:
        """Stop what runs."""
        self._executor.halt()

    def close(self) -> None:
        """End all workers."""
        self._executor.close()

    def _end(self, outcome: TrialOutcome) -> None:
        task, began = self._tasks.pop(outcome.number)
        # One that was done before it could be told is complete all the same, as the search has it.
        pruned = outcome.number in self._pruned and outcome.state != "complete"
        self._pruned.discard(outcome.number)
        last = self._seen.pop(outcome.number, None)
        value = last if pruned else outcome.value
        said: dict[str, str | float] = {
            "lodestar.trial": outcome.number,
            "lodestar.state": "pruned" if pruned else outcome.state,
            "lodestar.seconds": outcome.seconds,
        }
        if value is not None:
            said["lodestar.value"] = value
        failed = outcome.state == "failed" and not pruned
        self._span.part(_kind(task), began, time.time_ns(), said, failed=failed)


def _kind(task: TrialTask) -> str:
    common = task.split_seed >= common_split_seed(0)
    if task.number < 0:
        return "smaller fit" if common or task.correction is not None else "rehearsal"
    if task.coarse:
        return "look"
    return "finalist" if common else "trial"
