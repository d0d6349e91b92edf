"""Trials on this machine: one thread here, or worker processes that share the data by memory map."""

import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import forkserver
from multiprocessing.connection import Pipe, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

from lodestar.core.tuning.problem import TrialProblem
from lodestar.errors import ExternalError
from lodestar.execution.worker import SharedProblem, serve, serve_shared
from lodestar.interface.execution import (
    TrialExecutor,
    TrialOutcome,
    TrialReport,
    TrialTask,
    Verdict,
)

__all__ = ["local_executor"]

# Seconds: for an idle worker to end, and for a busy one to see by itself that its time is up.
GRACE, LATE = 5.0, 1.0
FOLDER = "lodestar-search-"


@contextmanager
def local_executor(problem: TrialProblem, *, workers: int, threads: int) -> Iterator[TrialExecutor]:
    """One worker is a thread of this process; more are processes, each of which may die alone.

    `threads` is what a process may use of OpenMP and BLAS; a thread here changes nothing.

    Raises:
        ExternalError: there is no room for the rows that processes share.
    """
    if workers == 1:
        with _closing(_Pool(1, lambda: _Thread(problem))) as pool:
            yield pool
        return
    _remove_orphans()
    with tempfile.TemporaryDirectory(prefix=f"{FOLDER}{os.getpid()}-") as folder:
        table = Path(folder) / "rows.arrow"
        _write(problem.inputs, table)
        shared = SharedProblem(table, replace(problem, inputs=problem.inputs.slice(0, 0)))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["lodestar.execution.worker", problem.learner.family.cls.__module__]
        )
        with _uninterrupted():
            forkserver.ensure_running()
        with _closing(_Pool(workers, lambda: _Process(context, shared, threads))) as pool:
            yield pool


class _Thread:
    """A worker that cannot be killed: it is told to stop, and is waited for where it must be."""

    killable = False

    def __init__(self, problem: TrialProblem) -> None:
        self.connection, there = Pipe()
        self._halted = threading.Event()
        self._thread = threading.Thread(
            target=serve, args=(there, problem, self._halted.is_set), name="trials", daemon=True
        )
        self._thread.start()

    def halt(self) -> None:
        self._halted.set()

    def gone(self) -> str:
        return "ended the thread"

    def close(self, *, busy: bool) -> None:
        self._halted.set()
        self.connection.close()
        if not busy:
            self._thread.join(GRACE)


class _Process:
    """A worker that may die, or be killed, without anything else."""

    killable = True

    def __init__(self, context: Any, shared: SharedProblem, threads: int) -> None:  # noqa: ANN401 -- a context class without a public name
        self.connection, there = Pipe()
        self._process: BaseProcess = context.Process(
            target=serve_shared, args=(there, shared), kwargs={"threads": threads}, daemon=True
        )
        self._process.start()
        there.close()

    def halt(self) -> None:
        self._process.kill()

    def gone(self) -> str:
        self._process.join(GRACE)
        code = self._process.exitcode
        return f"was killed by signal {-code}" if code and code < 0 else f"exited with {code}"

    def close(self, *, busy: bool) -> None:
        self.connection.close()
        if busy:
            self._process.kill()
        self._process.join(GRACE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@dataclass
class _Seat:
    """A worker and the trial that it runs."""

    worker: _Thread | _Process
    number: int | None = None
    due: float | None = None
    halted: bool = False


class _Pool:
    """Workers behind connections; one that is gone is replaced, and its trial has failed."""

    def __init__(self, workers: int, spawn: Callable[[], _Thread | _Process]) -> None:
        self.capacity = workers
        self._spawn = spawn
        self._seats = [_Seat(spawn()) for _ in range(workers)]
        self._halted = False

    def submit(self, task: TrialTask, *, seconds: float | None) -> None:
        seat = next(seat for seat in self._seats if seat.number is None)
        seat.number = task.number
        seat.due = None if seconds is None else time.monotonic() + seconds
        try:
            seat.worker.connection.send((task, seconds))
        except (BrokenPipeError, ConnectionResetError):
            return  # it died between two trials; `events` finds that out and replaces it

    def events(self, *, timeout: float) -> list[TrialReport | TrialOutcome]:
        self._halt_late()
        busy = {seat.worker.connection: seat for seat in self._seats if seat.number is not None}
        found: list[TrialReport | TrialOutcome] = []
        for connection in wait(list(busy), timeout):
            seat = busy[connection]  # type: ignore[index]  # wait returns what it was given
            try:
                event = seat.worker.connection.recv()
            except (EOFError, ConnectionResetError):
                event = self._replace(seat)
            if isinstance(event, TrialOutcome):
                seat.number = None
                self._renew(seat)
            found.append(event)
        return found

    def answer(self, number: int, verdict: Verdict) -> None:
        seat = next(seat for seat in self._seats if seat.number == number)
        try:
            seat.worker.connection.send(verdict)
        except (BrokenPipeError, ConnectionResetError):
            return  # it died while it waited; `events` says so

    def halt(self) -> None:
        self._halted = True
        for seat in self._seats:
            self._halt(seat)

    def close(self) -> None:
        for seat in self._seats:
            seat.worker.close(busy=seat.number is not None)

    def _halt(self, seat: _Seat) -> None:
        if seat.number is not None and not seat.halted:
            seat.halted = True
            seat.worker.halt()

    def _halt_late(self) -> None:
        """Kill what has not seen by itself that its time is up, such as one long call of `fit`."""
        now = time.monotonic()
        for seat in self._seats:
            if seat.due is not None and now > seat.due + LATE and seat.worker.killable:
                self._halt(seat)

    def _replace(self, seat: _Seat) -> TrialOutcome:
        number, how = seat.number or 0, seat.worker.gone()
        if seat.halted:
            return TrialOutcome(number, "stopped", None, 0.0)
        seat.halted = True
        return TrialOutcome(number, "failed", None, 0.0, f"its worker {how}")

    def _renew(self, seat: _Seat) -> None:
        """Put a new worker where the last one is gone, or about to be."""
        if seat.halted and not self._halted:
            seat.worker.close(busy=False)
            seat.worker, seat.halted = self._spawn(), False


@contextmanager
def _closing(pool: _Pool) -> Iterator[_Pool]:
    try:
        yield pool
    finally:
        pool.close()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Start what inherits that Ctrl-C is ignored, so that workers being born do not die of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _write(table: pa.Table, path: Path) -> None:
    try:
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    except OSError as error:
        raise ExternalError(
            f"the rows that the workers share cannot be written: {error}",
            where=str(path.parent),
            hint="make room there, set TMPDIR, or set parallelization.n_jobs to 1",
        ) from error


def _remove_orphans() -> None:
    """Remove what killed commands have left."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*"):
        owner = folder.name.removeprefix(FOLDER).split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)
