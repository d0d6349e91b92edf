"""One worker's part in what all workers serve: its fleet follows the state that they share."""

import asyncio
import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic

import msgspec

from lodestar.artifact.register import OpenedRun
from lodestar.errors import ArtifactError, LodestarError, UsageError
from lodestar.serving.access_log import Log
from lodestar.serving.fleet import Fleet, Lane, Share
from lodestar.serving.loading import VersionLoader, contract_differences
from lodestar.serving.order import ServeOrder
from lodestar.serving.problems import ProblemError
from lodestar.serving.references import in_use
from lodestar.serving.request_model import RequestModel
from lodestar.serving.scoring import Row
from lodestar.serving.shadow import Shadow
from lodestar.serving.state import ServedRun, SharedState, State, proven, rolled_back
from lodestar.serving.telemetry import Unheard
from lodestar.serving.version import RowAnswer, ServedVersion
from lodestar.serving.watch import Watch
from lodestar.settings.loading import Environment

__all__ = ["Deployment"]

POLL_SECONDS = 0.25
RETRY_SECONDS = 5.0
# While a thread loads, the event loop gets its turn within this, and not after Python's 5 ms.
SWITCH_SECONDS = 0.0005
# A worker may die by accident while its model is new; with the second one the model goes.
MOST_STARTS = 2


@dataclass(frozen=True)
class _Kept:
    """A loaded lane, and what keeps its artifact in the cache meanwhile."""

    lane: Lane
    artifact: ExitStack


class Deployment:
    """Loads what the shared state says, swaps between two ticks of the event loop, lets go of the rest.

    After a swap the former champion stays loaded as long as the new one is watched, so that it is back
    at once. A version that answers no more is closed when no request can wait for it any longer.
    """

    def __init__(
        self, order: ServeOrder, environment: Environment, loader: VersionLoader, log: Log
    ) -> None:
        self.shared = SharedState(order.state)
        self.log = log
        self.telemetry = loader.telemetry
        self.watch: Watch | None = None
        self.follows = order.follow
        self.traffic = order.traffic if order.challenger else None
        self._order = order
        self._environment = environment
        self._settings = environment.config.serving
        self._loader = loader
        self._fleet: Fleet | None = None
        self._generation = -1
        self._former: Lane | None = None
        self._kept: dict[str, _Kept] = {}
        self._turn = asyncio.Lock()
        self._loading = asyncio.Lock()
        self._retiring: dict[asyncio.Task[None], _Kept] = {}

    @property
    def fleet(self) -> Fleet:
        """The models, once they are loaded; the edge lets no request in before."""
        if self._fleet is None:
            raise RuntimeError("asked before the models were loaded")
        return self._fleet

    async def open(self) -> None:
        """Load what all workers serve now, which need not be what the server was started with.

        Raises:
            UsageError: challenger or shadow are asked otherwise than the champion.
            ArtifactError: a run's artifact is rejected.
        """
        state = self._begun()
        try:
            champion = self._loaded(state.champion, "champion")
        except ArtifactError as error:
            if state.former is None:
                raise
            state = self.roll_back("loading", error.what, generation=state.generation)
            champion = self._loaded(state.champion, "champion")
        order, request = self._order, champion.version.request
        challenger = shadow = None
        if order.challenger is not None:
            version = self._beside("challenger", order.challenger, champion.version)
            challenger = self._lane(version)
        if order.shadow is not None:
            shadow = Shadow(self._beside("shadow", order.shadow, champion.version), self.telemetry)
        share = Share(request, order.traffic)
        self._fleet = Fleet(champion, challenger=challenger, share=share, shadow=shadow)
        self._answer_with(champion, state)
        self.shared.change(partial(proven, run=_as_proven(state.champion, champion.version)))
        # What is loaded now stays: nobody need look through it for garbage, which takes 0.1 s at a time.
        gc.collect()
        gc.freeze()

    async def keep_up(self) -> None:
        """Follow the shared state, and judge a new champion, until this is cancelled."""
        behind = False
        while True:
            await asyncio.sleep(RETRY_SECONDS if behind else POLL_SECONDS)
            try:
                if self.shared.has_changed() or behind:
                    await self.catch_up()
                behind = False
                await self._judge()
            except Exception as error:  # noqa: BLE001 -- an edge: the worker serves on with what it has
                behind = True
                self.log.event("the worker cannot follow", level="error", error=error)

    async def catch_up(self) -> None:
        """Answer with what the shared state says from now on."""
        async with self._turn:
            state = self.shared.read()
            if state.generation == self._generation:
                return
            try:
                lane = await self.prepare(state.champion)
            except (LodestarError, ProblemError) as error:
                if not state.watched:
                    raise
                self.log.event("a worker cannot load the champion", level="error", error=error)
                state = self.roll_back(
                    "loading", "a worker could not load it", generation=state.generation
                )
                lane = await self.prepare(state.champion)
            self._answer_with(lane, state)

    async def prepare(self, run: ServedRun, *, prove: bool = True) -> Lane:
        """A lane with this run, loaded by a thread where it is not yet; nobody is asked by it.

        Raises:
            ProblemError: 409 where it is asked otherwise than the present champion.
            ArtifactError: it is rejected.
            NotPlannedError: nobody has proven how it is scored, and this one is not to `prove` it.
        """
        async with self._loading:
            kept = self._kept.get(run.digest)
            if kept is not None:
                return kept.lane
            present = self.fleet.champion.version
            with _short_turns():
                lane = await asyncio.to_thread(
                    self._loaded, run, "champion", like=present.request, prove=prove
                )
        differences = contract_differences(present, lane.version)
        if differences:
            self.tidy()
            raise ProblemError(
                409,
                "other-contract",
                "The run is not asked as the present champion is: " + "; ".join(differences),
            )
        return lane

    def roll_back(self, reason: str, said: str, *, generation: int | None = None) -> State:
        """Let all workers go back to the former champion; they do within a second.

        Raises:
            ProblemError: 409 where there is none, or `generation` is not the present one any more.
        """
        state = self.shared.change(
            partial(rolled_back, reason=reason, said=said, generation=generation)
        )
        self.telemetry.rolled_back(reason)
        self.log.event("rolled back", reason=reason, said=state.said, run_id=state.champion.run_id)
        return state

    def tidy(self) -> None:
        """Let go of every version that answers nobody, when the last request can have been answered."""
        needed = {self.fleet.champion, self._former}
        for digest, kept in list(self._kept.items()):
            if kept.lane not in needed:
                task = asyncio.get_running_loop().create_task(self._retire(kept))
                self._retiring[task] = self._kept.pop(digest)
                task.add_done_callback(self._retiring.pop)

    async def close(self) -> None:
        """Let go of everything; nobody asks any more."""
        retiring = dict(self._retiring)
        for task in retiring:
            task.cancel()
        if retiring:
            await asyncio.wait(retiring)
        for kept in (*self._kept.values(), *retiring.values()):
            await _close(kept)
        fleet = self.fleet
        if fleet.challenger is not None:
            await fleet.challenger.version.close()
        if fleet.shadow is not None:
            await fleet.shadow.close()
        self.shared.close()

    def _begun(self) -> State:
        """The state; a start while the champion is new means that a worker of its has died."""

        def made(state: State) -> State:
            return (
                msgspec.structs.replace(state, starts=state.starts + 1) if state.watched else state
            )

        state = self.shared.change(made)
        if not state.watched or state.starts < MOST_STARTS:
            return state
        words = f"{state.starts} workers ended by themselves while they had it"
        return self.roll_back("starts", words, generation=state.generation)

    def _answer_with(self, lane: Lane, state: State) -> None:
        """From the next row on; those that the former champion was asked, it still answers."""
        fleet, run = self.fleet, state.champion
        former, fleet.champion = fleet.champion, lane
        self._generation = state.generation
        lane.recent.begin()
        self.watch = self._former = None
        if state.watched and former is not lane:
            self._former = former
            self.watch = Watch(
                self._settings.rollback,
                former.recent.all(),
                lane.recent,
                former=partial(self._could_answer, former.version),
                new=partial(self._could_answer_by_now, lane.version),
                now=monotonic(),
            )
        self.telemetry.model("champion", run.run_id, run.digest)
        self.telemetry.generation(state.generation)
        self.shared.tell(state.generation)
        self.log.event(
            "champion",
            level="info",
            run_id=run.run_id,
            digest=run.digest,
            generation=state.generation,
            cause=state.cause,
        )
        self.tidy()

    async def _judge(self) -> None:
        """See whether a new champion breaks a limit, or has proven itself."""
        watch = self.watch
        if watch is None:
            return
        now, generation = monotonic(), self._generation
        breach = await watch.look(now)
        if breach is not None:
            with suppress(ProblemError):  # another worker was faster
                self.roll_back(breach.reason, breach.words, generation=generation)
            await self.catch_up()
        elif now >= watch.ends and self.watch is watch:
            self.watch = self._former = None
            self.tidy()

    async def _could_answer_by_now(self, version: ServedVersion, rows: Sequence[Row]) -> int:
        """As below, but when a store that has just come back is asked again."""
        could = await self._could_answer(version, rows)
        if could == len(rows):
            return could
        await asyncio.sleep(self._settings.online.pause_seconds + POLL_SECONDS)
        return max(could, await self._could_answer(version, rows))

    async def _could_answer(self, version: ServedVersion, rows: Sequence[Row]) -> int:
        """How many of some rows a version answers."""
        try:
            async with asyncio.timeout(self._settings.limits.answer_seconds):
                replies = await version.answer(rows)
        except Exception:  # noqa: BLE001 -- an edge: it answers, or it does not
            return 0
        return sum(isinstance(reply, RowAnswer) for reply in replies)

    def _loaded(
        self, run: ServedRun, role: str, *, like: RequestModel | None = None, prove: bool = True
    ) -> Lane:
        """A new lane; its artifact is held in the cache until it is closed."""
        artifact = ExitStack()
        with artifact:
            artifact.enter_context(in_use(self._environment, [run.opened()]))
            version, notes = self._loader.load(run, like=like, prove=prove)
            lane = self._lane(version)
            self._kept[run.digest] = _Kept(lane, artifact.pop_all())
        self._tell(notes, run.run_id, role)
        return lane

    def _beside(self, role: str, run: OpenedRun, champion: ServedVersion) -> ServedVersion:
        """What is started together with the champion."""
        loader = self._loader
        if role == "shadow":
            loader = replace(loader, telemetry=Unheard())
        version, notes = loader.load(ServedRun.of(run), like=champion.request)
        differences = contract_differences(champion, version)
        if differences:
            raise UsageError(
                f"run {run.run_id} cannot be the {role} of run {champion.run.run_id}: "
                + "; ".join(differences),
                hint="both must take the same request and predict the same kind of thing",
            )
        self._tell(notes, run.run_id, role)
        self.telemetry.model(role, run.run_id, run.digest)
        return version

    def _lane(self, version: ServedVersion) -> Lane:
        return Lane.of(version, most=self._settings.batching.rows)

    def _tell(self, notes: Sequence[str], run_id: str, role: str) -> None:
        for note in notes:
            self.log.event(note, run_id=run_id, role=role)

    async def _retire(self, kept: _Kept) -> None:
        await asyncio.sleep(self._settings.limits.answer_seconds + 1)
        await _close(kept)


def _as_proven(run: ServedRun, version: ServedVersion) -> ServedRun:
    scorer = version.scorer
    return msgspec.structs.replace(run, scoring=scorer.name, why_not_faster=scorer.reason)


async def _close(kept: _Kept) -> None:
    await kept.lane.version.close()
    kept.artifact.close()


@contextmanager
def _short_turns() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
