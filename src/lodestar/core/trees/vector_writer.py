"""Writes what is done with the lanes of a vector: one value for each of several rows."""

from abc import ABC

from lodestar.core.trees.block_writer import BlockWriter
from lodestar.core.trees.forest import Forest
from lodestar.core.trees.machine_code import Kind, Value

__all__ = ["CACHE_LINE", "WORD", "VectorWriter"]

WORD = 64  # rows whose answers are the bits of one word
CACHE_LINE = 64  # bytes
VECTOR = 64  # bytes of the widest vectors; narrower ones are made of it where the machine has those


class VectorWriter(BlockWriter, ABC):
    """Knows vectors of as many of the forest's numbers, and of as many indices, as there are lanes."""

    def __init__(self, forest: Forest, *, picks: bool) -> None:
        """`picks`: lanes are picked out of vectors, which takes a machine that `picks_lanes`."""
        super().__init__(forest)
        self.picks = picks
        self.byte, self.int32 = self.ir.IntType(8), self.ir.IntType(32)
        self.lanes = VECTOR // forest.base.itemsize
        self.values = self.ir.VectorType(self.real, self.lanes)
        self.indices = self.ir.VectorType(self.int32, self.lanes)

    def all_of(self, value: Value, kind: Kind) -> Value:
        """A vector of the same value."""
        nothing = self.ir.Constant(kind, self.ir.Undefined)
        one = self.code.insert_element(nothing, value, self.int32(0))
        lanes = self.ir.VectorType(self.int32, kind.count)
        return self.code.shuffle_vector(one, nothing, self.ir.Constant(lanes, None))

    def index(self, value: int) -> Value:
        """A constant, the same in each lane."""
        return self.ir.Constant(self.indices, [self.int32(value)] * self.lanes)

    def vector(self, kind: Kind, base: Value, index: Value, *, align: int) -> Value:
        """The values from number `index` on; `base` and what is added to it are `align`ed."""
        return self.code.load(self.place(base, index, kind.element), typ=kind, align=align)

    def are_strange(self, values: Value) -> Value:
        """Above 0 where a lane's value is not finite."""
        nothing = self.code.fsub(values, values)
        lanes = self.code.fcmp_unordered("uno", nothing, nothing)
        return self.code.zext(self.code.bitcast(lanes, self.ir.IntType(self.lanes)), self.int64)

    def gathered(self, base: Value, places: Value) -> Value:
        """The values that lie at each lane's place, loaded one after another."""
        found: Value = self.ir.Constant(self.values, self.ir.Undefined)
        for lane in map(self.int32, range(self.lanes)):
            place = self.code.zext(self.code.extract_element(places, lane), self.int64)
            found = self.code.insert_element(found, self.load(self.real, base, place), lane)
        return found

    def picked(self, vector: Value, places: Value) -> Value:
        """The vector's own values at each lane's place; LLVM knows this form of one instruction."""
        found: Value = self.ir.Constant(self.values, self.ir.Undefined)
        for lane in map(self.int32, range(self.lanes)):
            value = self.code.extract_element(vector, self.code.extract_element(places, lane))
            found = self.code.insert_element(found, value, lane)
        return found
