"""Runs trials that come over a connection; reports go back and wait for a verdict."""

from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa

from lodestar.core.models.watching import StoppedError
from lodestar.core.tuning.problem import TrialProblem
from lodestar.interface.execution import TrialReport, TrialTask

__all__ = ["SharedProblem", "serve", "serve_shared"]


@dataclass(frozen=True)
class SharedProblem:
    """A problem whose table lies in a file that every worker maps into its memory."""

    table: Path
    problem: TrialProblem

    def opened(self) -> TrialProblem:
        """The problem with the mapped table; no row is copied."""
        self.problem.inputs = pa.ipc.open_file(pa.memory_map(str(self.table))).read_all()
        return self.problem


def serve(connection: "Connection[Any, Any]", problem: TrialProblem) -> None:
    """Run trials until the connection closes or None comes."""
    while True:
        try:
            message: tuple[TrialTask, float | None] | None = connection.recv()
        except EOFError:
            return
        if message is None:
            return
        task, seconds = message

        def tell(step: int, value: float, number: int = task.number) -> None:
            connection.send(TrialReport(number, step, value))
            if connection.recv() != "go on":
                raise StoppedError

        connection.send(problem.run(task, tell, seconds=seconds))


def serve_shared(connection: "Connection[Any, Any]", shared: SharedProblem) -> None:
    """Run trials in a process of its own; Ctrl-C is the main process's business."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(connection, shared.opened())
