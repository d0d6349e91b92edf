"""Trials on this machine: one thread here, or worker processes that share the data by memory map."""

import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from lodestar.core.tuning.problem import TrialProblem
from lodestar.execution.worker import SharedProblem, serve, serve_shared
from lodestar.interface.execution import (
    TrialExecutor,
    TrialOutcome,
    TrialReport,
    TrialTask,
    Verdict,
)

__all__ = ["local_executor"]

GRACE = 5.0


@contextmanager
def local_executor(problem: TrialProblem, *, workers: int) -> Iterator[TrialExecutor]:
    """One worker is a thread of this process; more are processes, each of which may die alone."""
    if workers == 1:
        pool: _Pool = _Pool([_thread(problem)], respawn=None)
        try:
            yield pool
        finally:
            pool.close()
        return
    with TemporaryDirectory(prefix="lodestar-search-") as folder:
        table = Path(folder) / "rows.arrow"
        with pa.ipc.new_file(str(table), problem.inputs.schema) as writer:
            writer.write_table(problem.inputs)
        shared = SharedProblem(table, replace(problem, inputs=problem.inputs.slice(0, 0)))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["lodestar.execution.worker", problem.learner.family.cls.__module__]
        )

        def spawn() -> _Worker:
            here, there = Pipe()
            process = context.Process(target=serve_shared, args=(there, shared), daemon=True)
            process.start()
            there.close()
            return _Worker(here, process)

        pool = _Pool([spawn() for _ in range(workers)], respawn=spawn)
        try:
            yield pool
        finally:
            pool.close()


@dataclass
class _Worker:
    connection: "Connection[Any, Any]"
    carrier: BaseProcess | threading.Thread
    number: int | None = None


def _thread(problem: TrialProblem) -> _Worker:
    here, there = Pipe()
    thread = threading.Thread(target=serve, args=(there, problem), name="trials", daemon=True)
    thread.start()
    return _Worker(here, thread)


class _Pool:
    """Workers behind connections; one that is gone is replaced, and its trial has failed."""

    def __init__(self, workers: list[_Worker], respawn: Any) -> None:  # noqa: ANN401 -- a callable or None
        self._workers = workers
        self._respawn = respawn
        self.capacity = len(workers)

    def submit(self, task: TrialTask, *, seconds: float | None) -> None:
        worker = next(worker for worker in self._workers if worker.number is None)
        worker.number = task.number
        try:
            worker.connection.send((task, seconds))
        except BrokenPipeError:
            return  # it died between two trials; `events` finds that out and replaces it

    def events(self, *, timeout: float) -> list[TrialReport | TrialOutcome]:
        busy = {worker.connection: worker for worker in self._workers if worker.number is not None}
        found: list[TrialReport | TrialOutcome] = []
        for connection in wait(list(busy), timeout):
            worker = busy[connection]  # type: ignore[index]  # wait returns what it was given
            try:
                event = worker.connection.recv()
            except (EOFError, ConnectionResetError):
                event = self._replace(worker)
            if isinstance(event, TrialOutcome):
                worker.number = None
            found.append(event)
        return found

    def answer(self, number: int, verdict: Verdict) -> None:
        worker = next(worker for worker in self._workers if worker.number == number)
        try:
            worker.connection.send(verdict)
        except BrokenPipeError:
            return  # it died while it waited; `events` says so

    def close(self) -> None:
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.carrier.join(GRACE)
            if isinstance(worker.carrier, BaseProcess) and worker.carrier.is_alive():
                worker.carrier.kill()
                worker.carrier.join()

    def _replace(self, worker: _Worker) -> TrialOutcome:
        worker.carrier.join(GRACE)
        code = getattr(worker.carrier, "exitcode", None)
        how = (
            f"was killed by signal {-code}"
            if code is not None and code < 0
            else f"exited with {code}"
        )
        outcome = TrialOutcome(worker.number or 0, "failed", None, 0.0, f"its worker {how}")
        fresh = self._respawn()
        worker.connection.close()
        worker.connection, worker.carrier = fresh.connection, fresh.carrier
        return outcome
