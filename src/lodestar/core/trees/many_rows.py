"""Trees over many rows at once, in machine code: one comparison for 64 rows, and no branch.

Of every tree all inner places are compared, which takes one instruction or two for 64 rows, as bins are
small numbers; 64 answers are the bits of one word. The words of a level are reduced to one by what the
levels above say, and the depth's words are the number of the leaf of every row. Sums are in the trees'
order, as the libraries have them.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.core.trees.complete import CompleteForest
from lodestar.core.trees.links import Margins
from lodestar.core.trees.machine_code import Compiled, Value, Writer

__all__ = ["ManyRows"]

# Rows that are compared at once, and that go through all trees before the next ones.
WORD, BLOCK = 64, 256
# Rows of a word whose bins are looked for side by side, which hides the time that each waits.
SIDE_BY_SIDE = 8
CACHE_LINE = 64  # bytes
VECTOR = 64  # bytes of the widest vectors; narrower ones are made of it where the machine has those


class ManyRows:
    """Predicts a matrix in `threads` threads.

    Raises:
        NotPlannedError: llvmlite is not installed.
    """

    def __init__(self, forest: CompleteForest, *, threads: int) -> None:
        self._forest = forest
        self._code = Compiled(_Writer(forest), forest)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="trees")

    def __call__(self, matrix: NDArray[Any]) -> NDArray[Any] | None:
        """Outputs (n, outputs) of features (n, p), C-ordered; None where one is not finite."""
        base = self._forest.forest.base
        rows = np.ascontiguousarray(matrix, base.dtype)
        out = np.empty((len(base), len(rows)), base.dtype)
        share = -(-len(rows) // (self._threads * BLOCK)) * BLOCK
        parts = [(first, min(share, len(rows) - first)) for first in range(0, len(rows), share)]
        counts = list(self._pool.map(lambda part: self._score(rows, out, *part), parts))
        return None if any(counts) else out.T

    def _score(self, rows: NDArray[Any], out: NDArray[Any], first: int, count: int) -> int:
        """How many values of these rows are not finite; `out` is filled in."""
        forest = self._forest
        bins = len(forest.slots) * BLOCK * forest.cut.itemsize
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


class _Writer(Writer):
    """Writes the function in LLVM's language.

    `score(rows, stride, matrix, out, bins, margins)`: `stride` values lie between two outputs of a row.
    """

    def __init__(self, forest: CompleteForest) -> None:
        super().__init__(wholes=2, pointers=4)
        self.trees = forest
        ir, vector = self.ir, self.ir.VectorType
        single = forest.forest.single
        self.real = ir.FloatType() if single else self.double
        self.small = ir.IntType(8 * forest.cut.itemsize)
        self.byte, self.int32 = ir.IntType(8), ir.IntType(32)
        self.lanes = VECTOR // (4 if single else 8)
        self.word, self.numbers = vector(self.small, WORD), vector(self.byte, WORD)
        self.answers, self.values = vector(ir.IntType(1), WORD), vector(self.real, self.lanes)
        self.rows, self.stride, self.matrix, self.out, self.bins, self.margins = self.arguments
        self.leaf = self.code.alloca(self.numbers)
        self._blocks()

    def _blocks(self) -> None:
        """Block after block: bins, trees, the link, and out."""
        code, block = self.code, self.whole(BLOCK)
        margins = Margins(
            self,
            self.trees.forest,
            self.margins,
            lambda row, output: code.add(code.mul(output, block), row),
        )
        blocks = code.udiv(code.add(self.rows, self.whole(BLOCK - 1)), block)
        with self.loop(blocks, carried=[self.whole(0)]) as (number, bad):
            first = code.mul(number, block)
            bad[0] = code.add(bad[0], self._fill_bins(first))
            margins.start(block)
            self._sum_leaves()
            margins.link(block)
            self._hand_over(first)
        code.ret(self.carried[0])

    def _fill_bins(self, first: Value) -> Value:
        """The bins of a block; how many of its values are not finite.

        Behind the last row it stands once more: no row is outside the matrix.
        """
        code = self.code
        last = code.sub(self.rows, self.whole(1))
        width = self.whole(self.trees.forest.width)
        with self.loop(BLOCK // WORD, carried=[self.whole(0)]) as (word, over_words):
            with self.loop(len(self.trees.slots), carried=over_words) as (slot, over_slots):
                column = self.load(self.int64, self.address(self.trees.slots), slot)
                start = self.load(self.int64, self.address(self.trees.starts), slot)
                cuts = self.place(self.address(self.trees.cuts), start, self.real)
                steps = self.load(self.int64, self.address(self.trees.steps), slot)
                with self.loop(WORD // SIDE_BY_SIDE, carried=over_slots) as (group, over_rows):
                    in_block = code.add(
                        code.mul(word, self.whole(WORD)), code.mul(group, self.whole(SIDE_BY_SIDE))
                    )
                    values = []
                    for lane in range(SIDE_BY_SIDE):
                        row = code.add(code.add(first, in_block), self.whole(lane))
                        row = code.select(code.icmp_unsigned("<", row, last), row, last)
                        at = code.add(code.mul(row, width), column)
                        values.append(self.load(self.real, self.matrix, at))
                    found = self._searched(cuts, steps, values)
                    at = code.add(code.mul(slot, self.whole(BLOCK)), in_block)
                    for lane, (value, place) in enumerate(zip(values, found, strict=True)):
                        small = code.trunc(place, self.small)
                        self.store(small, self.bins, code.add(at, self.whole(lane)))
                        nothing = code.fsub(value, value)
                        strange = code.fcmp_unordered("uno", nothing, nothing)
                        over_rows[0] = code.add(over_rows[0], code.zext(strange, self.int64))
                over_slots[0] = self.carried[0]
            over_words[0] = self.carried[0]
        return self.carried[0]

    def _searched(self, cuts: Value, steps: Value, values: list[Value]) -> list[Value]:
        """How many of the cuts each value has passed: binary search without a branch."""
        code = self.code
        with self.loop(steps, carried=[self.whole(0)] * len(values)) as (step, found):
            left = code.sub(code.sub(steps, step), self.whole(1))
            half = code.shl(self.whole(1), left)
            below = self.place(cuts, code.sub(half, self.whole(1)), self.real)
            for lane, value in enumerate(values):
                cut = self.load(self.real, below, found[lane])
                passed = code.fcmp_ordered("<=" if self.trees.forest.strict else "<", cut, value)
                further = code.shl(code.zext(passed, self.int64), left)
                found[lane] = code.add(found[lane], further)
        return self.carried

    def _sum_leaves(self) -> None:
        """Tree after tree, each row's leaf is added to the output that the tree is of."""
        code, forest = self.code, self.trees
        inner, leaves = 2**forest.depth - 1, 2**forest.depth
        with self.loop(len(forest.leaves)) as tree:
            at = code.mul(tree, self.whole(inner))
            slots = self.place(self.address(forest.slot), at, self.int32)
            cuts = self.place(self.address(forest.cut), at, self.small)
            at = code.mul(tree, self.whole(leaves))
            values = self.place(self.address(forest.leaves), at, self.real)
            target = self.load(self.int64, self.address(forest.forest.targets), tree)
            sums = self.place(self.margins, code.mul(target, self.whole(BLOCK)), self.real)
            with self.loop(BLOCK // WORD) as word:
                first = code.mul(word, self.whole(WORD))
                code.store(self._leaf_numbers(slots, cuts, first), self.leaf)
                self._add(values, self.place(sums, first, self.real))

    def _leaf_numbers(self, slots: Value, cuts: Value, first: Value) -> Value:
        """Which leaf each of the rows comes to, in a byte."""
        code = self.code
        depth = self.trees.depth
        turns: list[Value] = []
        for level in range(depth):
            turns.append(self._turn(slots, cuts, first, 0, turns, level))
        numbers: Value = self.ir.Constant(self.numbers, [self.byte(0)] * WORD)
        for level, turn in enumerate(turns):
            bit = self.ir.Constant(self.numbers, [self.byte(1 << (depth - 1 - level))] * WORD)
            none = self.ir.Constant(self.numbers, [self.byte(0)] * WORD)
            chosen = code.select(code.bitcast(turn, self.answers), bit, none)
            numbers = code.or_(numbers, chosen)
        return numbers

    def _turn(
        self, slots: Value, cuts: Value, first: Value, place: int, above: list[Value], levels: int
    ) -> Value:
        """Where the rows turn `levels` below `place`, a bit a row, 1 for right."""
        code = self.code
        if not levels:
            return self._compared(slots, cuts, first, place)
        left, right = (
            self._turn(slots, cuts, first, child, above[1:], levels - 1)
            for child in (2 * place + 1, 2 * place + 2)
        )
        return code.xor(left, code.and_(code.xor(left, right), above[0]))

    def _compared(self, slots: Value, cuts: Value, first: Value, place: int) -> Value:
        """Whether each of the rows goes right at one place, a bit a row."""
        code, ir = self.code, self.ir
        slot = code.zext(self.load(self.int32, slots, self.whole(place)), self.int64)
        cut = self.load(self.small, cuts, self.whole(place))
        at = code.add(code.mul(slot, self.whole(BLOCK)), first)
        bins = code.load(self.place(self.bins, at, self.small), typ=self.word, align=CACHE_LINE)
        nothing = ir.Constant(self.word, ir.Undefined)
        one = code.insert_element(nothing, cut, self.int32(0))
        lanes = ir.Constant(ir.VectorType(self.int32, WORD), [self.int32(0)] * WORD)
        right = code.icmp_unsigned(">", bins, code.shuffle_vector(one, nothing, lanes))
        return code.bitcast(right, self.int64)

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
        with self.loop(len(self.trees.forest.base)) as output:
            row = code.mul(output, self.whole(BLOCK))
            to = code.add(code.mul(output, self.stride), first)
            with self.loop(count) as at:
                value = self.load(self.real, self.margins, code.add(row, at))
                self.store(value, self.out, code.add(to, at))
