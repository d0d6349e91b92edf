"""Writes how many rows are compared with trees at once, over bins.

64 rows are compared by one instruction or two, as bins are small numbers, and the answers are the bits
of one word: no branch depends on a row.
"""

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.core.trees.bin_search import BinSearch
from lodestar.core.trees.bins import BinnedForest
from lodestar.core.trees.block_writer import BLOCK
from lodestar.core.trees.inputs import Inputs
from lodestar.core.trees.machine_code import Value
from lodestar.core.trees.vector_writer import CACHE_LINE, WORD, VectorWriter

__all__ = ["MOST_LEAVES", "WORDS", "BinWriter"]

WORDS = BLOCK // WORD
MOST_LEAVES = 2**8  # of a tree: a leaf's number is a byte
MOST_TABLES = 16  # vectors of leaves; picking out of more takes longer than loading


class BinWriter(VectorWriter):
    """Writes the function over the bins of a block, column after column."""

    def __init__(
        self, binned: BinnedForest, inputs: Inputs, *, most_leaves: int, picks: bool
    ) -> None:
        super().__init__(binned.forest, picks=picks)
        self.binned, self.inputs = binned, inputs
        ir, vector = self.ir, self.ir.VectorType
        self.small = ir.IntType(8 * binned.cut.itemsize)
        self.word, self.numbers = vector(self.small, WORD), vector(self.byte, WORD)
        self.answers = vector(ir.IntType(1), WORD)
        self.leaf = self.code.bitcast(self.code.alloca(self.numbers), self.pointer)
        # Vectors that hold a tree's leaves, so many that they can be halved again and again.
        self.tables = 1 << max(0, (most_leaves - 1).bit_length() - (self.lanes - 1).bit_length())

    def padded(self, leaves: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """So that behind the last tree's leaves there is memory to read."""
        return np.concatenate([leaves.ravel(), np.zeros(self.tables * self.lanes, leaves.dtype)])

    @property
    def bytes_of_room(self) -> int:
        """A bin of each compared column for each row."""
        return len(self.binned.columns) * BLOCK * self.binned.cut.itemsize

    def divide(self, tree: Value) -> None:
        """What is done for all rows of the block together, before their leaves are numbered."""

    @abstractmethod
    def leaf_numbers(self, tree: Value, word: Value) -> Value:
        """Which of the tree's leaves each of a word's 64 rows comes to: 64 bytes."""

    @abstractmethod
    def leaf_values(self, tree: Value) -> Value:
        """Where the values of the tree's leaves begin."""

    def make_ready(self, first: Value) -> Value:
        """The bins of a block; how many vectors of its values are not finite."""
        return self.inputs.find_bins(BinSearch(self, self.binned), first)

    def sum_leaves(self) -> None:
        """Tree after tree, each row's leaf is added to the output that the tree is of."""
        code = self.code
        with self.loop(len(self.forest.roots)) as tree:
            values = self.leaf_values(tree)
            target = self.load(self.int64, self.address(self.forest.targets), tree)
            sums = self.place(self.sums, code.mul(target, self.whole(BLOCK)), self.real)
            self.divide(tree)
            with self.loop(WORDS) as word:
                code.store(self.leaf_numbers(tree, word), self.leaf)
                first = code.mul(word, self.whole(WORD))
                self._add(values, self.place(sums, first, self.real))

    def compared(self, slot: Value, cut: Value, first: Value) -> Value:
        """Whether each of the 64 rows from `first` on goes right, a bit a row."""
        code = self.code
        at = code.add(code.mul(code.zext(slot, self.int64), self.whole(BLOCK)), first)
        bins = code.load(self.place(self.room, at, self.small), typ=self.word, align=CACHE_LINE)
        return code.bitcast(code.icmp_unsigned(">", bins, self.all_of(cut, self.word)), self.int64)

    def chosen(self, bits: Value, numbers: Value, others: Value) -> Value:
        """Of 64 bytes those of `numbers` where the bit is set, and of `others` elsewhere."""
        return self.code.select(self.code.bitcast(bits, self.answers), numbers, others)

    def _add(self, leaves: Value, sums: Value) -> None:
        """Look the leaves up, a vector of them at a time."""
        for start in range(0, WORD, self.lanes):
            place = self.place(sums, self.whole(start), self.real)
            so_far = self.code.load(place, typ=self.values, align=CACHE_LINE)
            found = self._leaves(leaves, self._numbers(start))
            self.code.store(self.code.fadd(so_far, found), place, align=CACHE_LINE)

    def _numbers(self, start: int) -> Value:
        """The leaves' numbers of as many rows as a vector has lanes."""
        kind = self.ir.VectorType(self.byte, self.lanes)
        small = self.vector(kind, self.leaf, self.whole(start), align=1)
        return self.code.zext(small, self.indices)

    def _leaves(self, leaves: Value, numbers: Value) -> Value:
        """Picked out of vectors that hold all of a tree's leaves, where that is quicker than loading."""
        if not self.picks or self.tables > MOST_TABLES:
            return self.gathered(leaves, numbers)
        code, align = self.code, self.forest.base.itemsize
        within = code.and_(numbers, self.index(self.lanes - 1))
        starts = [self.whole(table * self.lanes) for table in range(self.tables)]
        vectors = [self.vector(self.values, leaves, start, align=align) for start in starts]
        found = [self.picked(vector, within) for vector in vectors]
        bit = self.lanes
        while len(found) > 1:
            high = code.icmp_unsigned("!=", code.and_(numbers, self.index(bit)), self.index(0))
            pairs = zip(found[::2], found[1::2], strict=True)
            found = [code.select(high, above, below) for below, above in pairs]
            bit *= 2
        return found[0]
