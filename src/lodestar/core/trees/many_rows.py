"""Asks a forest of many rows, in threads."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.core.trees.bins import BinnedForest, binned
from lodestar.core.trees.block_writer import BLOCK, CACHE_LINE, MOST_LEAVES
from lodestar.core.trees.branching import BranchingTrees
from lodestar.core.trees.complete import CompleteTrees
from lodestar.core.trees.forest import Forest, NotPlannedError

__all__ = ["ManyRows", "many_rows"]

# A place of a tree that is filled up costs half of what a leaf of one that is not does.
PLACES_PER_LEAF = 2


class ManyRows:
    """Predicts matrices in `threads` threads."""

    def __init__(
        self, forest: BinnedForest, code: CompleteTrees | BranchingTrees, *, threads: int
    ) -> None:
        self._binned, self._code, self._threads = forest, code, threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="trees")

    def __call__(self, matrix: NDArray[Any]) -> NDArray[Any] | None:
        """Outputs (n, outputs) of features (n, p), C-ordered; None where one is not finite."""
        base = self._binned.forest.base
        rows = np.ascontiguousarray(matrix, base.dtype)
        out = np.empty((len(base), len(rows)), base.dtype)
        share = -(-len(rows) // (self._threads * BLOCK)) * BLOCK
        parts = [(first, min(share, len(rows) - first)) for first in range(0, len(rows), share)]
        counts = list(self._pool.map(lambda part: self._score(rows, out, *part), parts))
        return None if any(counts) else out.T

    def _score(self, rows: NDArray[Any], out: NDArray[Any], first: int, count: int) -> int:
        """How many values of these rows are not finite; `out` is filled in."""
        bins = len(self._binned.columns) * BLOCK * self._binned.cut.itemsize
        bins += -bins % CACHE_LINE
        room = np.empty(bins + len(out) * BLOCK * out.itemsize + CACHE_LINE, np.uint8)
        start = room.ctypes.data + -room.ctypes.data % CACHE_LINE
        return self._code.call(
            count,
            out.shape[1],
            rows[first:].ctypes.data,
            out[:, first:].ctypes.data,
            start,
            start + bins,
        )


def many_rows(forest: Forest, *, threads: int) -> ManyRows:
    """Compile it in the form that is the faster one for these trees.

    Raises:
        NotPlannedError: llvmlite is not installed, or the trees are too large.
    """
    trees = binned(forest)
    leaves = np.add.reduceat(~trees.inner, forest.roots)
    most = int(leaves.max())
    if most > MOST_LEAVES:
        raise NotPlannedError(f"a tree with {most:,} leaves; up to {MOST_LEAVES} are compiled")
    places = 2.0 ** int(forest.depths.max())
    filled_up = places <= min(MOST_LEAVES, PLACES_PER_LEAF * leaves.mean())
    code = CompleteTrees(trees) if filled_up else BranchingTrees(trees)
    return ManyRows(trees, code, threads=threads)
