"""A batch whose scored parts are kept until it is published, so that it can be gone on with."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from lodestar.adapters.files.folder import PartFolder
from lodestar.adapters.files.parts import PartFiles
from lodestar.artifact.folders import held
from lodestar.errors import DataError, IncompleteError, UsageError, first_line
from lodestar.interface.parts import FailedPart, PartExecutor, PartTask, WrittenFile
from lodestar.interface.progress import Progress
from lodestar.pipelines.batch_rows import BatchRows
from lodestar.pipelines.stream import ahead

__all__ = ["KeptBatch", "kept_batch"]

FOLDER = ".lodestar/batches"
SHOWN = 5  # failed parts, in words


@contextmanager
def kept_batch(
    project: Path, name: str, about: Mapping[str, Any], tell: Progress, *, resume: bool
) -> Iterator["KeptBatch"]:
    """The parts of the batch that `about` describes; they go when it has been published.

    Raises:
        UsageError: another command is at this batch.
    """
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    folder = project / FOLDER / f"{name}-{digest[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder, alone=True) as mine:
        if not mine:
            raise UsageError(
                "another command is scoring the same batch", where=str(folder), hint="wait for it"
            )
        files = PartFiles(folder, about)
        there = files.start(resume=resume)
        if resume:
            tell.note(
                f"going on with a batch of which {there} parts are there"
                if there
                else "nothing is kept of such a batch: it begins anew"
            )
        try:
            yield KeptBatch(files, tell)
        except KeyboardInterrupt as error:
            kept = f"{len(files)} scored parts are kept: batch-inference --resume goes on"
            raise KeyboardInterrupt(kept) from error
        files.remove()


class KeptBatch:
    """Scores what is missing, and gives all of it in order."""

    def __init__(self, files: PartFiles, tell: Progress) -> None:
        self._files = files
        self._tell = tell
        self._failed: list[FailedPart] = []
        self._seen = self._next = 0
        self.rows = 0
        self.unknown: dict[str, int] = {}
        self.filled: dict[str, int] = {}
        self.watched: list[Mapping[str, Any]] = []
        self.written: dict[str, list[WrittenFile]] = {}

    def run(
        self,
        executor: PartExecutor,
        batch: BatchRows,
        write: Callable[[Mapping[str, pa.RecordBatch]], None],
        *,
        folders: Mapping[str, PartFolder],
    ) -> None:
        """Score the missing parts, and write each as soon as all before it are there.

        Parts that went to `folders` when they were scored are named in `written` in place of that.

        Raises:
            IncompleteError: parts failed; the others are kept.
            DataError: what was kept is of other rows.
        """
        shown = _Shown(self._tell, batch, executor.workers)
        with ahead(batch.tasks) as tasks:
            for outcome in executor.scored(self._missing(tasks, shown, batch, folders)):
                if isinstance(outcome, FailedPart):
                    self._failed.append(outcome)
                    self._tell.note(f"{outcome.task} failed: {first_line(outcome.error)}")
                else:
                    self._files.add(outcome)
                    shown.done(outcome.rows)
                self._write_next(write)
        self._write_next(write)
        if self._failed:
            raise self._incomplete()
        if self._seen != len(self._files) and not batch.moving:
            raise self._others("there are more of them kept than there are now")

    def _missing(
        self,
        tasks: Iterator[PartTask],
        shown: "_Shown",
        batch: BatchRows,
        folders: Mapping[str, PartFolder],
    ) -> Iterator[PartTask]:
        """What is to be scored. Of rows that move, kept parts count that are those of now."""
        changed = 0
        for task in tasks:
            kept = task.number in self._files
            if kept and not self._still_there(task.number, folders):
                self._files.drop(task.number)
                kept = False
            if kept and self._files[task.number].input == task.rows.digest():
                shown.done(task.rows.rows, again=True)
            elif kept and not batch.moving:
                raise self._others(f"{task} has other rows now")
            else:
                if kept:
                    self._files.drop(task.number)
                    changed += 1
                yield task
            self._seen = task.number + 1
        if changed:
            self._tell.note(f"{changed} kept parts have other rows now, and are scored again")

    def _still_there(self, number: int, folders: Mapping[str, PartFolder]) -> bool:
        """Whether what a part wrote elsewhere is there; a folder is anybody's to clear."""
        written = self._files[number].written
        return all(folders[name].has(file["name"]) for name, file in written.items())

    def _write_next(self, write: Callable[[Mapping[str, pa.RecordBatch]], None]) -> None:
        # What is kept and was not yet held against the rows of now is not known to belong to them.
        while self._next < self._seen and self._next in self._files:
            part = self._files[self._next]
            for frames in self._files.read(self._next):
                write(frames)
            for name, file in part.written.items():
                self.written.setdefault(name, []).append(WrittenFile(**file))
            self.rows += part.rows
            for total, counts in ((self.unknown, part.unknown), (self.filled, part.filled)):
                for name, count in counts.items():
                    total[name] = total.get(name, 0) + count
            if part.watched is not None:
                self.watched.append(part.watched)
            self._next += 1

    def _incomplete(self) -> IncompleteError:
        failed = sorted(self._failed, key=lambda part: part.task.number)
        lines = [
            f"{part.task}, tried {part.attempts} ×: {first_line(part.error)}"
            for part in failed[:SHOWN]
        ]
        more = [f"and {len(failed) - SHOWN} more"] if len(failed) > SHOWN else []
        return IncompleteError(
            f"{len(failed)} of {len(failed) + len(self._files)} parts cannot be scored, so nothing "
            "was published; the others are kept:\n  " + "\n  ".join(lines + more),
            hint="put these rows right, then batch-inference --resume scores only these parts",
        )

    @staticmethod
    def _others(why: str) -> DataError:
        return DataError(
            f"the rows are not those of the batch to go on with: {why}",
            hint="leave --resume out to score all of them; SQL gives the same rows each time only "
            "with an ORDER BY",
        )


class _Shown:
    """Parts, rows, their speed and the time left, on a line that moves."""

    def __init__(self, tell: Progress, batch: BatchRows, workers: int) -> None:
        self._tell, self._batch, self._workers = tell, batch, workers
        self._parts = self._rows = self._again = 0
        self._began = time.monotonic()

    def done(self, rows: int, *, again: bool = False) -> None:
        """Another part is there; one that was there `again` says nothing about the speed."""
        self._parts += 1
        self._rows += rows
        self._again += rows if again else 0
        total, parts = self._batch.rows, self._batch.parts
        speed = (self._rows - self._again) / max(time.monotonic() - self._began, 1e-9)
        left = f", {(total - self._rows) / speed:.0f} s left" if total and speed else ""
        self._tell.detail(
            f"{self._parts:,}{f' of {parts:,}' if parts else ''} parts, "
            f"{self._rows:,}{f' of {total:,}' if total else ''} rows, {speed:,.0f} rows/s{left}, "
            f"{self._workers} workers"
        )
