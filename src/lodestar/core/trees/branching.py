"""Trees as they are, of any depth: which rows reach a node is a word, which its comparison divides."""

import numpy as np
from numpy.typing import NDArray

from lodestar.core.trees.bin_writer import BinWriter
from lodestar.core.trees.bins import BinnedForest
from lodestar.core.trees.inputs import Inputs
from lodestar.core.trees.machine_code import Value
from lodestar.core.trees.vector_writer import WORD

__all__ = ["BranchingWriter"]


class BranchingWriter(BinWriter):
    """Writes a function whose time grows with the number of leaves, not with 2^depth."""

    def __init__(self, binned: BinnedForest, inputs: Inputs, *, picks: bool) -> None:
        """Inner nodes and leaves apart, a tree's from its start on; parents before their children."""
        nodes, inner, roots = binned.forest.nodes, binned.inner, binned.forest.roots
        most_leaves = int(np.add.reduceat(~inner, roots, dtype=np.int64).max())
        super().__init__(binned, inputs, most_leaves=most_leaves, picks=picks)
        sizes = np.diff([*roots, len(nodes)])
        tree_of = np.repeat(np.arange(len(sizes)), sizes)
        within = (np.arange(len(nodes)) - roots[tree_of]).astype(np.int32)
        self.inner_starts = _starts(tree_of[inner], len(sizes))
        self.leaf_starts = _starts(tree_of[~inner], len(sizes))
        self.inner_places, self.leaf_places = within[inner], within[~inner]
        self.left = (within + nodes["delta"].astype(np.int32))[inner]
        self.slot, self.cut = binned.slot[inner], binned.cut[inner]
        self.leaves = self.padded(nodes["threshold"][~inner])
        # Which rows of the word reach each node.
        self.reached = self.code.alloca(self.int64, int(sizes.max()))
        self.write()

    def leaf_values(self, tree: Value) -> Value:
        """The leaves of all trees stand one after another."""
        start = self.load(self.int64, self.address(self.leaf_starts), tree)
        return self.place(self.address(self.leaves), start, self.real)

    def leaf_numbers(self, tree: Value, word: Value) -> Value:
        """Divide the rows from the root on, then number those that reached each leaf."""
        first = self.code.mul(word, self.whole(WORD))
        self.store(self.whole(-1), self.reached, self.whole(0))
        start, count = self._span(self.inner_starts, tree)
        with self.loop(count) as number:
            self._divide(self.code.add(start, number), first)
        start, count = self._span(self.leaf_starts, tree)
        none = self.ir.Constant(self.numbers, None)
        with self.loop(count, carried=[none]) as (number, found):
            at = self._within(self.leaf_places, self.code.add(start, number))
            here = self.load(self.int64, self.reached, at)
            this = self.all_of(self.code.trunc(number, self.byte), self.numbers)
            found[0] = self.chosen(here, this, found[0])
        return self.carried[0]

    def _divide(self, node: Value, first: Value) -> None:
        """Who reaches an inner node goes on to one of the two below it."""
        code = self.code
        slot = self.load(self.int32, self.address(self.slot), node)
        cut = self.load(self.small, self.address(self.cut), node)
        here = self.load(self.int64, self.reached, self._within(self.inner_places, node))
        right = code.and_(here, self.compared(slot, cut, first))
        left = self._within(self.left, node)
        self.store(code.xor(here, right), self.reached, left)
        self.store(right, self.reached, code.add(left, self.whole(1)))

    def _within(self, places: NDArray[np.int32], at: Value) -> Value:
        return self.code.zext(self.load(self.int32, self.address(places), at), self.int64)

    def _span(self, starts: NDArray[np.int64], tree: Value) -> Value:
        start = self.load(self.int64, self.address(starts), tree)
        after = self.load(self.int64, self.address(starts), self.code.add(tree, self.whole(1)))
        return start, self.code.sub(after, start)


def _starts(trees: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Where each tree's begin, and where the last one's end."""
    return np.searchsorted(trees, np.arange(count + 1)).astype(np.int64)
