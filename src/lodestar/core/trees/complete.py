"""Trees that are filled up to one depth: every place is compared, whether a tree has it or not."""

import numpy as np
from numpy.typing import NDArray

from lodestar.core.trees.bin_writer import WORDS, BinWriter
from lodestar.core.trees.bins import BinnedForest
from lodestar.core.trees.block_writer import BLOCK
from lodestar.core.trees.inputs import Inputs
from lodestar.core.trees.machine_code import Value
from lodestar.core.trees.vector_writer import WORD

__all__ = ["CompleteWriter"]

BYTE = 8  # bits


class CompleteWriter(BinWriter):
    """Writes the function over trees with all 2^depth leaves.

    The words of a level are reduced to one by what the levels above say, and those of all levels are the
    bits of the leaves' numbers.
    """

    def __init__(self, binned: BinnedForest, inputs: Inputs, *, picks: bool) -> None:
        """`slot` and `cut` (trees, 2^depth - 1), level after level; `leaves` (trees × 2^depth)."""
        self.depth = int(binned.forest.depths.max())
        super().__init__(binned, inputs, most_leaves=2**self.depth, picks=picks)
        places, first_leaf = _places(binned, self.depth), 2**self.depth - 1
        self.slot = np.ascontiguousarray(binned.slot[places[:, :first_leaf]])
        self.cut = np.ascontiguousarray(binned.cut[places[:, :first_leaf]])
        leaves = self.forest.nodes["threshold"][places[:, first_leaf:]]
        self.leaves = self.padded(leaves)
        # One bit a row: the answers at each place of a tree, and where each level turns.
        self.words = self.ir.VectorType(self.int64, WORDS)
        self.answered = self.place(self.room, self.whole(super().bytes_of_room), self.byte)
        self.turns = self.place(self.answered, self.whole(first_leaf), self.words)
        self.write()

    @property
    def bytes_of_room(self) -> int:
        """The bins, and the words of a tree's places and levels."""
        return super().bytes_of_room + ((1 << self.depth) + self.depth) * BLOCK // BYTE

    def leaf_values(self, tree: Value) -> Value:
        """The leaves of all trees stand one after another."""
        at = self.code.mul(tree, self.whole(2**self.depth))
        return self.place(self.address(self.leaves), at, self.real)

    def divide(self, tree: Value) -> None:
        """All places are compared first, then reduced for all words of the block at once."""
        at = self.code.mul(tree, self.whole(2**self.depth - 1))
        with self.loop(2**self.depth - 1) as place:
            self._compare(self.code.add(at, place), place)
        turns: list[Value] = []
        for level in range(self.depth):
            turns.append(self._turn(0, turns))
            self.store(turns[-1], self.turns, self.whole(level))

    def leaf_numbers(self, tree: Value, word: Value) -> Value:
        """The turns of all levels are a leaf's number, the root's its first bit."""
        del tree
        none = self.ir.Constant(self.numbers, None)
        numbers: Value = none
        for level in range(self.depth):
            at = self.code.add(self.whole(level * WORDS), word)
            turn = self.load(self.int64, self.turns, at)
            bit = self.ir.Constant(self.numbers, [self.byte(2 ** (self.depth - 1 - level))] * WORD)
            numbers = self.code.or_(numbers, self.chosen(turn, bit, none))
        return numbers

    def _compare(self, node: Value, place: Value) -> None:
        """The answers of the block's rows at one place of a tree."""
        slot = self.load(self.int32, self.address(self.slot), node)
        cut = self.load(self.small, self.address(self.cut), node)
        answers = self.code.mul(place, self.whole(WORDS))
        for word in range(WORDS):
            answer = self.compared(slot, cut, self.whole(word * WORD))
            self.store(answer, self.answered, self.code.add(answers, self.whole(word)))

    def _turn(self, place: int, above: list[Value]) -> Value:
        """Where the rows turn as many levels below `place` as there are words above."""
        if not above:
            return self.load(self.words, self.answered, self.whole(place))
        left, right = (self._turn(child, above[1:]) for child in (2 * place + 1, 2 * place + 2))
        return self.code.xor(left, self.code.and_(self.code.xor(left, right), above[0]))


def _places(binned: BinnedForest, depth: int) -> NDArray[np.int64]:
    """The node at each place of each tree (trees, 2^(depth + 1) - 1); below a leaf, that leaf.

    The children of place i are 2i + 1 and 2i + 2.
    """
    levels = [binned.forest.roots.reshape(-1, 1)]
    for _ in range(depth):
        above = levels[-1]
        inner = binned.inner[above]
        left = above + np.where(inner, binned.forest.nodes["delta"][above], 0)
        right = np.where(inner, left + 1, left)
        levels.append(np.stack([left, right], axis=2).reshape(len(above), -1))
    return np.concatenate(levels, axis=1)
