"""Parts scored by a pool of Ray actors, on this machine or on the nodes of a cluster."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from lodestar.errors import (
    DataError,
    ExternalError,
    LodestarError,
    UnreachableError,
)
from lodestar.execution.ray_cluster import MEGABYTE, connected, reason_of, workers_of
from lodestar.execution.ray_worker import PartWorker, identity
from lodestar.interface.parts import FailedPart, PartTask, ScoredPart, ScorerSource
from lodestar.settings.execution import RayCluster

__all__ = ["RayParts", "ray_parts"]

TICK = 0.5  # seconds: how often it is looked whether somebody is late
AHEAD = 2  # parts given to a worker: the next one's rows travel while it scores one
STARTS = 3  # workers that may end one after another before they have loaded


@contextmanager
def ray_parts(source: ScorerSource, settings: RayCluster) -> Iterator["RayParts"]:
    """A pool of workers that are started when the first part is there.

    Raises:
        UsageError: Ray is not installed.
        ExternalError: the cluster does not answer, is of another version, or has no room.
    """
    with connected(settings) as ray, RayParts(ray, source, settings) as pool:
        yield pool


@dataclass
class _Given:
    """A part on its way through a worker, and how often it was begun before."""

    task: PartTask
    attempts: int


@dataclass
class _Seat:
    """A worker, what it is loading or scoring, in the order in which it was told to."""

    actor: Any
    opening: Any
    opened: bool = False
    given: dict[Any, _Given] = field(default_factory=dict)


class RayParts:
    """Keeps `workers` seats filled; what a worker that is gone had to do goes to the others."""

    def __init__(
        self,
        ray: Any,  # noqa: ANN401 -- the module
        source: ScorerSource,
        settings: RayCluster,
        *,
        worker: type[PartWorker] = PartWorker,
    ) -> None:
        self._ray = ray
        self._settings = settings
        self._bounds = (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError)
        self.workers = workers_of(ray, settings)
        with self._worded():
            self._source = ray.put(source)
        self._worker = ray.remote(
            num_cpus=settings.cpus_per_worker,
            memory=(settings.memory_mb or 0) * MEGABYTE,
            max_restarts=0,
            max_task_retries=0,
        )(worker)
        self._seats: list[_Seat] = []
        self._again: deque[_Given] = deque()
        self._ended_early = 0
        self._alone_since = time.monotonic()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all workers."""
        for seat in self._seats:
            self._ray.kill(seat.actor)
        self._seats = []

    def scored(self, tasks: Iterator[PartTask]) -> Iterator[ScoredPart | FailedPart]:
        """Score all parts; they come back in the order in which they end."""
        self._seats = [self._seat() for _ in range(self.workers)]
        self._alone_since = time.monotonic()
        coming = True
        while True:
            coming = self._give(tasks) if coming else self._give(iter(()))
            if not coming and not self._again and not any(seat.given for seat in self._seats):
                return
            for outcome in self._events():
                # The next part is on its way before whoever asks does anything with this one.
                coming = self._give(tasks) if coming else self._give(iter(()))
                yield outcome

    def _seat(self) -> _Seat:
        actor = self._worker.remote(self._settings.cpus_per_worker)
        actor_identity = actor.identity.remote()
        return _Seat(actor, [actor_identity, actor.open.remote(self._source)])

    def _give(self, tasks: Iterator[PartTask]) -> bool:
        """Give parts to whoever has too few; tells whether there may be more of them."""
        ready = [seat for seat in self._seats if seat.opened]
        for filled in range(AHEAD):
            for seat in ready:
                if len(seat.given) > filled:
                    continue
                given = self._again.popleft() if self._again else None
                if given is None:
                    task = next(tasks, None)
                    if task is None:
                        return False
                    given = _Given(task, 0)
                with self._worded():
                    seat.given[seat.actor.score.remote(given.task)] = given
        return True

    def _events(self) -> Iterator[ScoredPart | FailedPart]:
        """What ended within a tick."""
        waited = {reference: seat for seat in self._seats for reference in seat.given}
        opening = {seat.opening[-1]: seat for seat in self._seats if not seat.opened}
        ended, _ = self._ray.wait([*waited, *opening], num_returns=1, timeout=TICK)
        for reference in ended:
            if reference in opening:
                self._opened(opening[reference])
            else:
                yield from self._scored(waited[reference], reference)
        self._require_somebody()

    def _opened(self, seat: _Seat) -> None:
        """A worker is ready.

        Raises:
            LodestarError: it cannot load what scores; no other one could.
        """
        try:
            theirs, opened = self._ray.get(seat.opening)
        except self._ray.exceptions.RayError as error:
            self._ended_early += 1
            if self._ended_early >= STARTS:
                raise ExternalError(
                    f"{STARTS} workers ended before they could score: {reason_of(error)}",
                    hint="Lodestar must be installed on every node, and a worker needs memory",
                ) from error
            self._replace(seat)
            return
        if theirs != identity():
            raise ExternalError(
                f"a node of the cluster has {theirs}, and this machine has {identity()}",
                hint="install the same version on all of them",
            )
        if isinstance(opened, LodestarError):
            raise opened
        seat.opened, self._ended_early = True, 0

    def _scored(self, seat: _Seat, reference: Any) -> Iterator[ScoredPart | FailedPart]:  # noqa: ANN401 -- Ray's
        try:
            outcome = self._ray.get(reference)
        except self._ray.exceptions.RayActorError as error:
            yield from self._left_behind(seat, error)
        except self._ray.exceptions.RayError as error:
            # What it made went with the node that held it, or could not be sent.
            if isinstance(error, self._bounds):
                raise _full(error) from error
            yield from self._once_more(seat.given.pop(reference), _ended(error))
        else:
            yield from self._settled(seat.given.pop(reference), outcome)

    def _settled(
        self, given: _Given, outcome: ScoredPart | FailedPart
    ) -> Iterator[ScoredPart | FailedPart]:
        if isinstance(outcome, ScoredPart):
            yield outcome
        elif isinstance(outcome.error, DataError):
            yield FailedPart(given.task, outcome.error, given.attempts + 1)
        else:
            yield from self._once_more(given, outcome.error)

    def _once_more(self, given: _Given, error: Exception) -> Iterator[FailedPart]:
        attempts = given.attempts + 1
        if attempts >= self._settings.attempts:
            yield FailedPart(given.task, error, attempts)
        else:
            self._again.append(_Given(given.task, attempts))

    def _left_behind(self, seat: _Seat, error: Exception) -> Iterator[ScoredPart | FailedPart]:
        """A worker is gone: the first part that it has not ended is what it was at."""
        left, seat.given = dict(seat.given), {}
        self._replace(seat)
        blamed = False
        for reference, given in left.items():
            if blamed:
                self._again.append(given)
                continue
            try:
                outcome = self._ray.get(reference)
            except self._ray.exceptions.RayError:
                blamed = True
                yield from self._once_more(given, _ended(error))
            else:
                yield from self._settled(given, outcome)

    def _replace(self, seat: _Seat) -> None:
        self._ray.kill(seat.actor)
        if not any(other.opened for other in self._seats if other is not seat):
            self._alone_since = time.monotonic()
        self._seats[self._seats.index(seat)] = self._seat()

    def _require_somebody(self) -> None:
        """See that somebody can score.

        Raises:
            UnreachableError: for a long time nobody could.
        """
        if any(seat.opened for seat in self._seats):
            return
        waited = time.monotonic() - self._alone_since
        if waited > self._settings.timeout:
            free = self._ray.available_resources().get("CPU", 0)
            raise UnreachableError(
                f"no worker was ready within {self._settings.timeout} s: {free:g} processors of the "
                f"cluster are free, and a worker takes {self._settings.cpus_per_worker}",
                hint="see execution.ray: workers, cpus_per_worker, memory_mb, timeout",
            )

    @contextmanager
    def _worded(self) -> Iterator[None]:
        try:
            yield
        except self._bounds as error:
            raise _full(error) from error


def _full(error: Exception) -> ExternalError:
    return ExternalError(
        f"there is no room in Ray's object store for the rows of a part: {reason_of(error)}",
        hint="set a smaller batch.part_rows, or more of execution.ray.object_store_mb",
    )


def _ended(error: Exception) -> ExternalError:
    return ExternalError(f"each worker that scores it ends: {reason_of(error)}")
