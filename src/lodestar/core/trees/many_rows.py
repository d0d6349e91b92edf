"""Asks a forest of many rows, in threads: of a matrix of features, or of columns as they were read."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.core.preprocessor import SimpleScaler
from lodestar.core.trees.bin_writer import MOST_LEAVES
from lodestar.core.trees.bins import BinnedForest, binned
from lodestar.core.trees.block_writer import BLOCK, BlockWriter
from lodestar.core.trees.branching import BranchingWriter
from lodestar.core.trees.complete import CompleteWriter
from lodestar.core.trees.forest import Forest, NotPlannedError
from lodestar.core.trees.inputs import FromColumns, FromMatrix, Inputs
from lodestar.core.trees.machine_code import Compiled, picks_lanes
from lodestar.core.trees.raw_columns import RawColumns, TakenColumns
from lodestar.core.trees.vector_writer import CACHE_LINE
from lodestar.core.trees.walking import WalkingWriter

__all__ = ["ManyColumns", "ManyRows", "many_columns", "many_rows"]

# A place of a tree that is filled up costs half of what a leaf of one that is not does.
PLACES_PER_LEAF = 2


class _Threads:
    """A compiled function, asked in several threads."""

    def __init__(self, writer: BlockWriter, count: int) -> None:
        self._code = Compiled(writer)
        self.base = writer.forest.base
        self._room = writer.bytes_of_room + -writer.bytes_of_room % CACHE_LINE
        self._count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="trees")

    def __call__(self, rows: int, score: "Callable[[_Part], int]") -> NDArray[Any] | None:
        """Outputs (rows, outputs); None where `score` says of a part that values are not finite."""
        out = np.empty((len(self.base), rows), self.base.dtype)
        share = max(1, -(-rows // (self._count * BLOCK))) * BLOCK
        parts = [
            _Part(self, out, first, min(share, rows - first)) for first in range(0, rows, share)
        ]
        return None if any(list(self._pool.map(score, parts))) else out.T

    def call(self, out: NDArray[Any], first: int, count: int, inputs: int) -> int:
        """Above 0 where values are not finite; `out` is filled in from row `first` on."""
        room = np.empty(self._room + len(out) * BLOCK * out.itemsize + CACHE_LINE, np.uint8)
        start = room.ctypes.data + -room.ctypes.data % CACHE_LINE
        place = out[:, first:].ctypes.data
        return self._code.call(count, out.shape[1], inputs, place, start, start + self._room)


@dataclass(frozen=True)
class _Part:
    """Rows for one thread: `count` from `first` on."""

    threads: _Threads
    out: NDArray[Any]
    first: int
    count: int

    def score(self, inputs: int, *, skipped: int = 0, count: int | None = None) -> int:
        count = self.count - skipped if count is None else count
        return self.threads.call(self.out, self.first + skipped, count, inputs)


class ManyRows:
    """Predicts matrices in `threads` threads."""

    def __init__(self, writer: BlockWriter, *, threads: int) -> None:
        self._threads = _Threads(writer, threads)

    def __call__(self, matrix: NDArray[Any]) -> NDArray[Any] | None:
        """Outputs (n, outputs) of features (n, p), C-ordered; None where one is not finite."""
        rows = np.ascontiguousarray(matrix, self._threads.base.dtype)
        return self._threads(len(rows), lambda part: part.score(rows[part.first :].ctypes.data))


class ManyColumns:
    """Predicts columns as they were read, in `threads` threads."""

    def __init__(self, writer: BlockWriter, raw: RawColumns, *, threads: int) -> None:
        self.raw = raw
        self._threads = _Threads(writer, threads)

    def __call__(self, taken: TakenColumns, rows: int) -> NDArray[Any] | None:
        """Outputs (n, outputs) of n rows; None where a feature would not be finite."""
        return self._threads(rows, lambda part: _score_columns(part, taken))


def _score_columns(part: _Part, taken: TakenColumns) -> int:
    """Whole blocks where they lie, and the rest from a copy, as whole blocks are read."""
    strange, whole = 0, part.count - part.count % BLOCK
    if whole:
        addresses = taken.addresses(part.first)
        strange |= part.score(addresses.ctypes.data, count=whole)
    if whole < part.count:
        rest = taken.end(part.first + whole)
        addresses = rest.addresses(0)
        strange |= part.score(addresses.ctypes.data, skipped=whole)
    return strange


def many_rows(forest: Forest, *, threads: int) -> ManyRows:
    """Compile it in the form that is the fastest one for these trees.

    Raises:
        NotPlannedError: llvmlite is not installed.
    """
    if _most_leaves(forest) > MOST_LEAVES:
        return ManyRows(WalkingWriter(forest), threads=threads)
    return ManyRows(_writer(binned(forest), FromMatrix()), threads=threads)


def many_columns(
    forest: Forest, scaler: SimpleScaler, dtype: type[np.floating[Any]], *, threads: int
) -> ManyColumns:
    """Compile it together with what a scaler does, which would be asked for features of `dtype`.

    Raises:
        NotPlannedError: llvmlite is not installed, or they are of a kind for which there is no such way.
    """
    if _most_leaves(forest) > MOST_LEAVES:
        raise NotPlannedError("the trees are walked")
    bins = binned(forest)
    raw = RawColumns.of(scaler, bins, dtype)
    return ManyColumns(_writer(bins, FromColumns(raw)), raw, threads=threads)


def _writer(bins: BinnedForest, inputs: Inputs) -> BlockWriter:
    leaves = _leaves(bins.forest)
    places = 2.0 ** int(bins.forest.depths.max())
    filled_up = places <= min(MOST_LEAVES, PLACES_PER_LEAF * leaves.mean())
    form = CompleteWriter if filled_up else BranchingWriter
    return form(bins, inputs, picks=picks_lanes())


def _most_leaves(forest: Forest) -> int:
    return int(_leaves(forest).max())


def _leaves(forest: Forest) -> NDArray[np.int64]:
    """How many leaves each tree has."""
    return np.add.reduceat(forest.nodes["feature"] == forest.width, forest.roots, dtype=np.int64)
