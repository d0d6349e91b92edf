"""What the user should know of how rows were scored."""

from collections.abc import Iterator
from importlib.util import find_spec

from lodestar.core.fitted import FittedModel
from lodestar.core.trees.libraries import IN_MACHINE_CODE
from lodestar.interface.parts import FailedPart, PartExecutor, PartTask, ScoredPart
from lodestar.interface.progress import Progress
from lodestar.settings.config import Batch

__all__ = ["MANY_ROWS", "TellingExecutor", "slower_than_need_be"]

# From so many rows on, it is worth telling how they would be scored faster.
MANY_ROWS = 500_000


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


def slower_than_need_be(model: FittedModel, rows: int, size: Batch) -> tuple[str, ...]:
    """What to install before the next batch of so many rows."""
    trees = model.family.name in IN_MACHINE_CODE
    if rows < MANY_ROWS or not trees or not size.native or find_spec("llvmlite"):
        return ()
    return ("trees are scored faster with pip install 'lodestar-ml[native]'",)
