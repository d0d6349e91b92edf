"""Brings in another champion: looked up, tried in a child process, loaded, compared, given to all."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic

from lodestar.artifact.references import parse_reference
from lodestar.artifact.register import OpenedRun
from lodestar.errors import ArtifactError, ExternalError, LodestarError, UsageError
from lodestar.serving.deployment import Deployment
from lodestar.serving.failures import RETRY
from lodestar.serving.plan import NotPlannedError
from lodestar.serving.problems import ProblemError
from lodestar.serving.references import resolve
from lodestar.serving.rehearsal import rehearse
from lodestar.serving.state import Cause, ServedRun, State, dealt_with, refused, swapped
from lodestar.settings.loading import Environment

__all__ = ["Swapped", "Swaps"]

FOLLOWED_WITHIN = 30.0
LOOK_SECONDS = 0.05
UNAVAILABLE = 503


@dataclass(frozen=True)
class Swapped:
    """The champion, and the one before; how many workers there are, and how many have it by now."""

    run: ServedRun
    was: ServedRun
    generation: int
    workers: int
    on_it: int


class Swaps:
    """Changes the champion of all workers, one change at a time."""

    def __init__(self, deployment: Deployment, environment: Environment) -> None:
        self._deployment = deployment
        self._environment = environment
        self._watch_seconds = environment.config.serving.rollback.watch_seconds

    async def swap(self, reference: str) -> Swapped:
        """Make what a reference means the champion.

        Raises:
            ProblemError: 404 no such run, 409 it cannot take the place or another swap is on its way,
                422 no reference, 503 the tracking server does not answer.
        """
        try:
            parse_reference(reference)
        except UsageError as error:
            raise ProblemError(422, "no-reference", "That is no run id and no alias.") from error
        with self._alone():
            try:
                found = await asyncio.to_thread(resolve, self._environment, [reference])
            except LodestarError as error:
                self._deployment.telemetry.swapped("swap", "refused")
                self._deployment.log.event("swap refused", reference=reference, why=error.what)
                raise _problem(error) from error
            return await self._brought_in(found[0], "swap")

    async def follow(self, run: OpenedRun) -> Swapped:
        """Make the champion what the alias means now; a refusal is remembered, and the alias dealt with.

        Raises:
            ProblemError: as `swap`.
        """
        with self._alone():
            return await self._brought_in(run, "follow", followed=run.digest)

    async def roll_back(self) -> State:
        """Let the former champion come back, because somebody asks for it.

        Raises:
            ProblemError: 409 where there is none.
        """
        state = self._deployment.roll_back("asked", "an administrator asked for it")
        await self._deployment.catch_up()
        return state

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._deployment.shared.swapping() as mine:
            if not mine:
                raise ProblemError(409, "swap-under-way", "Another swap is on its way.")
            yield

    async def _brought_in(self, opened: OpenedRun, cause: Cause, followed: str = "") -> Swapped:
        shared, run = self._deployment.shared, ServedRun.of(opened)
        if run.digest == shared.read().champion.digest:
            state = shared.change(partial(dealt_with, followed=followed))
            return await self._when_all_have(state)
        try:
            run = await self._tried(run)
        except (LodestarError, ProblemError) as error:
            problem = error if isinstance(error, ProblemError) else _problem(error)
            self._note(run, problem, cause, followed)
            raise problem from error
        state = shared.change(
            partial(
                swapped, run=run, cause=cause, watch_seconds=self._watch_seconds, followed=followed
            )
        )
        self._deployment.telemetry.swapped(cause, "done")
        await self._deployment.catch_up()
        return await self._when_all_have(state)

    async def _tried(self, run: ServedRun) -> ServedRun:
        """Load it, elsewhere first where that takes long or may go wrong; it answers nobody yet."""
        try:
            lane = await self._deployment.prepare(run, prove=False)
        except NotPlannedError:
            run = (await rehearse(self._environment, run)).run
            lane = await self._deployment.prepare(run)
        await lane.version.warm()
        return run

    def _note(self, run: ServedRun, problem: ProblemError, cause: Cause, followed: str) -> None:
        """Remember that a run was not brought in; an alias is tried again if that may help."""
        again = problem.status == UNAVAILABLE
        deployment = self._deployment
        deployment.telemetry.swapped(cause, "failed" if again else "refused")
        deployment.log.event("swap refused", run_id=run.run_id, cause=cause, why=problem.detail)
        deployment.shared.change(
            partial(
                refused,
                run_id=run.run_id,
                why=problem.detail,
                followed="" if again else followed,
            )
        )

    async def _when_all_have(self, state: State) -> Swapped:
        """Wait until every worker answers with it, so that whoever asks next is answered by it."""
        until = monotonic() + FOLLOWED_WITHIN
        while True:
            found = self._deployment.shared.generations().values()
            on_it = sum(generation >= state.generation for generation in found)
            if on_it == len(found) or monotonic() > until:
                was = state.former or state.champion
                return Swapped(state.champion, was, state.generation, len(found), on_it)
            await asyncio.sleep(LOOK_SECONDS)


def _problem(error: LodestarError) -> ProblemError:
    """What an administrator is told."""
    if isinstance(error, UsageError):
        return ProblemError(404, "no-such-run", "There is no such run, or more than one.")
    if isinstance(error, ArtifactError):
        return ProblemError(409, "artifact-rejected", error.what)
    if isinstance(error, ExternalError):
        return ProblemError(
            UNAVAILABLE,
            "dependency-unavailable",
            "Something this needs does not answer.",
            headers=RETRY,
        )
    return ProblemError(409, "not-servable", "The run cannot be served; the log says why.")
