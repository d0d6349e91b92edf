"""What those who score parts want the user to know, told once, wherever they score."""

from collections.abc import Iterator

from lodestar.interface.parts import FailedPart, PartExecutor, PartTask, ScoredPart
from lodestar.interface.progress import Progress

__all__ = ["TellingExecutor"]


class TellingExecutor:
    """Scores by another executor, and tells once what its workers want the user to know."""

    def __init__(self, executor: PartExecutor, tell: Progress) -> None:
        self.workers = executor.workers
        self._executor, self._tell = executor, tell

    def scored(self, tasks: Iterator[PartTask]) -> Iterator[ScoredPart | FailedPart]:
        """As the other one."""
        told = {""}
        for outcome in self._executor.scored(tasks):
            if isinstance(outcome, ScoredPart) and outcome.note not in told:
                told.add(outcome.note)
                self._tell.note(outcome.note)
            yield outcome
