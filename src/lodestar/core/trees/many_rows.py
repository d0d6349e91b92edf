"""Asks a forest of many rows, in threads."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.core.trees.bin_writer import CACHE_LINE, MOST_LEAVES
from lodestar.core.trees.bins import binned
from lodestar.core.trees.block_writer import BLOCK, BlockWriter
from lodestar.core.trees.branching import BranchingWriter
from lodestar.core.trees.complete import CompleteWriter
from lodestar.core.trees.forest import Forest
from lodestar.core.trees.machine_code import Compiled, picks_lanes
from lodestar.core.trees.walking import WalkingWriter

__all__ = ["ManyRows", "many_rows"]

# A place of a tree that is filled up costs half of what a leaf of one that is not does.
PLACES_PER_LEAF = 2


class ManyRows:
    """Predicts matrices in `threads` threads."""

    def __init__(self, writer: BlockWriter, *, threads: int) -> None:
        self._code = Compiled(writer)
        self._base = writer.forest.base
        self._room = writer.bytes_of_room + -writer.bytes_of_room % CACHE_LINE
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="trees")

    def __call__(self, matrix: NDArray[Any]) -> NDArray[Any] | None:
        """Outputs (n, outputs) of features (n, p), C-ordered; None where one is not finite."""
        rows = np.ascontiguousarray(matrix, self._base.dtype)
        out = np.empty((len(self._base), len(rows)), self._base.dtype)
        share = -(-len(rows) // (self._threads * BLOCK)) * BLOCK
        parts = [(first, min(share, len(rows) - first)) for first in range(0, len(rows), share)]
        counts = list(self._pool.map(lambda part: self._score(rows, out, *part), parts))
        return None if any(counts) else out.T

    def _score(self, rows: NDArray[Any], out: NDArray[Any], first: int, count: int) -> int:
        """How many values of these rows are not finite; `out` is filled in."""
        room = np.empty(self._room + len(out) * BLOCK * out.itemsize + CACHE_LINE, np.uint8)
        start = room.ctypes.data + -room.ctypes.data % CACHE_LINE
        return self._code.call(
            count,
            out.shape[1],
            rows[first:].ctypes.data,
            out[:, first:].ctypes.data,
            start,
            start + self._room,
        )


def many_rows(forest: Forest, *, threads: int) -> ManyRows:
    """Compile it in the form that is the fastest one for these trees.

    Raises:
        NotPlannedError: llvmlite is not installed.
    """
    return ManyRows(_writer(forest), threads=threads)


def _writer(forest: Forest) -> BlockWriter:
    leaves = np.add.reduceat(forest.nodes["feature"] == forest.width, forest.roots)
    if leaves.max() > MOST_LEAVES:
        return WalkingWriter(forest)
    places = 2.0 ** int(forest.depths.max())
    filled_up = places <= min(MOST_LEAVES, PLACES_PER_LEAF * leaves.mean())
    form = CompleteWriter if filled_up else BranchingWriter
    return form(binned(forest), picks=picks_lanes())
