"""Trials on Ray: an actor runs one at a time; the rows lie once on each node, in its object store."""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from lodestar.core.models.watching import StoppedError
from lodestar.core.tuning.problem import TrialProblem
from lodestar.errors import ExternalError, UnreachableError
from lodestar.execution.ray_cluster import connected, reason_of, workers_of
from lodestar.execution.ray_worker import identity
from lodestar.interface.execution import (
    TrialExecutor,
    TrialOutcome,
    TrialReport,
    TrialTask,
    Verdict,
)
from lodestar.settings.execution import RayCluster

__all__ = ["RayTrials", "ray_executor"]

LATE = 1.0  # seconds: for a busy worker to see by itself that its time is up
STARTS = 3  # workers that may end one after another before they are ready


@contextmanager
def ray_executor(
    problem: TrialProblem, settings: RayCluster, *, workers: int | None
) -> Iterator[TrialExecutor]:
    """Workers of a cluster; as many as fit, where it is not said how many.

    Raises:
        UsageError: Ray is not installed.
        ExternalError: the cluster does not answer, is of another version, or has no room.
    """
    with connected(settings) as ray:
        count = workers or workers_of(ray, settings)
        pool = RayTrials(ray, problem, settings, workers=count)
        try:
            yield pool
        finally:
            pool.close()


class TrialWorker:
    """An actor's state. Each call goes on until the trial has something to say."""

    def __init__(self, problem: TrialProblem, threads: int) -> None:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no types

        pa.set_cpu_count(threads)
        self._limits = threadpool_limits(threads)
        self._problem = problem
        self._events: queue.Queue[TrialReport | TrialOutcome] = queue.Queue()
        self._verdicts: queue.Queue[Verdict] = queue.Queue()

    def identity(self) -> str:
        """The versions here."""
        return identity()

    def run(self, task: TrialTask, seconds: float | None) -> TrialReport | TrialOutcome:
        """Start a trial; its first report, or how it ended."""
        threading.Thread(target=self._run, args=(task, seconds), daemon=True).start()
        return self._events.get()

    def answer(self, verdict: Verdict) -> TrialReport | TrialOutcome:
        """Answer a report; the next one, or how it ended."""
        self._verdicts.put(verdict)
        return self._events.get()

    def _run(self, task: TrialTask, seconds: float | None) -> None:
        due = None if seconds is None else time.monotonic() + seconds

        def tell(step: int, value: float) -> None:
            self._events.put(TrialReport(task.number, step, value))
            if self._verdicts.get() != "go on":
                raise StoppedError

        def overdue() -> bool:
            return due is not None and time.monotonic() >= due

        try:
            self._events.put(self._problem.run(task, tell, overdue))
        except SystemExit:  # an estimator that ends its process ends this one
            os._exit(1)


@dataclass
class _Seat:
    """A worker, the trial that it runs, and what it is asked for."""

    actor: Any
    ready: Any
    is_ready: bool = False
    number: int | None = None
    event: Any = None
    due: float | None = None


class RayTrials:
    """Keeps the seats filled; what a worker was at when it died has failed, nothing else."""

    def __init__(
        self,
        ray: Any,  # noqa: ANN401 -- the module
        problem: TrialProblem,
        settings: RayCluster,
        *,
        workers: int,
    ) -> None:
        self._ray = ray
        self._settings = settings
        problem_there = ray.put(problem)
        worker = ray.remote(num_cpus=settings.cpus_per_worker, max_restarts=0)(TrialWorker)
        self._spawn: Callable[[], Any] = partial(
            worker.remote, problem_there, settings.cpus_per_worker
        )
        self._halted = False
        self._ended_early = 0
        self._seats = [self._seat() for _ in range(workers)]
        self._await_workers()

    @property
    def capacity(self) -> int:
        """How many workers are ready; where a node is gone, fewer than there were."""
        return max(1, sum(seat.is_ready for seat in self._seats))

    def submit(self, task: TrialTask, *, seconds: float | None) -> None:
        """Start a trial on a free worker, a ready one if there is any."""
        free = [seat for seat in self._seats if seat.number is None]
        seat = max(free, key=lambda seat: seat.is_ready)
        seat.number = task.number
        seat.due = None if seconds is None else time.monotonic() + seconds
        seat.event = seat.actor.run.remote(task, seconds)

    def events(self, *, timeout: float) -> list[TrialReport | TrialOutcome]:
        """Wait for news."""
        self._look_who_is_ready()
        found = self._ended_by_us()
        busy = {seat.event: seat for seat in self._seats if seat.number is not None}
        if found or not busy:
            return found
        ended, _ = self._ray.wait(list(busy), num_returns=1, timeout=timeout)
        for reference in ended:
            seat = busy[reference]
            try:
                event = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                number = seat.number or 0
                self._replace(seat)
                event = TrialOutcome(
                    number, "failed", None, 0.0, f"its worker is gone: {reason_of(error)}"
                )
            if isinstance(event, TrialOutcome):
                seat.number = seat.event = seat.due = None
            found.append(event)
        return found

    def answer(self, number: int, verdict: Verdict) -> None:
        """Answer a report."""
        seat = next(seat for seat in self._seats if seat.number == number)
        seat.event = seat.actor.answer.remote(verdict)

    def halt(self) -> None:
        """Stop what runs."""
        self._halted = True

    def close(self) -> None:
        """End all workers."""
        for seat in self._seats:
            self._ray.kill(seat.actor)
        self._seats = []

    def _seat(self) -> _Seat:
        actor = self._spawn()
        return _Seat(actor, actor.identity.remote())

    def _replace(self, seat: _Seat) -> None:
        self._ray.kill(seat.actor)
        other = self._seat()
        seat.actor, seat.ready, seat.is_ready = other.actor, other.ready, False

    def _ended_by_us(self) -> list[TrialReport | TrialOutcome]:
        """Kill what shall stop, or has not seen that its time is up, such as one long call of `fit`."""
        now = time.monotonic()
        found: list[TrialReport | TrialOutcome] = []
        for seat in self._seats:
            late = seat.due is not None and now > seat.due + LATE
            if seat.number is not None and (late or self._halted):
                found.append(TrialOutcome(seat.number, "stopped", None, 0.0))
                self._replace(seat)
                seat.number = seat.event = seat.due = None
        return found

    def _await_workers(self) -> None:
        """Wait until all are ready, or time is up and some are.

        Raises:
            UnreachableError: none is.
            ExternalError: they cannot be, or have another version.
        """
        waiting = [seat.ready for seat in self._seats]
        self._ray.wait(waiting, num_returns=len(waiting), timeout=self._settings.timeout)
        self._look_who_is_ready()
        if not any(seat.is_ready for seat in self._seats):
            free = self._ray.available_resources().get("CPU", 0)
            raise UnreachableError(
                f"no worker was ready within {self._settings.timeout} s: {free:g} processors of the "
                f"cluster are free, and a worker takes {self._settings.cpus_per_worker}",
                hint="see execution.ray: workers, cpus_per_worker, timeout",
            )

    def _look_who_is_ready(self) -> None:
        waiting = {seat.ready: seat for seat in self._seats if not seat.is_ready}
        if not waiting:
            return
        ready, _ = self._ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        for reference in ready:
            seat = waiting[reference]
            try:
                theirs = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                self._ended_early += 1
                if self._ended_early >= STARTS:
                    raise ExternalError(
                        f"{STARTS} workers ended before they could run a trial: {reason_of(error)}",
                        hint="Lodestar and the project's modules must be on every node",
                    ) from error
                if seat.number is None:  # else `events` says so of its trial, and replaces it
                    self._replace(seat)
                continue
            if theirs != identity():
                raise ExternalError(
                    f"a node of the cluster has {theirs}, and this machine has {identity()}",
                    hint="install the same version on all of them",
                )
            seat.is_ready, self._ended_early = True, 0
