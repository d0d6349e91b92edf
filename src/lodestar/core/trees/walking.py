"""Large trees: walked node by node, as their leaves are too many to be told one by one."""

import numpy as np

from lodestar.core.trees.block_writer import BLOCK, BlockWriter
from lodestar.core.trees.forest import Forest
from lodestar.core.trees.machine_code import Value
from lodestar.core.trees.walk import Walk

__all__ = ["WalkingWriter"]


class WalkingWriter(BlockWriter):
    """Writes the function over a block's own rows."""

    def __init__(self, forest: Forest) -> None:
        super().__init__(forest)
        self.walk = Walk(self, forest, self.room)
        self.write()

    @property
    def bytes_of_room(self) -> int:
        """The rows, and a value behind each."""
        return BLOCK * (self.forest.width + 1) * self.forest.base.itemsize

    def make_ready(self, first: Value) -> Value:
        """Copy the rows of a block; how many of their values are not finite."""
        code = self.code
        with self.loop(BLOCK, carried=[self.whole(0)]) as (row, over_rows):
            with self.loop(self.forest.width, carried=over_rows) as (column, over_columns):
                value = self.value(code.add(first, row), column)
                self.store(value, self.room, self.walk.cell(row, column))
                over_columns[0] = code.add(over_columns[0], self.is_strange(value))
            behind = self.walk.cell(row, self.whole(self.forest.width))
            self.store(self.real(np.inf), self.room, behind)
            over_rows[0] = self.carried[0]
        return self.carried[0]

    def sum_leaves(self) -> None:
        """As the walk does it."""
        self.walk.sum_leaves(self.whole(BLOCK), self.margins)
