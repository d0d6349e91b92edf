"""Writes how the values of several rows become bins at once: binary search without a branch."""

import numpy as np

from lodestar.core.trees.bins import BinnedForest
from lodestar.core.trees.block_writer import BLOCK
from lodestar.core.trees.machine_code import Value
from lodestar.core.trees.vector_writer import VectorWriter

__all__ = ["BinSearch"]


class BinSearch:
    """Writes the search among a slot's cuts, and keeps what it finds in the room of a block.

    Its first steps are among cuts that fit into one vector.
    """

    def __init__(self, write: VectorWriter, binned: BinnedForest) -> None:
        self.write, self.binned = write, binned
        self.first_steps = write.lanes.bit_length() - 1
        self.small = write.ir.IntType(8 * binned.cut.itemsize)
        apart = [1 << int(step) - self.first_steps for step in binned.steps]
        tops = np.full((len(apart), write.lanes), np.inf, binned.cuts.dtype)
        for top, start, step in zip(tops, binned.starts, apart, strict=True):
            top[:-1] = binned.cuts[start + step - 1 :: step][: write.lanes - 1]
        self.tops = tops

    def find(self, slot: Value, row: Value, values: Value) -> None:
        """Bins of as many values as there are lanes, of the block's rows from `row` on."""
        write, code = self.write, self.write.code
        kind = write.ir.VectorType(self.small, write.lanes)
        at = code.add(code.mul(slot, write.whole(BLOCK)), row)
        bins = code.trunc(self._searched(slot, values), kind)
        align = write.lanes * self.binned.cut.itemsize
        code.store(bins, write.place(write.room, at, self.small), align=align)

    def _searched(self, slot: Value, values: Value) -> Value:
        """How many of the cuts each value has passed."""
        write, code = self.write, self.write.code
        tops = write.address(self.tops)
        at = code.mul(slot, write.whole(write.lanes))
        top = write.vector(write.values, tops, at, align=self.tops.itemsize)
        found = write.index(0)
        for step in range(self.first_steps):
            half = write.lanes >> step + 1
            places = code.add(found, write.index(half - 1))
            cuts = write.picked(top, places)
            found = self._passed(cuts, values, found, write.index(half))
        return self._searched_further(slot, values, found)

    def _searched_further(self, slot: Value, values: Value, found: Value) -> Value:
        write, code, binned = self.write, self.write.code, self.binned
        start = write.load(write.int64, write.address(binned.starts), slot)
        steps = write.load(write.int64, write.address(binned.steps), slot)
        cuts = write.place(write.address(binned.cuts), start, write.real)
        left = code.sub(steps, write.whole(self.first_steps))
        shift = write.all_of(code.trunc(left, write.int32), write.indices)
        with write.loop(left, carried=[code.shl(found, shift)]) as (step, places):
            half = code.shl(write.whole(1), code.sub(code.sub(left, step), write.whole(1)))
            halves = write.all_of(code.trunc(half, write.int32), write.indices)
            below = write.place(cuts, code.sub(half, write.whole(1)), write.real)
            places[0] = self._passed(write.gathered(below, places[0]), values, places[0], halves)
        return write.carried[0]

    def _passed(self, cuts: Value, values: Value, found: Value, more: Value) -> Value:
        """`more` are found where the value has passed the cut."""
        code, compare = self.write.code, "<=" if self.binned.forest.strict else "<"
        passed = code.fcmp_ordered(compare, cuts, values)
        return code.select(passed, code.add(found, more), found)
