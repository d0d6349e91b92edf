"""Writes how many rows go through trees: what is the same for every form that trees are kept in.

Rows go in blocks: they are made ready, then all of them go through tree after tree, then margins become
predictions. Sums are in the trees' order, as the libraries have them.
"""

from abc import ABC, abstractmethod

from lodestar.core.trees.forest import Forest
from lodestar.core.trees.links import Margins
from lodestar.core.trees.machine_code import Value, Writer

__all__ = ["BLOCK", "BlockWriter"]

BLOCK = 256  # rows that go through all trees before the next ones


class BlockWriter(Writer, ABC):
    """Writes the function in LLVM's language.

    `score(rows, stride, matrix, out, room, margins)` returns how many values were not finite. `stride`
    values lie between two outputs of a row in `out`; `room` and `margins` are for a block.
    """

    def __init__(self, forest: Forest) -> None:
        super().__init__(wholes=2, pointers=4)
        self.forest = forest
        self.real = self.number(forest.base.dtype)
        self.rows, self.stride, self.matrix, self.out, self.room, self.sums = self.arguments
        code, block = self.code, self.whole(BLOCK)
        self.margins = Margins(
            self, forest, self.sums, lambda row, output: code.add(code.mul(output, block), row)
        )

    @property
    @abstractmethod
    def bytes_of_room(self) -> int:
        """How much room a block takes."""

    @abstractmethod
    def make_ready(self, first: Value) -> Value:
        """Fill the room with the rows from `first` on; how many of their values are not finite."""

    @abstractmethod
    def sum_leaves(self) -> None:
        """Tree after tree, each row's leaf is added to the output that the tree is of."""

    def write(self) -> None:
        """Block after block: rows, trees, the link, and out."""
        code, block = self.code, self.whole(BLOCK)
        blocks = code.udiv(code.add(self.rows, self.whole(BLOCK - 1)), block)
        with self.loop(blocks, carried=[self.whole(0)]) as (number, strange):
            first = code.mul(number, block)
            strange[0] = code.add(strange[0], self.make_ready(first))
            self.margins.start(block)
            self.sum_leaves()
            self.margins.link(block)
            self._hand_over(first)
        code.ret(self.carried[0])

    def value(self, row: Value, column: Value) -> Value:
        """Of the matrix; behind the last row it stands once more, so that no row is outside."""
        code = self.code
        last = code.sub(self.rows, self.whole(1))
        row = code.select(code.icmp_unsigned("<", row, last), row, last)
        at = code.add(code.mul(row, self.whole(self.forest.width)), column)
        return self.load(self.real, self.matrix, at)

    def is_strange(self, value: Value) -> Value:
        """1 where it is not finite, else 0."""
        nothing = self.code.fsub(value, value)
        return self.code.zext(self.code.fcmp_unordered("uno", nothing, nothing), self.int64)

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
                value = self.load(self.real, self.sums, code.add(row, at))
                self.store(value, self.out, code.add(to, at))
