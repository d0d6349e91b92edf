"""Trees that are filled up to one depth: every place is compared, whether a tree has it or not."""

import numpy as np
from numpy.typing import NDArray

from lodestar.core.trees.bins import BinnedForest
from lodestar.core.trees.block_writer import WORD, BlockWriter
from lodestar.core.trees.machine_code import Compiled, Value

__all__ = ["CompleteTrees"]


class CompleteTrees(Compiled):
    """The compiled function over trees with all 2^depth leaves.

    The words of a level are reduced to one by what the levels above say, and those of all levels are the
    bits of the leaves' numbers.
    """

    def __init__(self, binned: BinnedForest) -> None:
        super().__init__(_Writer(binned))


class _Writer(BlockWriter):
    def __init__(self, binned: BinnedForest) -> None:
        """`slot` and `cut` (trees, 2^depth - 1), level after level; `leaves` (trees, 2^depth)."""
        super().__init__(binned)
        self.depth = int(self.forest.depths.max())
        places, first_leaf = _places(binned, self.depth), 2**self.depth - 1
        self.slot = np.ascontiguousarray(binned.slot[places[:, :first_leaf]])
        self.cut = np.ascontiguousarray(binned.cut[places[:, :first_leaf]])
        leaves = self.forest.nodes["threshold"][places[:, first_leaf:]]
        self.leaves = np.ascontiguousarray(leaves)
        self.write()

    def leaf_values(self, tree: Value) -> Value:
        at = self.code.mul(tree, self.whole(2**self.depth))
        return self.place(self.address(self.leaves), at, self.real)

    def leaf_numbers(self, tree: Value, first: Value) -> Value:
        at = self.code.mul(tree, self.whole(2**self.depth - 1))
        slots = self.place(self.address(self.slot), at, self.int32)
        cuts = self.place(self.address(self.cut), at, self.small)

        def compared(place: int) -> Value:
            slot = self.load(self.int32, slots, self.whole(place))
            return self.compared(slot, self.load(self.small, cuts, self.whole(place)), first)

        def turn(place: int, above: list[Value]) -> Value:
            """Where the rows turn as many levels below `place` as there are words above."""
            if not above:
                return compared(place)
            left, right = (turn(child, above[1:]) for child in (2 * place + 1, 2 * place + 2))
            differ = self.code.and_(self.code.xor(left, right), above[0])
            return self.code.xor(left, differ)

        turns: list[Value] = []
        none = self.ir.Constant(self.numbers, None)
        numbers: Value = none
        for level in range(self.depth):
            turns.append(turn(0, turns))
            bit = self.ir.Constant(self.numbers, [self.byte(2 ** (self.depth - 1 - level))] * WORD)
            numbers = self.code.or_(numbers, self.chosen(turns[-1], bit, none))
        return numbers


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
