"""The models that one server answers with, and which of them a row goes to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lodestar.serving.batching import MicroBatcher
from lodestar.serving.problems import ProblemError
from lodestar.serving.scoring import Row
from lodestar.serving.version import RowAnswer, ServedVersion

__all__ = ["Fleet", "HasFleet", "Lane"]


@dataclass(frozen=True)
class Lane:
    """A version and the batcher in front of it."""

    version: ServedVersion
    batcher: MicroBatcher[Row, RowAnswer | ProblemError]

    @classmethod
    def of(cls, version: ServedVersion, *, most: int) -> "Lane":
        """Put a batcher in front of a version."""
        return cls(version, MicroBatcher(version.answer, most=most))


class Fleet:
    """Every row is answered by one version as a whole."""

    def __init__(self, champion: Lane) -> None:
        self.champion = champion

    def lane(self, row: Row) -> Lane:
        """Which version answers this row."""
        del row
        return self.champion

    async def ask(self, row: Row) -> "tuple[Lane, RowAnswer | ProblemError]":
        """Answer one row, together with whatever else is asked at this moment."""
        lane = self.lane(row)
        return lane, await lane.batcher.ask(row)

    async def ask_all(self, rows: Sequence[Row]) -> "list[tuple[Lane, RowAnswer | ProblemError]]":
        """Answer many rows, in order."""
        lanes = [self.lane(row) for row in rows]
        replies: list[tuple[Lane, RowAnswer | ProblemError] | None] = [None] * len(rows)
        for lane in set(lanes):
            places = [at for at, of_row in enumerate(lanes) if of_row is lane]
            found = await lane.batcher.ask_all([rows[at] for at in places])
            for at, reply in zip(places, found, strict=True):
                replies[at] = (lane, reply)
        return [reply for reply in replies if reply is not None]

    def lanes(self) -> list[tuple[str, Lane]]:
        """Every version and its role."""
        return [("champion", self.champion)]

    async def close(self) -> None:
        """Let go of every version."""
        await self.champion.version.close()


class HasFleet(Protocol):
    """Whoever holds the models that answer at this moment."""

    @property
    def fleet(self) -> Fleet:
        """The models, once they are loaded."""
        ...
