"""Entities as whole numbers: exact for any number of key columns, which are never joined to text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["EntityCodes"]


@dataclass(frozen=True)
class EntityCodes:
    """The distinct entities of a table, numbered from 0 to `count` - 1.

    Key by key: the values of the first key are numbered, then the pairs of that number and the second
    key's number, and so on. Each number is below 2³¹, so a pair always fits 64 bits.
    """

    count: int
    _values: tuple[pa.Array, ...]
    _pairs: tuple[pa.Array, ...]

    @classmethod
    def number(cls, keys: Sequence[pa.ChunkedArray]) -> tuple["EntityCodes", npt.NDArray[np.int32]]:
        """Number the entities of these key columns, which have no nulls; and the rows' numbers."""
        first, *others = keys
        values, codes = _numbered(first)
        all_values, all_pairs = [values], []
        for key in others:
            values, own = _numbered(key)
            joined = codes.astype(np.int64) * len(values) + own
            pairs, codes = _numbered(pa.chunked_array([pa.array(joined)]))
            all_values.append(values)
            all_pairs.append(pairs)
        last = all_pairs[-1] if all_pairs else all_values[0]
        return cls(len(last), tuple(all_values), tuple(all_pairs)), codes

    def lookup(self, keys: Sequence[Any]) -> Any:  # noqa: ANN401 -- arrays or expressions, as given
        """The number of the entity in these key columns, null where it is unknown or a key is null.

        The keys are arrays, or expressions for a scan, which binds them once: then the values are
        hashed once, however many batches follow.
        """
        first, *others = keys
        found = _position(first, self._values[0])
        for key, values, pairs in zip(others, self._values[1:], self._pairs, strict=True):
            scaled = pc.multiply(found, pa.scalar(len(values), pa.int64()))
            found = _position(pc.add(scaled, _position(key, values)), pairs)
        return found


def _numbered(key: pa.ChunkedArray) -> tuple[pa.Array, npt.NDArray[np.int32]]:
    encoded = key.dictionary_encode()
    chunks = encoded.chunks
    if not chunks:
        return pa.array([], key.type), np.empty(0, np.int32)
    # The chunks of one column share a dictionary that grows: the last one's holds all.
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in chunks])
    return chunks[-1].dictionary, codes


def _position(keys: Any, values: pa.Array) -> Any:  # noqa: ANN401 -- as EntityCodes.lookup
    return pc.index_in(keys, options=pc.SetLookupOptions(value_set=values))
