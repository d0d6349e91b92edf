"""The native kernel: one function that scales, encodes and walks trees, compiled at start-up.

LLVM makes it, so no compiler is needed on the machine. It is a few loops over the forest's arrays and
no code per tree: compiling takes milliseconds, whatever the model's size. Nothing in it is fast-math, so
every operation is rounded as the libraries round theirs.
"""

import ctypes
import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lodestar.serving.plan.c_library import math_function
from lodestar.serving.plan.encoding import Numbers
from lodestar.serving.plan.forest import LANES, Forest, NotPlannedError

__all__ = ["Kernel"]

# llvmlite publishes no types: a value of the function, and the type of one.
Value: TypeAlias = Any
Kind: TypeAlias = Any
# Above it XGBoost cuts the exponent (src/common/math.h, Sigmoid).
LARGEST = 88.7


class Kernel:
    """The compiled function; `call(rows, numbers, groups, ones, matrix, out)` takes addresses.

    `numbers`: float64, column after column. `groups`: int64, which moments each row takes.
    `ones`: int64, `encoded` columns one after another, where in the matrix a row has a 1.
    `matrix`: room for width + 1 values a row. `out`: a value a row for each of the forest's `base`.
    """

    def __init__(self, forest: Forest, numbers: Numbers, *, encoded: int) -> None:
        llvm = _llvm("binding")
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
        )
        module = llvm.parse_assembly(str(_Writer(forest, numbers, encoded).module))
        module.verify()
        # The code has the arrays' addresses in it.
        self._kept = (forest, numbers)
        self._engine = llvm.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()
        kind = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 6)
        self.call = kind(self._engine.get_function_address("score"))


def _llvm(part: str) -> Any:  # noqa: ANN401 -- a module without types
    try:
        return importlib.import_module(f"llvmlite.{part}")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("llvmlite"):
            raise
        raise NotPlannedError("llvmlite is not installed") from error
    except OSError as error:
        raise NotPlannedError(f"llvmlite is installed, but does not load: {error}") from error


class _Writer:
    """Writes the function in LLVM's language."""

    def __init__(self, forest: Forest, numbers: Numbers, encoded: int) -> None:
        ir = _llvm("ir")
        self.ir, self.forest, self.moments = ir, forest, numbers
        self.pointer, self.int64, self.double = ir.PointerType(), ir.IntType(64), ir.DoubleType()
        self.real = ir.FloatType() if forest.single else self.double
        self.row_width = forest.width + 1
        self.module = ir.Module()
        kind = ir.FunctionType(ir.VoidType(), [self.int64, *[self.pointer] * 5])
        function = ir.Function(self.module, kind, "score")
        self.rows, self.numbers, self.groups, self.ones, self.matrix, self.out = function.args
        self.code = ir.IRBuilder(function.append_basic_block())
        self._blank()
        self._scale()
        self._encode(encoded)
        self._start()
        self._walk()
        self._link()
        self.code.ret_void()

    def _blank(self) -> None:
        """A matrix of zeros, with infinity behind each row for the leaves to meet."""
        with self._loop(self.code.mul(self.rows, self._int(self.row_width))) as cell:
            self._store(self.real(0.0), self.matrix, cell)
        with self._loop(self.rows) as row:
            self._store(
                self.real(np.inf), self.matrix, self._cell(row, self._int(self.forest.width))
            )

    def _scale(self) -> None:
        """(x - mean) / deviation in float64, 0 for what is missing; stored as the trees compute."""
        columns, groups = self.moments.mean.shape
        with self._loop(columns) as column:
            place = self._load(self.int64, self._address(self.moments.places), column)
            first = self.code.mul(column, self.rows)
            of_column = self.code.mul(column, self._int(groups))
            with self._loop(self.rows) as row:
                value = self._load(self.double, self.numbers, self.code.add(first, row))
                group = self._load(self.int64, self.groups, row)
                moment = self.code.add(of_column, group)
                mean = self._load(self.double, self._address(self.moments.mean), moment)
                scale = self._load(self.double, self._address(self.moments.scale), moment)
                scaled = self.code.fdiv(self.code.fsub(value, mean), scale)
                missing = self.code.fcmp_unordered("uno", scaled, scaled)
                scaled = self.code.select(missing, self.double(0.0), scaled)
                if self.forest.single:
                    scaled = self.code.fptrunc(scaled, self.real)
                self._store(scaled, self.matrix, self._cell(row, place))

    def _encode(self, columns: int) -> None:
        """A 1 in the column of each category."""
        with self._loop(columns) as column:
            first = self.code.mul(column, self.rows)
            with self._loop(self.rows) as row:
                place = self._load(self.int64, self.ones, self.code.add(first, row))
                self._store(self.real(1.0), self.matrix, self._cell(row, place))

    def _start(self) -> None:
        """Every output begins at its base margin."""
        stride = len(self.forest.base)
        with self._loop(self.rows) as row, self._loop(stride) as output:
            base = self._load(self.real, self._address(self.forest.base), output)
            self._store(base, self.out, self._output(row, output))

    def _walk(self) -> None:
        """Some trees side by side through all rows, then the next ones; sums are in the trees' order."""
        whole = self.ir.IntType(16 if self.forest.single else 32)
        node = self.ir.LiteralStructType([whole, whole, self.real])
        nodes = self._address(self.forest.nodes)
        with self._loop(len(self.forest.depths)) as block:
            depth = self._load(self.int64, self._address(self.forest.depths), block)
            trees = [
                self.code.add(self.code.mul(block, self._int(LANES)), self._int(lane))
                for lane in range(LANES)
            ]
            roots = [
                self.code.gep(
                    nodes,
                    [self._load(self.int64, self._address(self.forest.roots), tree)],
                    source_etype=node,
                )
                for tree in trees
            ]
            targets = [
                self._load(self.int64, self._address(self.forest.targets), tree) for tree in trees
            ]
            with self._loop(self.rows) as row:
                features = self.code.gep(
                    self.matrix, [self._cell(row, self._int(0))], source_etype=self.real
                )
                leaves = self._descend(depth, roots, features, node)
                for leaf, target in zip(leaves, targets, strict=True):
                    at = self._output(row, target)
                    so_far = self._load(self.real, self.out, at)
                    value = self.code.load(self._member(leaf, node, 2), typ=self.real)
                    self._store(self.code.fadd(so_far, value), self.out, at)

    def _descend(
        self, depth: Value, roots: Sequence[Value], features: Value, node: Kind
    ) -> list[Value]:
        """Where `depth` steps from each root lead."""
        with self._loop(depth, carried=roots) as (step, places):
            del step
            for lane, place in enumerate(places):
                short = [
                    self.code.load(self._member(place, node, member), typ=node.elements[member])
                    for member in (0, 1)
                ]
                feature = self.code.zext(short[0], self.int64)
                delta = self.code.sext(short[1], self.int64)
                threshold = self.code.load(self._member(place, node, 2), typ=self.real)
                value = self._load(self.real, features, feature)
                right = self.code.fcmp_unordered(
                    ">=" if self.forest.strict else ">", value, threshold
                )
                further = self.code.add(delta, self.code.zext(right, self.int64))
                places[lane] = self.code.gep(place, [further], source_etype=node)
        return self.carried

    def _link(self) -> None:
        if self.forest.link == "logistic":
            with self._loop(self.rows) as row:
                self._logistic(row)
        if self.forest.link == "softmax":
            with self._loop(self.rows) as row:
                self._softmax(row)

    def _logistic(self, row: Value) -> None:
        """1 / (1 + exp(-slope × margin)), and before it 1 minus that."""
        at = [self._output(row, self._int(output)) for output in (0, 1)]
        margin = self._load(self.real, self.out, at[1])
        one = self.real(1.0)
        if self.forest.single:
            power, largest = self.code.fneg(margin), self.real(LARGEST)
            power = self.code.select(self.code.fcmp_ordered("<", largest, power), largest, power)
            below = self.code.fadd(self._exp(power), one)
        else:
            power = self.code.fmul(self.real(-self.forest.slope), margin)
            below = self.code.fadd(one, self._exp(power))
        positive = self.code.fdiv(one, below)
        self._store(self.code.fsub(one, positive), self.out, at[0])
        self._store(positive, self.out, at[1])

    def _softmax(self, row: Value) -> None:
        """exp(margin - largest margin) over their sum, which is kept in float64."""
        at = [self._output(row, self._int(output)) for output in range(len(self.forest.base))]
        margins = [self._load(self.real, self.out, place) for place in at]
        largest = margins[0]
        for margin in margins[1:]:
            larger = self.code.fcmp_ordered(">", margin, largest)
            largest = self.code.select(larger, margin, largest)
        powers = [self._exp(self.code.fsub(margin, largest)) for margin in margins]
        total: Any = self.double(0.0)
        for power in powers:
            wide = self.code.fpext(power, self.double) if self.forest.single else power
            total = self.code.fadd(total, wide)
        if self.forest.single:
            total = self.code.fptrunc(total, self.real)
        for power, place in zip(powers, at, strict=True):
            self._store(self.code.fdiv(power, total), self.out, place)

    def _exp(self, power: Value) -> Value:
        address = math_function("expf" if self.forest.single else "exp")
        kind = self.ir.FunctionType(self.real, [self.real])
        function = self.code.inttoptr(self._int(address), kind.as_pointer())
        return self.code.call(function, [power])

    @contextmanager
    def _loop(self, stop: Value, carried: Sequence[Value] | None = None) -> Iterator[Any]:
        """A loop from 0; yields its index, and `carried` values, to be replaced by the next ones."""
        stop = self._int(stop) if isinstance(stop, int) else stop
        before = self.code.block
        head, body, after = (self.code.append_basic_block() for _ in range(3))
        self.code.branch(head)
        self.code.position_at_end(head)
        index = self.code.phi(self.int64)
        index.add_incoming(self._int(0), before)
        phis = [self.code.phi(self.pointer) for _ in carried or ()]
        for phi, first in zip(phis, carried or (), strict=True):
            phi.add_incoming(first, before)
        self.code.cbranch(self.code.icmp_unsigned("<", index, stop), body, after)
        self.code.position_at_end(body)
        values = list(phis)
        yield index if carried is None else (index, values)
        index.add_incoming(self.code.add(index, self._int(1)), self.code.block)
        for phi, value in zip(phis, values, strict=True):
            phi.add_incoming(value, self.code.block)
        self.code.branch(head)
        self.code.position_at_end(after)
        self.carried = phis

    def _cell(self, row: Value, column: Value) -> Value:
        return self.code.add(self.code.mul(row, self._int(self.row_width)), column)

    def _output(self, row: Value, output: Value) -> Value:
        return self.code.add(self.code.mul(row, self._int(len(self.forest.base))), output)

    def _address(self, array: NDArray[Any]) -> Value:
        return self._int(array.ctypes.data).inttoptr(self.pointer)

    def _member(self, place: Value, node: Kind, member: int) -> Value:
        indices = [self._int(0), self.ir.IntType(32)(member)]
        return self.code.gep(place, indices, source_etype=node)

    def _load(self, kind: Kind, base: Value, index: Value) -> Value:
        return self.code.load(self.code.gep(base, [index], source_etype=kind), typ=kind)

    def _store(self, value: Value, base: Value, index: Value) -> None:
        self.code.store(value, self.code.gep(base, [index], source_etype=value.type))

    def _int(self, value: int) -> Value:
        return self.int64(value)
