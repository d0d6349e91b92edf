"""From margins to predictions, in machine code, as the libraries compute it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lodestar.core.trees.c_library import math_function
from lodestar.core.trees.forest import Forest
from lodestar.core.trees.machine_code import Kind, Value, Writer

__all__ = ["Margins"]

# Above it XGBoost cuts the exponent (src/common/math.h, Sigmoid).
LARGEST = 88.7


@dataclass(frozen=True)
class Margins:
    """Margins in memory: output `output` of row `row` is number `at(row, output)` from `out` on."""

    writer: Writer
    forest: Forest
    out: Value
    at: Callable[[Value, Value], Value]

    def start(self, rows: Value) -> None:
        """Every output begins at its base margin."""
        write = self.writer
        with write.loop(len(self.forest.base)) as output:
            base = write.load(self._real, write.address(self.forest.base), output)
            with write.loop(rows) as row:
                write.store(base, self.out, self.at(row, output))

    def link(self, rows: Value) -> None:
        """Turn them into predictions, in place."""
        if self.forest.link == "logistic":
            with self.writer.loop(rows) as row:
                self._logistic(row)
        if self.forest.link == "softmax":
            with self.writer.loop(rows) as row:
                self._softmax(row)

    def _logistic(self, row: Value) -> None:
        """1 / (1 + exp(-slope × margin)), and before it 1 minus that."""
        write, code = self.writer, self.writer.code
        at = [self.at(row, write.whole(output)) for output in (0, 1)]
        margin = write.load(self._real, self.out, at[1])
        one = self._real(1.0)
        if self.forest.single:
            power, largest = code.fneg(margin), self._real(LARGEST)
            power = code.select(code.fcmp_ordered("<", largest, power), largest, power)
            below = code.fadd(self._exp(power), one)
        else:
            power = code.fmul(self._real(-self.forest.slope), margin)
            below = code.fadd(one, self._exp(power))
        positive = code.fdiv(one, below)
        write.store(code.fsub(one, positive), self.out, at[0])
        write.store(positive, self.out, at[1])

    def _softmax(self, row: Value) -> None:
        """exp(margin - largest margin) over their sum, which is kept in float64."""
        write, code = self.writer, self.writer.code
        at = [self.at(row, write.whole(output)) for output in range(len(self.forest.base))]
        margins = [write.load(self._real, self.out, place) for place in at]
        largest = margins[0]
        for margin in margins[1:]:
            larger = code.fcmp_ordered(">", margin, largest)
            largest = code.select(larger, margin, largest)
        powers = [self._exp(code.fsub(margin, largest)) for margin in margins]
        total: Any = write.double(0.0)
        for power in powers:
            wide = code.fpext(power, write.double) if self.forest.single else power
            total = code.fadd(total, wide)
        if self.forest.single:
            total = code.fptrunc(total, self._real)
        for power, place in zip(powers, at, strict=True):
            write.store(code.fdiv(power, total), self.out, place)

    @property
    def _real(self) -> Kind:
        return self.writer.number(self.forest.base.dtype)

    def _exp(self, power: Value) -> Value:
        write = self.writer
        address = math_function("expf" if self.forest.single else "exp")
        kind = write.ir.FunctionType(self._real, [self._real])
        function = write.code.inttoptr(write.whole(address), kind.as_pointer())
        return write.code.call(function, [power])
