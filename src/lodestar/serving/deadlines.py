"""Ends what takes longer than it may: one timer for all, since one for each costs more than it says."""

import asyncio
from time import monotonic
from typing import Protocol

from lodestar.settings.serving import Limits

__all__ = ["Deadlines", "Due"]


class Due(Protocol):
    """Something that must have gone on by `due` (monotonic seconds; inf while nothing presses)."""

    due: float

    def overdue(self) -> None:
        """It has not: end it, or set a later `due`."""
        ...


class Deadlines:
    """Looks at all that is watched, often enough to be at most a tenth of the shortest limit late."""

    def __init__(self, limits: Limits) -> None:
        shortest = min(
            limits.header_seconds, limits.body_seconds, limits.answer_seconds, limits.idle_seconds
        )
        self._every = min(max(shortest / 10, 0.02), 0.25)
        self._watched: set[Due] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, item: Due) -> None:
        """Look at it from now on."""
        self._watched.add(item)
        if self._timer is None:
            self._set_timer()

    def forget(self, item: Due) -> None:
        """It has ended by itself."""
        self._watched.discard(item)

    def _set_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._every, self._look)

    def _look(self) -> None:
        self._timer = None
        now = monotonic()
        for item in [item for item in self._watched if item.due <= now]:
            item.overdue()
        if self._watched:
            self._set_timer()
