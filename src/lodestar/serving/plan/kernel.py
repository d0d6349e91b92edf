"""The native kernel: one function that scales, encodes and walks trees, compiled at start-up.

It is a few loops over the forest's arrays and no code per tree: compiling takes milliseconds, whatever
the model's size.
"""

import numpy as np

from lodestar.core.trees.forest import Forest
from lodestar.core.trees.links import Margins
from lodestar.core.trees.machine_code import Compiled, Value, Writer
from lodestar.core.trees.walk import Walk
from lodestar.serving.plan.encoding import Numbers

__all__ = ["Kernel"]


class Kernel(Compiled):
    """The compiled function; `call(rows, numbers, groups, ones, matrix, out)` takes addresses.

    `numbers`: float64, column after column. `groups`: int64, which moments each row takes.
    `ones`: int64, `encoded` columns one after another, where in the matrix a row has a 1.
    `matrix`: room for width + 1 values a row. `out`: a value a row for each of the forest's `base`.
    """

    def __init__(self, forest: Forest, numbers: Numbers, *, encoded: int) -> None:
        super().__init__(_Writer(forest, numbers, encoded))


class _Writer(Writer):
    """Writes the function in LLVM's language."""

    def __init__(self, forest: Forest, numbers: Numbers, encoded: int) -> None:
        super().__init__(wholes=1, pointers=5)
        self.forest, self.moments = forest, numbers
        self.real = self.number(forest.base.dtype)
        self.row_width = forest.width + 1
        self.rows, self.numbers, self.groups, self.ones, self.matrix, self.out = self.arguments
        self.walk = Walk(self, forest, self.matrix)
        self._blank()
        self._scale()
        self._encode(encoded)
        margins = Margins(self, forest, self.out, self._output)
        margins.start(self.rows)
        self.walk.sum_leaves(self.rows, margins)
        margins.link(self.rows)
        self.code.ret(self.whole(0))

    def _blank(self) -> None:
        """A matrix of zeros, with infinity behind each row for the leaves to meet."""
        with self.loop(self.code.mul(self.rows, self.whole(self.row_width))) as cell:
            self.store(self.real(0.0), self.matrix, cell)
        with self.loop(self.rows) as row:
            self.store(
                self.real(np.inf), self.matrix, self.walk.cell(row, self.whole(self.forest.width))
            )

    def _scale(self) -> None:
        """(x - mean) / deviation in float64, 0 for what is missing; stored as the trees compute."""
        columns, groups = self.moments.mean.shape
        with self.loop(columns) as column:
            place = self.load(self.int64, self.address(self.moments.places), column)
            first = self.code.mul(column, self.rows)
            of_column = self.code.mul(column, self.whole(groups))
            with self.loop(self.rows) as row:
                value = self.load(self.double, self.numbers, self.code.add(first, row))
                group = self.load(self.int64, self.groups, row)
                moment = self.code.add(of_column, group)
                mean = self.load(self.double, self.address(self.moments.mean), moment)
                scale = self.load(self.double, self.address(self.moments.scale), moment)
                scaled = self.code.fdiv(self.code.fsub(value, mean), scale)
                missing = self.code.fcmp_unordered("uno", scaled, scaled)
                scaled = self.code.select(missing, self.double(0.0), scaled)
                if self.forest.single:
                    scaled = self.code.fptrunc(scaled, self.real)
                self.store(scaled, self.matrix, self.walk.cell(row, place))

    def _encode(self, columns: int) -> None:
        """A 1 in the column of each category."""
        with self.loop(columns) as column:
            first = self.code.mul(column, self.rows)
            with self.loop(self.rows) as row:
                place = self.load(self.int64, self.ones, self.code.add(first, row))
                self.store(self.real(1.0), self.matrix, self.walk.cell(row, place))

    def _output(self, row: Value, output: Value) -> Value:
        return self.code.add(self.code.mul(row, self.whole(len(self.forest.base))), output)
