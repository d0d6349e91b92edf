"""What every engine that runs a search's trials must keep, on fits that do as they are told."""

import os
import signal
import time
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from lodestar.core.learner import Learner
from lodestar.core.metrics import find_metric
from lodestar.core.models import family_of
from lodestar.core.preprocessor import SimpleScaler
from lodestar.core.results import Truth
from lodestar.core.splitter import Splitter
from lodestar.core.tuning.problem import TrialProblem
from lodestar.interface.execution import TrialExecutor, TrialOutcome, TrialReport, TrialTask
from lodestar.settings.recipe import Split

__all__ = ["DeedRegressor", "TrialExecutorContract", "deed_problem"]

ROWS = 60
WORKERS = 2
DEADLY = 0.6  # a deed that is done sometimes is done above this


class DeedRegressor:
    """Predicts `x`; what `deed` says happens while it fits, and that takes so many `seconds`."""

    def __init__(self, deed: str = "", x: float = 0.0, seconds: float = 0.0) -> None:
        self.deed, self.x, self.seconds = deed, x, seconds

    def fit(self, rows: Any, target: NDArray[Any]) -> None:  # noqa: ANN401 -- pandas or numpy
        """Do the deed.

        Raises:
            ValueError: it is `raise`.
        """
        del rows
        if self.deed == "killed" or (self.deed == "sometimes" and self.x > DEADLY):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.deed == "raise":
            raise ValueError("no such thing")
        time.sleep(self.seconds)
        self.mean = float(np.mean(target))

    def predict(self, rows: Any) -> NDArray[Any]:  # noqa: ANN401 -- pandas or numpy
        """So far off the target as `x` says, which is 0."""
        return np.full(len(rows), self.mean + self.x, dtype=float)


def deed_problem() -> TrialProblem:
    """Rows of one column whose target is 0: the error of a fit is its `x`."""
    metric = find_metric("mae", "regression")
    assert metric is not None
    return TrialProblem(
        inputs=pa.table({"number": np.arange(ROWS, dtype=float)}),
        truth=Truth(np.zeros(ROWS)),
        split_columns=pd.DataFrame(index=pd.RangeIndex(ROWS)),
        strata=None,
        learner=Learner(family_of(DeedRegressor, "regression"), SimpleScaler, 42),
        splitter=Splitter(Split(), task="regression", timestamp_col="none"),
        metric=metric,
    )


class TrialExecutorContract:
    """Subclass it and give the fixture `trials_of`: problem → a context of an executor of 2 workers."""

    def test_trials_have_the_values_that_their_problem_gives(self, trials_of: Any) -> None:  # noqa: ANN401 -- a fixture
        """Each its own, whichever worker ran it."""
        with self._opened(trials_of) as executor:
            assert executor.capacity == WORKERS
            each = [{"x": number / 10} for number in range(6)]
            found = self._run(executor, *each)
        for item, given in zip(found, each, strict=True):
            task = self._task(item.number, given)
            own = deed_problem().run(task, lambda *_: None, lambda: False)
            assert item.value == own.value
        assert all(item.state == "complete" for item in found)

    def test_a_fit_that_fails_says_why(self, trials_of: Any) -> None:  # noqa: ANN401 -- a fixture
        """The others do not."""
        with self._opened(trials_of) as executor:
            found = self._run(executor, {"deed": "raise"}, {})
        assert [item.state for item in found] == ["failed", "complete"]
        assert "no such thing" in found[0].error

    def test_a_worker_that_dies_fails_its_trial_alone_and_is_replaced(self, trials_of: Any) -> None:  # noqa: ANN401 -- a fixture
        """What the other one runs goes on; two more find two workers."""
        with self._opened(trials_of) as executor:
            found = self._run(executor, {"deed": "killed"}, {"seconds": 0.2}, {}, {})
        assert [item.state for item in found] == ["failed", *["complete"] * 3]
        assert found[0].error.startswith("its worker ")

    def test_a_fit_that_does_not_look_at_the_clock_is_ended(self, trials_of: Any) -> None:  # noqa: ANN401 -- a fixture
        """By force, where it must be."""
        with self._opened(trials_of) as executor:
            executor.submit(self._task(0, {"seconds": 600.0}), seconds=0.2)
            assert [item.state for item in self._outcomes(executor, 1)] == ["stopped"]
            assert [item.state for item in self._run(executor, {})] == ["complete"]

    def test_halting_stops_what_runs(self, trials_of: Any) -> None:  # noqa: ANN401 -- a fixture
        """Whatever it is at."""
        with self._opened(trials_of) as executor:
            for number in range(2):
                executor.submit(self._task(number, {"seconds": 600.0}), seconds=None)
            executor.halt()
            assert {item.state for item in self._outcomes(executor, 2)} == {"stopped"}

    @staticmethod
    def _opened(trials_of: Any) -> AbstractContextManager[TrialExecutor]:  # noqa: ANN401 -- a fixture
        opened: AbstractContextManager[TrialExecutor] = trials_of(deed_problem())
        return opened

    @staticmethod
    def _task(number: int, given: dict[str, Any]) -> TrialTask:
        return TrialTask(number, given, number, watched=False)

    def _run(self, executor: TrialExecutor, *each: dict[str, Any]) -> list[TrialOutcome]:
        """All of them, as many at a time as there are workers; in the order of their numbers."""
        found: list[TrialOutcome] = []
        waiting = [self._task(number, given) for number, given in enumerate(each)]
        running = 0
        while waiting or running:
            while waiting and running < executor.capacity:
                executor.submit(waiting.pop(0), seconds=None)
                running += 1
            ended = self._outcomes(executor, 1)
            found += ended
            running -= len(ended)
        return sorted(found, key=lambda item: item.number)

    @staticmethod
    def _outcomes(executor: TrialExecutor, count: int) -> list[TrialOutcome]:
        found: list[TrialOutcome] = []
        until = time.monotonic() + 60
        while len(found) < count and time.monotonic() < until:
            for event in executor.events(timeout=0.1):
                if isinstance(event, TrialReport):
                    executor.answer(event.number, "go on")
                else:
                    found.append(event)
        assert len(found) >= count
        return found
