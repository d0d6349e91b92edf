"""Writes where the values of a block come from: a matrix of features, or columns as they were read."""

from abc import ABC, abstractmethod

from lodestar.core.trees.bin_search import BinSearch
from lodestar.core.trees.block_writer import BLOCK
from lodestar.core.trees.machine_code import Value
from lodestar.core.trees.raw_columns import RawColumns
from lodestar.core.trees.vector_writer import WORD, VectorWriter

__all__ = ["FromColumns", "FromMatrix", "Inputs"]


class Inputs(ABC):
    """What the third argument of the function leads to."""

    @abstractmethod
    def find_bins(self, search: BinSearch, first: Value) -> Value:
        """All bins of the block of rows from `first` on; above 0 where a value is not finite."""


class FromMatrix(Inputs):
    """Features (n, p), C-ordered."""

    def find_bins(self, search: BinSearch, first: Value) -> Value:
        """Column after column."""
        write, code = search.write, search.write.code
        columns = write.address(search.binned.columns)
        with write.loop(len(search.binned.columns), carried=[write.whole(0)]) as (slot, strange):
            column = write.load(write.int64, columns, slot)
            with write.loop(BLOCK // write.lanes, carried=strange) as (group, counts):
                row = code.mul(group, write.whole(write.lanes))
                values = self._values(write, code.add(first, row), column)
                counts[0] = code.or_(counts[0], write.are_strange(values))
                search.find(slot, row, values)
            strange[0] = write.carried[0]
        return write.carried[0]

    @staticmethod
    def _values(write: VectorWriter, first: Value, column: Value) -> Value:
        found: Value = write.ir.Constant(write.values, write.ir.Undefined)
        for lane in range(write.lanes):
            value = write.value(write.code.add(first, write.whole(lane)), column)
            found = write.code.insert_element(found, value, write.int32(lane))
        return found


class FromColumns(Inputs):
    """Addresses: of the numbers of each numeric column, float64, and of the codes of each other one.

    Whole blocks of rows can be read there.
    """

    def __init__(self, raw: RawColumns) -> None:
        self.raw = raw

    def find_bins(self, search: BinSearch, first: Value) -> Value:
        """Numbers are scaled as numpy scales them and searched; a code's bins are known."""
        write = search.write
        with write.loop(len(self.raw.codes)) as slot:
            self._find_codes(search, first, slot)
        with write.loop(len(self.raw.numbers), carried=[write.whole(0)]) as (number, strange):
            strange[0] = self._find_numbers(search, first, number, strange[0])
        return write.carried[0]

    def _find_numbers(
        self, search: BinSearch, first: Value, number: Value, strange: Value
    ) -> Value:
        write, code = search.write, search.write.code
        plan = self.raw.numbers
        slot = write.load(write.int64, write.address(plan.slots), number)
        numbers = self._column(write, write.load(write.int64, write.address(plan.columns), number))
        doubles = write.ir.VectorType(write.double, write.lanes)
        mean, scale = (
            write.all_of(write.load(write.double, write.address(values), number), doubles)
            for values in (plan.means, plan.scales)
        )
        with write.loop(BLOCK // write.lanes, carried=[strange]) as (group, counts):
            row = code.mul(group, write.whole(write.lanes))
            raw = write.vector(doubles, numbers, code.add(first, row), align=plan.means.itemsize)
            values = self._scaled(write, raw, mean, scale)
            counts[0] = code.or_(counts[0], write.are_strange(values))
            search.find(slot, row, values)
        return write.carried[0]

    @staticmethod
    def _scaled(write: VectorWriter, raw: Value, mean: Value, scale: Value) -> Value:
        """As `SimpleScaler`: in float64, and 0 where a value is missing."""
        code = write.code
        scaled = code.fdiv(code.fsub(raw, mean), scale)
        missing = code.fcmp_unordered("uno", scaled, scaled)
        scaled = code.select(missing, write.ir.Constant(scaled.type, None), scaled)
        return code.fptrunc(scaled, write.values) if write.forest.single else scaled

    def _find_codes(self, search: BinSearch, first: Value, number: Value) -> None:
        """The bin of a column that is 1 where the code is its own, and 0 elsewhere."""
        write, code, plan = search.write, search.write.code, self.raw.codes
        itemsize = plan.own.itemsize
        small = write.ir.IntType(8 * itemsize)
        kinds = write.ir.VectorType(small, WORD)
        bins = write.ir.VectorType(search.small, WORD)
        slot = write.load(write.int64, write.address(plan.slots), number)
        codes = self._column(write, write.load(write.int64, write.address(plan.columns), number))
        own = write.all_of(write.load(small, write.address(plan.own), number), kinds)
        yes, no = (
            write.all_of(write.load(search.small, write.address(values), number), bins)
            for values in (plan.bins_of_one, plan.bins_of_zero)
        )
        with write.loop(BLOCK // WORD) as word:
            row = code.mul(word, write.whole(WORD))
            given = write.vector(kinds, codes, code.add(first, row), align=itemsize)
            found = code.select(code.icmp_unsigned("==", given, own), yes, no)
            at = code.add(code.mul(slot, write.whole(BLOCK)), row)
            code.store(found, write.place(write.room, at, search.small), align=WORD)

    @staticmethod
    def _column(write: VectorWriter, column: Value) -> Value:
        address = write.load(write.int64, write.matrix, column)
        return write.code.inttoptr(address, write.pointer)
