"""Runs trials that come over a connection; reports go back and wait for a verdict."""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pyarrow as pa

from lodestar.core.models.watching import StoppedError
from lodestar.core.tuning.problem import TrialProblem
from lodestar.interface.execution import TrialReport, TrialTask

__all__ = ["SharedProblem", "serve", "serve_shared"]

# What OpenMP and BLAS libraries read when they are loaded.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class SharedProblem:
    """A problem whose table lies in a file that every worker maps into its memory."""

    table: Path
    problem: TrialProblem

    def opened(self) -> TrialProblem:
        """The problem with the mapped table; no row is copied."""
        self.problem.inputs = pa.ipc.open_file(pa.memory_map(str(self.table))).read_all()
        return self.problem


def serve(
    connection: "Connection[Any, Any]", problem: TrialProblem, halted: Callable[[], bool]
) -> None:
    """Run trials until the connection closes, and close it when an estimator ends this worker."""
    try:
        while True:
            task, seconds = connection.recv()
            _serve_one(connection, problem, task, seconds, halted)
    except (EOFError, OSError):
        return  # whoever asked is gone
    finally:
        connection.close()


def _serve_one(
    connection: "Connection[Any, Any]",
    problem: TrialProblem,
    task: TrialTask,
    seconds: float | None,
    halted: Callable[[], bool],
) -> None:
    due = None if seconds is None else time.monotonic() + seconds

    def overdue() -> bool:
        return halted() or (due is not None and time.monotonic() >= due)

    def tell(step: int, value: float) -> None:
        try:
            connection.send(TrialReport(task.number, step, value))
            verdict = connection.recv()
        except (EOFError, OSError) as error:
            raise StoppedError from error
        if verdict != "go on":
            raise StoppedError

    connection.send(problem.run(task, tell, overdue))


def serve_shared(
    connection: "Connection[Any, Any]", shared: SharedProblem, *, threads: int
) -> None:
    """Run trials in a process of its own; Ctrl-C is the main process's business."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no types

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    os.environ |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    problem = shared.opened()
    pa.set_cpu_count(threads)
    with threadpool_limits(threads):
        serve(connection, problem, halted=lambda: False)


def _end_with_parent() -> None:
    """A command that was killed leaves no worker that goes on fitting for nobody."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
