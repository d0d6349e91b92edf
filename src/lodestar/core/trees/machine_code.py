"""Functions in LLVM's language, compiled in this process: no compiler is needed on the machine.

Nothing in them is fast-math, so every operation is rounded as the libraries round theirs.
"""

import ctypes
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lodestar.core.trees.forest import NotPlannedError
from lodestar.errors import first_line

__all__ = ["Compiled", "Kind", "Value", "Writer", "picks_lanes"]

# llvmlite publishes no types: a value of the function, and the type of one.
Value: TypeAlias = Any
Kind: TypeAlias = Any


class Compiled:
    """A function in this machine's own instructions; `call` takes whole numbers and addresses.

    Raises:
        NotPlannedError: LLVM cannot make it here.
    """

    def __init__(self, writer: "Writer") -> None:
        self._kept = writer.kept
        try:
            self._engine = _engine(str(writer.module))
        except RuntimeError as error:
            raise NotPlannedError(f"LLVM compiles nothing here: {first_line(error)}") from error
        arguments = [ctypes.c_int64] * len(writer.arguments)
        kind = ctypes.CFUNCTYPE(ctypes.c_int64, *arguments)
        self.call: Callable[..., int] = kind(self._engine.get_function_address(writer.name))


class Writer:
    """Writes one function, which returns a whole number.

    Raises:
        NotPlannedError: llvmlite is not installed.
    """

    name = "score"

    def __init__(self, *, wholes: int, pointers: int) -> None:
        ir = _llvm("ir")
        self.ir = ir
        self.pointer, self.int64, self.double = ir.PointerType(), ir.IntType(64), ir.DoubleType()
        self.module = ir.Module()
        kinds = [*[self.int64] * wholes, *[self.pointer] * pointers]
        function = ir.Function(self.module, ir.FunctionType(self.int64, kinds), self.name)
        self.arguments = function.args
        self.code = ir.IRBuilder(function.append_basic_block())
        self.kept: list[NDArray[Any]] = []

    @contextmanager
    def loop(self, stop: Value, carried: Sequence[Value] | None = None) -> Iterator[Any]:
        """A loop from 0; yields its index, and `carried` values, to be replaced by the next ones."""
        stop = self.whole(stop) if isinstance(stop, int) else stop
        before = self.code.block
        head, body, after = (self.code.append_basic_block() for _ in range(3))
        self.code.branch(head)
        self.code.position_at_end(head)
        index = self.code.phi(self.int64)
        index.add_incoming(self.whole(0), before)
        phis = [self.code.phi(first.type) for first in carried or ()]
        for phi, first in zip(phis, carried or (), strict=True):
            phi.add_incoming(first, before)
        self.code.cbranch(self.code.icmp_unsigned("<", index, stop), body, after)
        self.code.position_at_end(body)
        values = list(phis)
        yield index if carried is None else (index, values)
        index.add_incoming(self.code.add(index, self.whole(1)), self.code.block)
        for phi, value in zip(phis, values, strict=True):
            phi.add_incoming(value, self.code.block)
        self.code.branch(head)
        self.code.position_at_end(after)
        self.carried = phis

    def number(self, dtype: "np.dtype[Any]") -> Kind:
        """The type of numpy's float32, or of its float64."""
        return self.ir.FloatType() if dtype == np.float32 else self.double

    def place(self, base: Value, index: Value, kind: Kind) -> Value:
        """Where the value number `index` lies."""
        return self.code.gep(base, [index], source_etype=kind)

    def load(self, kind: Kind, base: Value, index: Value) -> Value:
        """The value number `index`."""
        return self.code.load(self.place(base, index, kind), typ=kind)

    def store(self, value: Value, base: Value, index: Value) -> None:
        """Put it at the number `index`."""
        self.code.store(value, self.place(base, index, value.type))

    def address(self, array: NDArray[Any]) -> Value:
        """A constant; the array is kept as long as the function."""
        self.kept.append(array)
        return self.whole(array.ctypes.data).inttoptr(self.pointer)

    def whole(self, value: int) -> Value:
        """A constant."""
        return self.int64(value)


def picks_lanes() -> bool:
    """Whether this machine picks any lanes of a 64-byte vector by one instruction.

    Raises:
        NotPlannedError: llvmlite is not installed.
    """
    return bool(_llvm("binding").get_host_cpu_features().get("avx512f"))


def _engine(text: str) -> Any:  # noqa: ANN401 -- one of llvmlite's objects
    """The compiled module, which is there as long as this."""
    llvm = _llvm("binding")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
    )
    module = llvm.parse_assembly(text)
    module.verify()
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine


def _llvm(part: str) -> Any:  # noqa: ANN401 -- a module without types
    try:
        return importlib.import_module(f"llvmlite.{part}")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("llvmlite"):
            raise
        raise NotPlannedError("llvmlite is not installed") from error
    except OSError as error:
        raise NotPlannedError(f"llvmlite is installed, but does not load: {error}") from error
