"""Spares an online store that does not answer, and those that would wait for it."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from lodestar.errors import ExternalError
from lodestar.interface.features import OnlineReader
from lodestar.settings.serving import OnlineReads

__all__ = ["Breaker", "BreakerWatch"]


class BreakerWatch(Protocol):
    """Who wants to know whether the store is asked."""

    def breaker(self, *, is_open: bool) -> None:
        """It has changed."""
        ...


class Breaker:
    """An `OnlineReader` that stops asking another one which fails.

    After `settings.failures` failed reads in a row it is open: reads fail at once for
    `settings.pause_seconds`. Then a single read goes through, while others still fail at once; if it is
    answered, all go through again, and if not, the next pause begins. `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        reader: OnlineReader,
        settings: OnlineReads,
        watch: BreakerWatch | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.keys = reader.keys
        self.failures = 0
        self._reader = reader
        self._most = settings.failures
        self._pause = settings.pause_seconds
        self._watch = watch
        self._clock = clock
        self._paused_until: float | None = None
        self._probing = False

    @property
    def open(self) -> bool:
        """Whether the store is left alone, but for a single read now and then."""
        return self._paused_until is not None

    async def read(self, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Answer n rows, or fail at once.

        Raises:
            ExternalError: the store does not answer, or is not asked because it did not lately.
        """
        if self._paused_until is None:
            return await self._asked(rows)
        if self._probing or self._clock() < self._paused_until:
            raise ExternalError(
                "the online store is not asked, as it did not answer lately",
                hint=f"it is asked again every {self._pause:g} s",
            )
        self._probing = True
        try:
            return await self._asked(rows)
        finally:
            self._probing = False

    async def close(self) -> None:
        """Close the reader."""
        await self._reader.close()

    async def _asked(self, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        probe = self._probing
        try:
            found = await self._reader.read(rows)
        except ExternalError:
            self.failures += 1
            if probe or (self._paused_until is None and self.failures >= self._most):
                self._turn(self._clock() + self._pause)
            raise
        self.failures = 0
        if self._paused_until is not None:
            self._turn(None)
        return found

    def _turn(self, paused_until: float | None) -> None:
        was, self._paused_until = self.open, paused_until
        if self._watch is not None and was != self.open:
            self._watch.breaker(is_open=self.open)
