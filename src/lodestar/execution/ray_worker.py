"""What a Ray worker does: load the scorer once, then score the parts that it is given."""

import os
import platform
import traceback
from pathlib import Path
from typing import Any

import pyarrow as pa

from lodestar import __version__
from lodestar.errors import ExternalError, LodestarError
from lodestar.interface.parts import FailedPart, PartScorer, PartTask, ScoredPart, ScorerSource

__all__ = ["PartWorker", "identity"]


def identity() -> str:
    """The versions that both sides of a cluster must have in common."""
    return f"Lodestar {__version__} on Python {platform.python_version()}"


class PartWorker:
    """An actor's state: a process of its own, on some node."""

    def __init__(self, threads: int) -> None:
        pa.set_cpu_count(threads)
        self._score: PartScorer

    def identity(self) -> str:
        """The versions here."""
        return identity()

    def open(self, source: ScorerSource) -> int | LodestarError:
        """Load what scores; returns this process's id, or why it cannot."""
        try:
            self._score = source.open()
        except LodestarError as error:
            return error
        return os.getpid()

    def score(self, task: PartTask) -> ScoredPart | FailedPart:
        """Score a part; what its rows raise goes back in words: its class may exist here alone."""
        try:
            return self._score(task)
        except LodestarError as error:
            return FailedPart(_named(task), error)
        except Exception as error:  # noqa: BLE001 -- the edge to a model's code
            return FailedPart(_named(task), _worded(error))


class _NoRows:
    """In the place of rows that have been seen and need not travel back."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def digest(self) -> str:
        return ""

    def read(self) -> Any:  # noqa: ANN401 -- an iterator of nothing
        return iter(())


def _named(task: PartTask) -> PartTask:
    return PartTask(task.number, task.first_row, _NoRows(task.rows.rows))


def _worded(error: Exception) -> ExternalError:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return ExternalError(
        f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
    )
