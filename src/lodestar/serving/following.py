"""Keeps a server's champion what an alias means; one of its workers does so for all."""

import asyncio
from contextlib import aclosing

from lodestar.artifact.register import OpenedRun
from lodestar.serving.access_log import Log
from lodestar.serving.problems import ProblemError
from lodestar.serving.references import Change, Watcher
from lodestar.serving.state import SharedState
from lodestar.serving.swaps import Swaps
from lodestar.settings.loading import Environment

__all__ = ["Following"]

LEAD_SECONDS = 1.0
RESTART_SECONDS = 5.0


class Following:
    """Waits until it is this worker's turn, then follows `alias` for as long as the worker lives.

    Each meaning of the alias is dealt with once: a run that was refused, taken back, or replaced by an
    administrator comes in again only when the alias has meant another one since.
    """

    def __init__(
        self, alias: str, environment: Environment, swaps: Swaps, shared: SharedState, log: Log
    ) -> None:
        self._alias = alias
        self._environment = environment
        self._swaps = swaps
        self._shared = shared
        self._log = log
        self._seconds = environment.config.serving.follow_seconds
        self._meant: OpenedRun | None = None
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Follow until this is cancelled."""
        while not self._shared.lead():  # noqa: ASYNC110 -- another process lets go of it
            await asyncio.sleep(LEAD_SECONDS)
        acting = asyncio.create_task(self._act())
        try:
            while True:
                await self._listen()
                await asyncio.sleep(RESTART_SECONDS)
        finally:
            acting.cancel()
            await asyncio.wait({acting})

    async def _listen(self) -> None:
        watcher = Watcher(self._environment, [self._alias], seconds=self._seconds)
        try:
            async with aclosing(watcher.changes()) as changes:
                async for change in changes:
                    self._hear(change)
        except OSError as error:  # the child could not be started
            self._log.event("the alias cannot be followed now", level="error", error=error)

    def _hear(self, change: Change) -> None:
        if change.runs is not None:
            self._meant = change.runs[0]
            self._news.set()
        elif change.unreachable is not None:
            words = "does not answer" if change.unreachable else "answers again"
            self._log.event(f"the tracking server {words}", alias=self._alias)
        elif change.error is not None:
            self._log.event("the alias means no run", alias=self._alias, why=change.error.what)

    async def _act(self) -> None:
        """Bring in what the alias means; what failed for the moment is tried again."""
        while True:
            await self._news.wait()
            self._news.clear()
            while not await self._dealt_with():  # noqa: ASYNC110 -- for a server that is away
                await asyncio.sleep(self._seconds)

    async def _dealt_with(self) -> bool:
        """Whether there is nothing to try again."""
        run = self._meant
        if run is None or run.digest == self._shared.read().followed:
            return True
        try:
            await self._swaps.follow(run)
        except ProblemError:
            pass  # it is in the log and in the state
        except Exception as error:  # noqa: BLE001 -- an edge: whatever it is, the old one serves on
            self._log.event("the alias could not be followed", level="error", error=error)
        return run.digest == self._shared.read().followed
