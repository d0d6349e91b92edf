"""Parts scored in this process."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from lodestar.interface.parts import (
    FailedPart,
    PartScorer,
    PartTask,
    ScoredPart,
    ScorerSource,
    ScoresSideBySide,
)

__all__ = ["LocalParts"]

# One part is made ready while another goes through the trees; each more is memory.
AT_ONCE = 2


class LocalParts:
    """One worker, this process: what ends it ends the command, so nothing is tried twice.

    A scorer that may be asked so scores two parts side by side.
    """

    workers = 1

    def __init__(self, source: ScorerSource) -> None:
        self._source = source

    def scored(self, tasks: Iterator[PartTask]) -> Iterator[ScoredPart | FailedPart]:
        """Score all of them, in order."""
        score = self._source.open()
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="score") as threads:
            under_way: deque[Future[ScoredPart | FailedPart]] = deque()
            for task in tasks:
                if not _side_by_side(score):
                    yield _outcome(score, task)
                    continue
                under_way.append(threads.submit(_outcome, score, task))
                if len(under_way) == AT_ONCE:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()


def _side_by_side(score: object) -> bool:
    return isinstance(score, ScoresSideBySide) and score.side_by_side


def _outcome(score: PartScorer, task: PartTask) -> ScoredPart | FailedPart:
    try:
        return score(task)
    except Exception as error:  # noqa: BLE001 -- the edge to a model's code: told, not kept
        return FailedPart(task, error)
