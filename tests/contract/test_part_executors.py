"""The engine of this process keeps the contract; Ray's is in tests/integration/test_ray.py."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Barrier

import pytest

from lodestar.execution.local_parts import LocalParts
from lodestar.interface.parts import PartExecutor, PartTask, ScoredPart, ScorerSource
from lodestar.testing.parts import DeedSource, PartExecutorContract, tasks_of


class TestLocal(PartExecutorContract):
    @pytest.fixture
    def executor_of(self) -> Callable[[ScorerSource], AbstractContextManager[PartExecutor]]:
        return lambda source: nullcontext(LocalParts(source))


@dataclass(frozen=True)
class TwoAtOnce(DeedSource):
    side_by_side: bool = True


class TestLocalSideBySide(PartExecutorContract):
    @pytest.fixture
    def executor_of(self) -> Callable[[DeedSource], AbstractContextManager[PartExecutor]]:
        return lambda source: nullcontext(LocalParts(TwoAtOnce(broken=source.broken)))


class Meeting:
    """Scores a part when another one is being scored as well, from the second one on."""

    def __init__(self) -> None:
        self.met = Barrier(2)
        self.begun = False

    def open(self) -> "Meeting":
        return self

    @property
    def side_by_side(self) -> bool:
        return self.begun

    def __call__(self, task: PartTask) -> ScoredPart:
        if self.begun:
            self.met.wait(timeout=60)
        self.begun = True
        return DeedSource()(task)


def test_two_parts_are_scored_at_once_as_soon_as_that_may_be_and_come_in_order() -> None:
    outcomes = list(LocalParts(Meeting()).scored(iter(tasks_of(7))))
    scored = [part.number for part in outcomes if isinstance(part, ScoredPart)]
    assert scored == list(range(7))
