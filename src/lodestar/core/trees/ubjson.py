"""Reads XGBoost's model format, universal binary JSON with typed arrays, straight into numpy.

https://ubjson.org and XGBoost's src/common/json.cc; JSON text of the same would take twenty times
the memory while it is read.
"""

import struct
from typing import Any

import numpy as np

__all__ = ["read_ubjson"]

_NUMBERS = {"i": "b", "U": "B", "I": "h", "l": "i", "L": "q", "d": "f", "D": "d"}
_CONSTANTS = {"T": True, "F": False, "Z": None}


def read_ubjson(data: bytes | bytearray) -> Any:  # noqa: ANN401 -- whatever was written
    """The value that `data` holds; arrays of numbers become numpy arrays.

    Raises:
        ValueError: it is something else.
    """
    try:
        return _Reader(memoryview(data)).value()
    except (IndexError, struct.error) as error:
        raise ValueError("no universal binary JSON: it ends too early") from error


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0

    def value(self) -> Any:  # noqa: ANN401 -- as read_ubjson
        return self._of(self._mark())

    def _of(self, mark: str) -> Any:  # noqa: ANN401 -- as read_ubjson
        if mark == "{":
            return self._object()
        if mark == "[":
            return self._array()
        if mark == "S":
            return self._text(self._whole())
        if mark in _CONSTANTS:
            return _CONSTANTS[mark]
        return self._number(mark)

    def _mark(self) -> str:
        self.at += 1
        return chr(self.data[self.at - 1])

    def _peek(self) -> str:
        return chr(self.data[self.at])

    def _kind(self, mark: str) -> str:
        if mark not in _NUMBERS:
            raise ValueError(f"no universal binary JSON: {mark!r} before byte {self.at}")
        return f">{_NUMBERS[mark]}"

    def _number(self, mark: str) -> Any:  # noqa: ANN401 -- int or float
        kind = self._kind(mark)
        (number,) = struct.unpack_from(kind, self.data, self.at)
        self.at += struct.calcsize(kind)
        return number

    def _whole(self) -> int:
        return int(self._number(self._mark()))

    def _text(self, size: int) -> str:
        self.at += size
        if self.at > len(self.data):
            raise IndexError(self.at)
        return bytes(self.data[self.at - size : self.at]).decode()

    def _object(self) -> dict[str, Any]:
        found = {}
        while self._peek() != "}":
            name = self._text(self._whole())
            found[name] = self.value()
        self.at += 1
        return found

    def _array(self) -> Any:  # noqa: ANN401 -- list or numpy array
        kind = ""
        if self._peek() == "$":
            self.at += 1
            kind = self._mark()
        if self._peek() != "#":
            return self._until_end()
        self.at += 1
        size = self._whole()
        if not kind:
            return [self.value() for _ in range(size)]
        return self._typed(kind, size)

    def _typed(self, kind: str, size: int) -> Any:  # noqa: ANN401 -- numpy array
        dtype = np.dtype(self._kind(kind))
        found = np.frombuffer(self.data, dtype, size, self.at)
        self.at += size * dtype.itemsize
        return found.astype(dtype.newbyteorder("="))

    def _until_end(self) -> list[Any]:
        found = []
        while self._peek() != "]":
            found.append(self.value())
        self.at += 1
        return found
