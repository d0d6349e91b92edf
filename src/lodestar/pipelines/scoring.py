"""What a worker does with a part: the artifact's logic over its rows, and the frames that come out."""

import io
import os
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from lodestar.adapters.files.folder import PartFolder
from lodestar.artifact.folders import new_folder
from lodestar.artifact.sketches import read_sketches
from lodestar.artifact.wrapper import PyfuncWrapper, ScoredRows, load_wrapper
from lodestar.core.drift.sketches import Reference
from lodestar.core.drift.watched import WatchedRows
from lodestar.core.trees.compiled import CompiledModel
from lodestar.errors import ExternalError
from lodestar.interface.parts import Batches, PartTask, ScoredPart

if TYPE_CHECKING:
    from lodestar.artifact.register import OpenedRun

__all__ = ["ArtifactSource", "FramePlan", "RowScoring", "compiled", "packed"]


@dataclass(frozen=True)
class FramePlan:
    """Which frames are wanted of a run: name → the columns of constants that its rows are marked with.

    `settles`: the rows come as they lie in a file, and missing features are still to be settled.
    `watches`: the rows are counted by the artifact's sketches. `folders`: where frames are written by
    whoever scores them; those of no folder come back.
    """

    run_id: str
    digest: str
    frames: Mapping[str, Mapping[str, str]]
    settles: bool = False
    watches: bool = False
    folders: Mapping[str, PartFolder] = field(default_factory=dict)


class RowScoring:
    """A loaded artifact that scores parts."""

    def __init__(
        self, wrapper: PyfuncWrapper, plan: FramePlan, reference: Reference | None
    ) -> None:
        self._wrapper = wrapper
        self._plan = plan
        self._reference = reference

    @property
    def side_by_side(self) -> bool:
        """Compiled trees are; what other models' code does in two threads, nobody knows."""
        return self._wrapper.fitted.side_by_side

    def __call__(self, task: PartTask) -> ScoredPart:
        """Score a part.

        Raises:
            DataError: a value that training never saw the like of.
        """
        unknown: dict[str, int] = {}
        filled: dict[str, int] = {}
        found: dict[str, list[pa.RecordBatch]] = {name: [] for name in self._plan.frames}
        first = task.first_row
        watched = WatchedRows(self._reference) if self._reference is not None else None
        for batch in self._settled(task, filled):
            scored = self._wrapper.score(batch, first_row=first)
            if watched is not None:
                watched.add(scored.augmented, scored.predictions, first_row=first)
            for column, count in scored.unknown.items():
                unknown[column] = unknown.get(column, 0) + count
            for name, made in self._frames(batch, scored, first).items():
                found[name].append(made)
            first += batch.num_rows
        folders = self._plan.folders
        written = {name: folders[name].write(task.number, found[name]) for name in folders}
        frames = {name: Batches(each) for name, each in found.items() if name not in folders}
        rows = first - task.first_row
        digest = task.rows.digest()
        note = self._wrapper.fitted.doubt
        return ScoredPart(
            task.number, rows, digest, frames, unknown, filled, watched, written, note
        )

    def _settled(self, task: PartTask, filled: dict[str, int]) -> Iterator[pa.RecordBatch]:
        rows = task.rows.read()
        if not self._plan.settles:
            yield from rows
            return
        first = next(rows)

        def all_rows() -> Iterator[pa.RecordBatch]:
            yield first
            yield from rows

        reader = pa.RecordBatchReader.from_batches(first.schema, all_rows())
        augmenter = self._wrapper.trained_augmenter
        with augmenter.augment(reader, filled=filled, first_row=task.first_row) as settled:
            yield from settled

    def _frames(
        self, batch: pa.RecordBatch, scored: ScoredRows, first_row: int
    ) -> dict[str, pa.RecordBatch]:
        makers = {
            "predictions": lambda: self._predictions(batch, scored, first_row),
            "augmented": lambda: scored.augmented,
            "preprocessed": lambda: pa.RecordBatch.from_pandas(
                scored.features.frame(), preserve_index=False
            ),
        }
        return {name: _marked(makers[name](), mark) for name, mark in self._plan.frames.items()}

    def _predictions(
        self, batch: pa.RecordBatch, scored: ScoredRows, first_row: int
    ) -> pa.RecordBatch:
        """Keys, what the model says, and which run of which artifact said it."""
        carried = [
            name for name in self._wrapper.contents.roles.carried if name in batch.schema.names
        ]
        columns = {name: batch.column(name) for name in carried}
        if not columns:
            columns["row"] = pa.array(np.arange(first_row, first_row + batch.num_rows))
        columns |= scored.predictions
        columns["run_id"] = _constant(self._plan.run_id, batch.num_rows)
        columns["artifact_digest"] = _constant(self._plan.digest, batch.num_rows)
        return pa.RecordBatch.from_pydict(columns)


@dataclass(frozen=True)
class ArtifactSource:
    """An artifact to be loaded by whoever scores: from its folder, where that is there, or as packed.

    Either way every file is verified against `digest` before anything is loaded. `native`: trees may be
    compiled.
    """

    folder: Path
    digest: str
    plan: FramePlan
    archive: bytes = b""
    native: bool = True
    loaded: PyfuncWrapper | None = field(default=None, compare=False)

    def open(self) -> RowScoring:
        """Verify and load it, unless that was done in this process.

        Raises:
            ArtifactError: it is not what it was, or cannot be loaded here.
        """
        if self.loaded is not None:
            return self._scoring(self.loaded, self.folder)
        folder = self.folder if self.folder.is_dir() or not self.archive else self._unpacked()
        wrapper, _ = load_wrapper(folder, digest=self.digest)
        return self._scoring(wrapper, folder)

    def _scoring(self, wrapper: PyfuncWrapper, folder: Path) -> RowScoring:
        return RowScoring(
            compiled(wrapper) if self.native else wrapper, self.plan, self._reference(folder)
        )

    def _reference(self, folder: Path) -> Reference | None:
        return read_sketches(folder) if self.plan.watches else None

    def _unpacked(self) -> Path:
        """The artifact in a folder of this user's on this machine, kept for whoever comes next."""
        root = Path(tempfile.gettempdir()) / f"lodestar-artifacts-{os.getuid()}"
        root.mkdir(mode=0o700, exist_ok=True)
        if root.is_symlink() or root.stat().st_uid != os.getuid() or root.stat().st_mode & 0o77:
            raise ExternalError(
                f"{root} belongs to somebody else, or others may write to it", hint="remove it"
            )
        folder = root / self.digest
        if not folder.is_dir():
            with new_folder(root) as aside:
                with tarfile.open(fileobj=io.BytesIO(self.archive)) as archive:
                    archive.extractall(aside, filter="data")
                try:
                    aside.rename(folder)
                except OSError as error:  # somebody else on this machine was faster
                    if not folder.is_dir():
                        raise ExternalError(f"{folder}: {error.strerror}") from error
        return folder


def compiled(wrapper: PyfuncWrapper) -> PyfuncWrapper:
    """The same, whose trees are compiled as soon as there are rows enough."""
    return PyfuncWrapper(wrapper.contents, CompiledModel.of(wrapper.fitted))


def packed(opened: "OpenedRun") -> bytes:
    """An artifact's folder as one archive, for machines that do not see it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(opened.folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.add(path, path.relative_to(opened.folder).as_posix())
    return buffer.getvalue()


def _marked(frame: pa.RecordBatch, mark: Mapping[str, str]) -> pa.RecordBatch:
    """In a table, rows say which run over which window they are from: its next go replaces them."""
    if not mark:
        return frame
    columns = dict(zip(frame.schema.names, frame.columns, strict=True))
    columns |= {key: _constant(value, frame.num_rows) for key, value in mark.items()}
    return pa.RecordBatch.from_pydict(columns)


@lru_cache(maxsize=8)
def _constant(text: str, rows: int) -> pa.DictionaryArray:
    codes = pa.array([0], pa.int32()).take(pa.nulls(rows, pa.int32()).fill_null(0))
    return pa.DictionaryArray.from_arrays(codes, pa.array([text]))
