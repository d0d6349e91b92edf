"""Finished trainings that are not in the tracking store yet: `.lodestar/pending/<run name>-<id>/`.

A training for a server is written here first, and removed when it is published. So whatever happens to
the server or to the process in between, nothing is lost.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lodestar.artifact.folders import discard, held, new_folder, remove_left_over
from lodestar.artifact.packaging import ModelIdentity
from lodestar.artifact.staging import RunRecord, StagedRun, read_staged, stage
from lodestar.errors import ArtifactError

__all__ = ["PendingRuns", "Waiting"]

LONGEST = 150


@dataclass(frozen=True)
class Waiting:
    """The trainings of one environment that wait, and the folders that cannot be read."""

    runs: tuple[StagedRun, ...]
    damaged: tuple[ArtifactError, ...]


class PendingRuns:
    """One folder per training; a process that is at work on one holds it."""

    def __init__(self, root: Path, environment: str) -> None:
        self._root = root
        self._environment = environment

    @contextmanager
    def added(
        self,
        record: RunRecord,
        *,
        package: Callable[[Path, ModelIdentity], str],
        report: Callable[[str, str], str],
    ) -> Iterator[StagedRun]:
        """Write a training down, whole or not at all, and hold it."""
        with new_folder(self._root) as aside:
            staged = stage(aside, self._environment, record, package=package, report=report)
            name = re.sub(r"[^A-Za-z0-9_.-]", "_", record.name)[:LONGEST].lstrip(".")
            folder = self._root / f"{name}-{staged.pending_id[:8]}"
            aside.rename(folder)
            yield replace(staged, folder=folder)

    def waiting(self) -> Waiting:
        """All of them, the oldest first; another process may be at work on one."""
        runs: list[StagedRun] = []
        damaged: list[ArtifactError] = []
        if self._root.is_dir():
            remove_left_over(self._root)
        for folder in sorted(self._root.glob("[!.]*/")):
            try:
                runs.append(read_staged(folder))
            except ArtifactError as error:
                if folder.is_dir():  # else it was published meanwhile
                    damaged.append(error)
        own = (run for run in runs if run.environment == self._environment)
        return Waiting(tuple(sorted(own, key=lambda run: run.started)), tuple(damaged))

    @contextmanager
    def taken(self, run: StagedRun) -> Iterator[bool]:
        """Hold one; tells False where another process is at work on it, or has published it."""
        with held(run.folder, alone=True) as mine:
            yield mine

    def remove(self, run: StagedRun) -> None:
        """Forget one that was published."""
        discard(run.folder)
