"""Writes how many rows are compared with trees at once, over bins.

64 rows are compared by one instruction or two, as bins are small numbers, and the answers are the bits
of one word: no branch depends on a row.
"""

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.core.trees.bins import BinnedForest
from lodestar.core.trees.block_writer import BLOCK, BlockWriter
from lodestar.core.trees.machine_code import Value

__all__ = ["MOST_LEAVES", "WORD", "WORDS", "BinWriter"]

WORD = 64  # rows that are compared at once
WORDS = BLOCK // WORD
# Rows whose bins are looked for side by side, which hides the time that each waits.
SIDE_BY_SIDE = 8
CACHE_LINE = 64  # bytes
VECTOR = 64  # bytes of the widest vectors; narrower ones are made of it where the machine has those
MOST_TABLES = 16  # vectors of leaves; picking out of more takes longer than loading
MOST_LEAVES = 2**8  # of a tree: a leaf's number is a byte


class BinWriter(BlockWriter):
    """Writes the function over the bins of a block, column after column."""

    def __init__(self, binned: BinnedForest, *, most_leaves: int, picks: bool) -> None:
        """`picks`: leaves are picked out of vectors, which takes a machine that `picks_lanes`."""
        super().__init__(binned.forest)
        self.binned = binned
        ir, vector = self.ir, self.ir.VectorType
        self.small = ir.IntType(8 * binned.cut.itemsize)
        self.byte, self.int32 = ir.IntType(8), ir.IntType(32)
        self.lanes = VECTOR // self.forest.base.itemsize
        self.word, self.numbers = vector(self.small, WORD), vector(self.byte, WORD)
        self.answers, self.values = vector(ir.IntType(1), WORD), vector(self.real, self.lanes)
        self.leaf = self.code.bitcast(self.code.alloca(self.numbers), self.pointer)
        # Vectors that hold a tree's leaves, so many that they can be halved again and again.
        self.tables = 1 << max(0, (most_leaves - 1).bit_length() - (self.lanes - 1).bit_length())
        self.picks = picks and self.tables <= MOST_TABLES

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
        """The bins of a block; how many of its values are not finite."""
        strange = self.whole(0)
        with self.loop(WORDS, carried=[strange]) as (word, over_words):
            in_block = self.code.mul(word, self.whole(WORD))
            with self.loop(len(self.binned.columns), carried=over_words) as (slot, over_slots):
                over_slots[0] = self._find_column(first, in_block, slot, over_slots[0])
            over_words[0] = self.carried[0]
        return self.carried[0]

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

    def all_of(self, value: Value, kind: Value) -> Value:
        """A vector of the same value."""
        nothing = self.ir.Constant(kind, self.ir.Undefined)
        one = self.code.insert_element(nothing, value, self.int32(0))
        lanes = self.ir.VectorType(self.int32, kind.count)
        return self.code.shuffle_vector(one, nothing, self.ir.Constant(lanes, None))

    def _find_column(self, first: Value, in_block: Value, slot: Value, strange: Value) -> Value:
        """The bins of one column in 64 rows, and how many of its values are not finite, added."""
        code, binned = self.code, self.binned
        column = self.load(self.int64, self.address(binned.columns), slot)
        start = self.load(self.int64, self.address(binned.starts), slot)
        steps = self.load(self.int64, self.address(binned.steps), slot)
        cuts = self.place(self.address(binned.cuts), start, self.real)
        with self.loop(WORD // SIDE_BY_SIDE, carried=[strange]) as (group, counts):
            row = code.add(in_block, code.mul(group, self.whole(SIDE_BY_SIDE)))
            begin = code.add(first, row)
            lanes = [code.add(begin, self.whole(lane)) for lane in range(SIDE_BY_SIDE)]
            values = [self.value(lane, column) for lane in lanes]
            found = self._searched(cuts, steps, values)
            at = code.add(code.mul(slot, self.whole(BLOCK)), row)
            for lane, (value, passed) in enumerate(zip(values, found, strict=True)):
                small = code.trunc(passed, self.small)
                self.store(small, self.room, code.add(at, self.whole(lane)))
                counts[0] = code.add(counts[0], self.is_strange(value))
        return self.carried[0]

    def _searched(self, cuts: Value, steps: Value, values: list[Value]) -> list[Value]:
        """How many of the cuts each value has passed: binary search without a branch."""
        code, compare = self.code, "<=" if self.forest.strict else "<"
        with self.loop(steps, carried=[self.whole(0)] * len(values)) as (step, found):
            left = code.sub(code.sub(steps, step), self.whole(1))
            half = code.shl(self.whole(1), left)
            below = self.place(cuts, code.sub(half, self.whole(1)), self.real)
            for lane, value in enumerate(values):
                cut = self.load(self.real, below, found[lane])
                passed = code.zext(code.fcmp_ordered(compare, cut, value), self.int64)
                found[lane] = code.add(found[lane], code.shl(passed, left))
        return self.carried

    def _add(self, leaves: Value, sums: Value) -> None:
        """Look the leaves up, a vector of them at a time."""
        for start in range(0, WORD, self.lanes):
            place = self.place(sums, self.whole(start), self.real)
            so_far = self.code.load(place, typ=self.values, align=CACHE_LINE)
            numbers = self._numbers(start)
            found = self._picked(leaves, numbers) if self.picks else self._loaded(leaves, numbers)
            self.code.store(self.code.fadd(so_far, found), place, align=CACHE_LINE)

    def _numbers(self, start: int) -> Value:
        """The leaves' numbers of as many rows as a vector has lanes."""
        place = self.place(self.leaf, self.whole(start), self.byte)
        small = self.code.load(place, typ=self.ir.VectorType(self.byte, self.lanes), align=1)
        return self.code.zext(small, self.ir.VectorType(self.int32, self.lanes))

    def _loaded(self, leaves: Value, numbers: Value) -> Value:
        """One leaf after another."""
        found: Value = self.ir.Constant(self.values, self.ir.Undefined)
        for lane in map(self.int32, range(self.lanes)):
            number = self.code.zext(self.code.extract_element(numbers, lane), self.int64)
            found = self.code.insert_element(found, self.load(self.real, leaves, number), lane)
        return found

    def _picked(self, leaves: Value, numbers: Value) -> Value:
        """Out of vectors that hold all of a tree's leaves, chosen among by the numbers' high bits."""
        code = self.code
        within = code.and_(numbers, self._all(self.lanes - 1))
        found = []
        for table in range(self.tables):
            place = self.place(leaves, self.whole(table * self.lanes), self.real)
            vector = code.load(place, typ=self.values, align=self.forest.base.itemsize)
            found.append(self._permuted(vector, within))
        bit = self.lanes
        while len(found) > 1:
            high = code.icmp_unsigned("!=", code.and_(numbers, self._all(bit)), self._all(0))
            pairs = zip(found[::2], found[1::2], strict=True)
            found = [code.select(high, above, below) for below, above in pairs]
            bit *= 2
        return found[0]

    def _permuted(self, vector: Value, places: Value) -> Value:
        """LLVM knows this form of what some processors do at once."""
        found: Value = self.ir.Constant(self.values, self.ir.Undefined)
        for lane in map(self.int32, range(self.lanes)):
            value = self.code.extract_element(vector, self.code.extract_element(places, lane))
            found = self.code.insert_element(found, value, lane)
        return found

    def _all(self, value: int) -> Value:
        kind = self.ir.VectorType(self.int32, self.lanes)
        return self.ir.Constant(kind, [self.int32(value)] * self.lanes)
