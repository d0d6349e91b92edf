"""Walks trees node by node, some of them side by side: for few rows, or for large trees."""

from collections.abc import Sequence
from dataclasses import dataclass

from lodestar.core.trees.forest import LANES, Forest
from lodestar.core.trees.links import Margins
from lodestar.core.trees.machine_code import Kind, Value, Writer

__all__ = ["Walk"]


@dataclass(frozen=True)
class Walk:
    """Rows in memory, from `matrix` on: a forest's `width` values and infinity, which leaves meet."""

    writer: Writer
    forest: Forest
    matrix: Value

    def cell(self, row: Value, column: Value) -> Value:
        """Which value a row's column is."""
        code = self.writer.code
        return code.add(code.mul(row, self.writer.whole(self.forest.width + 1)), column)

    def sum_leaves(self, rows: Value, margins: Margins) -> None:
        """Some trees side by side through all rows, then the next ones; sums are in the trees' order."""
        write, code, forest = self.writer, self.writer.code, self.forest
        nodes = write.address(forest.nodes)
        with write.loop(len(forest.depths)) as block:
            depth = write.load(write.int64, write.address(forest.depths), block)
            trees = [
                code.add(code.mul(block, write.whole(LANES)), write.whole(lane))
                for lane in range(LANES)
            ]
            starts = [write.load(write.int64, write.address(forest.roots), tree) for tree in trees]
            roots = [write.place(nodes, start, self._node) for start in starts]
            targets = [
                write.load(write.int64, write.address(forest.targets), tree) for tree in trees
            ]
            with write.loop(rows) as row:
                features = write.place(self.matrix, self.cell(row, write.whole(0)), self._real)
                leaves = self._descend(depth, roots, features)
                for leaf, target in zip(leaves, targets, strict=True):
                    at = margins.at(row, target)
                    so_far = write.load(self._real, margins.out, at)
                    write.store(code.fadd(so_far, self._member(leaf, 2)), margins.out, at)

    def _descend(self, depth: Value, roots: Sequence[Value], features: Value) -> list[Value]:
        """Where `depth` steps from each root lead."""
        write, code = self.writer, self.writer.code
        compare = ">=" if self.forest.strict else ">"
        with write.loop(depth, carried=roots) as (step, places):
            del step
            for lane, place in enumerate(places):
                feature = code.zext(self._member(place, 0), write.int64)
                delta = code.sext(self._member(place, 1), write.int64)
                value = write.load(self._real, features, feature)
                right = code.fcmp_unordered(compare, value, self._member(place, 2))
                further = code.add(delta, code.zext(right, write.int64))
                places[lane] = write.place(place, further, self._node)
        return write.carried

    def _member(self, place: Value, member: int) -> Value:
        write = self.writer
        indices = [write.whole(0), write.ir.IntType(32)(member)]
        found = write.code.gep(place, indices, source_etype=self._node)
        return write.code.load(found, typ=self._node.elements[member])

    @property
    def _real(self) -> Kind:
        return self.writer.number(self.forest.base.dtype)

    @property
    def _node(self) -> Kind:
        whole = self.writer.ir.IntType(16 if self.forest.single else 32)
        return self.writer.ir.LiteralStructType([whole, whole, self._real])
