"""The models that one server answers with, and which of them a row goes to."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from time import perf_counter
from typing import Protocol

import msgspec

from lodestar.serving.batching import MicroBatcher
from lodestar.serving.problems import ProblemError
from lodestar.serving.recent import Recent
from lodestar.serving.request_model import RequestModel
from lodestar.serving.scoring import Row
from lodestar.serving.shadow import Shadow
from lodestar.serving.version import RowAnswer, ServedVersion

__all__ = ["Fleet", "HasFleet", "Lane", "Share"]

PARTS = 10_000
UNAVAILABLE = 503


@dataclass(frozen=True, eq=False)
class Lane:
    """A version, the batcher in front of it, and what it has answered lately."""

    version: ServedVersion
    batcher: MicroBatcher[Row, RowAnswer | ProblemError]
    recent: Recent = field(default_factory=Recent)

    @classmethod
    def of(cls, version: ServedVersion, *, most: int) -> "Lane":
        """Put a batcher in front of a version."""
        return cls(version, MicroBatcher(version.answer, most=most))

    def note(self, row: Row, reply: RowAnswer | ProblemError | None) -> None:
        """Remember what a row was answered; None: it was not."""
        if isinstance(reply, RowAnswer):
            self.recent.answered(reply.value)
        elif reply is not None and reply.status == UNAVAILABLE:
            self.recent.unread(row)
        else:
            self.recent.failed(row)


class Share:
    """Picks a percentage of the entities, the same ones in every process and after every start.

    A row belongs to its entity keys; where it has none, to all of its fields.
    """

    def __init__(self, request: RequestModel, percent: float) -> None:
        self._keys = [at for at, field in enumerate(request.fields) if field.key]
        self._parts = round(percent * PARTS / 100)
        self._encode = msgspec.json.Encoder().encode

    def has(self, row: Row) -> bool:
        """Whether a row's entity is among them."""
        entity = [row[at] for at in self._keys]
        if entity.count(None) == len(entity):
            entity = list(row)
        return zlib.crc32(self._encode(entity)) % PARTS < self._parts


class Fleet:
    """Every row is answered by one version as a whole.

    The `challenger` answers the entities of its share, the `champion` all others. The `shadow` is asked
    what the champion has answered. All take the same requests.
    """

    def __init__(
        self,
        champion: Lane,
        *,
        challenger: Lane | None = None,
        share: Share | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        self.champion = champion
        self.challenger = challenger
        self.shadow = shadow
        self._share = share

    def lane(self, row: Row) -> Lane:
        """Which version answers this row."""
        if self.challenger is None or self._share is None or not self._share.has(row):
            return self.champion
        return self.challenger

    async def ask(self, row: Row) -> "tuple[Lane, RowAnswer | ProblemError]":
        """Answer one row, together with whatever else is asked at this moment."""
        lane = self.lane(row)
        began = perf_counter()
        reply: RowAnswer | ProblemError | None = None
        try:
            reply = await lane.batcher.ask(row)
        except ProblemError as problem:  # the online store does not answer
            reply = problem
            raise
        finally:
            lane.recent.took(perf_counter() - began)
            self._note(lane, row, reply)
        return lane, reply

    async def ask_all(self, rows: Sequence[Row]) -> "list[tuple[Lane, RowAnswer | ProblemError]]":
        """Answer many rows, in order."""
        lanes = [self.lane(row) for row in rows]
        replies: list[tuple[Lane, RowAnswer | ProblemError] | None] = [None] * len(rows)
        for lane in set(lanes):
            places = [at for at, of_row in enumerate(lanes) if of_row is lane]
            found = await self._asked_together(lane, [rows[at] for at in places])
            for at, reply in zip(places, found, strict=True):
                replies[at] = (lane, reply)
        return [reply for reply in replies if reply is not None]

    def versions(self) -> list[tuple[str, ServedVersion]]:
        """Every version and its role."""
        lanes = (("champion", self.champion), ("challenger", self.challenger))
        found = [(role, lane.version) for role, lane in lanes if lane is not None]
        return found if self.shadow is None else [*found, ("shadow", self.shadow.version)]

    async def _asked_together(
        self, lane: Lane, rows: Sequence[Row]
    ) -> list[RowAnswer | ProblemError]:
        began = perf_counter()
        found: list[RowAnswer | ProblemError] = []
        try:
            found = await lane.batcher.ask_all(rows)
        except ProblemError as problem:
            found = [problem] * len(rows)
            raise
        finally:
            lane.recent.took(perf_counter() - began)
            for row, reply in zip_longest(rows, found):
                self._note(lane, row, reply)
        return found

    def _note(self, lane: Lane, row: Row, reply: RowAnswer | ProblemError | None) -> None:
        lane.note(row, reply)
        shadow = self.shadow
        if shadow is not None and lane is self.champion and isinstance(reply, RowAnswer):
            shadow.offer(row, reply)


class HasFleet(Protocol):
    """Whoever holds the models that answer at this moment."""

    @property
    def fleet(self) -> Fleet:
        """The models, once they are loaded."""
        ...
