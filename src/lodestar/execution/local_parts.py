"""Parts scored one after another in this process."""

from collections.abc import Iterator

from lodestar.interface.parts import FailedPart, PartTask, ScoredPart, ScorerSource

__all__ = ["LocalParts"]


class LocalParts:
    """One worker, this process: what ends it ends the command, so nothing is tried twice."""

    workers = 1

    def __init__(self, source: ScorerSource) -> None:
        self._source = source

    def scored(self, tasks: Iterator[PartTask]) -> Iterator[ScoredPart | FailedPart]:
        """Score all of them, in order."""
        score = self._source.open()
        for task in tasks:
            try:
                outcome: ScoredPart | FailedPart = score(task)
            except Exception as error:  # noqa: BLE001 -- the edge to a model's code: told, not kept
                outcome = FailedPart(task, error)
            yield outcome
