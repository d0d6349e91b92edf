"""Writes how many rows go through trees: what is the same for every form that trees are kept in.

Rows go in blocks: their bins are found, then all of them go through tree after tree, then margins
become predictions. 64 rows are compared by one instruction or two, as bins are small numbers, and the
answers are the bits of one word: no branch depends on a row. Sums are in the trees' order, as the
libraries have them.
"""

from abc import ABC, abstractmethod

from lodestar.core.trees.bins import BinnedForest
from lodestar.core.trees.links import Margins
from lodestar.core.trees.machine_code import Value, Writer

__all__ = ["BLOCK", "CACHE_LINE", "MOST_LEAVES", "WORD", "BlockWriter"]

# Rows that are compared at once, and that go through all trees before the next ones.
WORD, BLOCK = 64, 256
# Rows whose bins are looked for side by side, which hides the time that each waits.
SIDE_BY_SIDE = 8
CACHE_LINE = 64  # bytes
VECTOR = 64  # bytes of the widest vectors; narrower ones are made of it where the machine has those
MOST_LEAVES = 2**8  # of a tree: a leaf's number is a byte


class BlockWriter(Writer, ABC):
    """Writes the function in LLVM's language.

    `score(rows, stride, matrix, out, bins, margins)` returns how many values were not finite. `stride`
    values lie between two outputs of a row in `out`; `bins` and `margins` are room for a block.
    """

    def __init__(self, binned: BinnedForest) -> None:
        super().__init__(wholes=2, pointers=4)
        self.binned, self.forest = binned, binned.forest
        ir, vector = self.ir, self.ir.VectorType
        single = self.forest.single
        self.real = ir.FloatType() if single else self.double
        self.small = ir.IntType(8 * binned.cut.itemsize)
        self.byte, self.int32 = ir.IntType(8), ir.IntType(32)
        self.lanes = VECTOR // (4 if single else 8)
        self.word, self.numbers = vector(self.small, WORD), vector(self.byte, WORD)
        self.answers, self.values = vector(ir.IntType(1), WORD), vector(self.real, self.lanes)
        self.rows, self.stride, self.matrix, self.out, self.bins, self.margins = self.arguments
        self.leaf = self.code.alloca(self.numbers)

    @abstractmethod
    def leaf_numbers(self, tree: Value, first: Value) -> Value:
        """Which of the tree's leaves each of the 64 rows from `first` on comes to: 64 bytes."""

    @abstractmethod
    def leaf_values(self, tree: Value) -> Value:
        """Where the values of the tree's leaves begin."""

    def write(self) -> None:
        """Block after block: bins, trees, the link, and out."""
        code, block = self.code, self.whole(BLOCK)
        margins = Margins(
            self,
            self.forest,
            self.margins,
            lambda row, output: code.add(code.mul(output, block), row),
        )
        blocks = code.udiv(code.add(self.rows, self.whole(BLOCK - 1)), block)
        with self.loop(blocks, carried=[self.whole(0)]) as (number, strange):
            first = code.mul(number, block)
            strange[0] = code.add(strange[0], self._find_bins(first))
            margins.start(block)
            self._sum_leaves()
            margins.link(block)
            self._hand_over(first)
        code.ret(self.carried[0])

    def compared(self, slot: Value, cut: Value, first: Value) -> Value:
        """Whether each of the 64 rows from `first` on goes right, a bit a row."""
        code = self.code
        at = code.add(code.mul(code.zext(slot, self.int64), self.whole(BLOCK)), first)
        bins = code.load(self.place(self.bins, at, self.small), typ=self.word, align=CACHE_LINE)
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

    def _find_bins(self, first: Value) -> Value:
        """The bins of a block; how many of its values are not finite."""
        strange = self.whole(0)
        with self.loop(BLOCK // WORD, carried=[strange]) as (word, over_words):
            in_block = self.code.mul(word, self.whole(WORD))
            with self.loop(len(self.binned.columns), carried=over_words) as (slot, over_slots):
                over_slots[0] = self._find_column(first, in_block, slot, over_slots[0])
            over_words[0] = self.carried[0]
        return self.carried[0]

    def _find_column(self, first: Value, in_block: Value, slot: Value, strange: Value) -> Value:
        """The bins of one column in 64 rows.

        Behind the last row it stands once more: no row is outside the matrix.
        """
        code, binned = self.code, self.binned
        column = self.load(self.int64, self.address(binned.columns), slot)
        start = self.load(self.int64, self.address(binned.starts), slot)
        steps = self.load(self.int64, self.address(binned.steps), slot)
        cuts = self.place(self.address(binned.cuts), start, self.real)
        last = code.sub(self.rows, self.whole(1))
        with self.loop(WORD // SIDE_BY_SIDE, carried=[strange]) as (group, counts):
            row = code.add(in_block, code.mul(group, self.whole(SIDE_BY_SIDE)))
            values = []
            for lane in range(SIDE_BY_SIDE):
                at = code.add(code.add(first, row), self.whole(lane))
                at = code.select(code.icmp_unsigned("<", at, last), at, last)
                at = code.add(code.mul(at, self.whole(self.forest.width)), column)
                values.append(self.load(self.real, self.matrix, at))
            found = self._searched(cuts, steps, values)
            at = code.add(code.mul(slot, self.whole(BLOCK)), row)
            for lane, (value, passed) in enumerate(zip(values, found, strict=True)):
                small = code.trunc(passed, self.small)
                self.store(small, self.bins, code.add(at, self.whole(lane)))
                nothing = code.fsub(value, value)
                is_strange = code.fcmp_unordered("uno", nothing, nothing)
                counts[0] = code.add(counts[0], code.zext(is_strange, self.int64))
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

    def _sum_leaves(self) -> None:
        """Tree after tree, each row's leaf is added to the output that the tree is of."""
        code = self.code
        with self.loop(len(self.forest.roots)) as tree:
            values = self.leaf_values(tree)
            target = self.load(self.int64, self.address(self.forest.targets), tree)
            sums = self.place(self.margins, code.mul(target, self.whole(BLOCK)), self.real)
            with self.loop(BLOCK // WORD) as word:
                first = code.mul(word, self.whole(WORD))
                code.store(self.leaf_numbers(tree, first), self.leaf)
                self._add(values, self.place(sums, first, self.real))

    def _add(self, leaves: Value, sums: Value) -> None:
        """Look the leaves up, a vector of them at a time."""
        code = self.code
        numbers = code.bitcast(self.leaf, self.pointer)
        for start in range(0, WORD, self.lanes):
            found: Value = self.ir.Constant(self.values, self.ir.Undefined)
            for lane in range(self.lanes):
                number = self.load(self.byte, numbers, self.whole(start + lane))
                value = self.load(self.real, leaves, code.zext(number, self.int64))
                found = code.insert_element(found, value, self.int32(lane))
            place = self.place(sums, self.whole(start), self.real)
            so_far = code.load(place, typ=self.values, align=CACHE_LINE)
            code.store(code.fadd(so_far, found), place, align=CACHE_LINE)

    def _hand_over(self, first: Value) -> None:
        """From the block to where the rows' outputs belong."""
        code = self.code
        left = code.sub(self.rows, first)
        full = code.icmp_unsigned("<", self.whole(BLOCK), left)
        count = code.select(full, self.whole(BLOCK), left)
        with self.loop(len(self.forest.base)) as output:
            row = code.mul(output, self.whole(BLOCK))
            to = code.add(code.mul(output, self.stride), first)
            with self.loop(count) as at:
                value = self.load(self.real, self.margins, code.add(row, at))
                self.store(value, self.out, code.add(to, at))
