"""An order of rows that depends on their content alone, so that nothing depends on how they came."""

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["in_content_order"]

HashArray = NDArray[np.uint64]


def in_content_order(table: pa.Table) -> pa.Table:
    """The same rows, sorted by a hash of their values.

    An engine returns joined or grouped rows in another order each time; splits, models and
    fingerprints of the same rows must not change with it.
    """
    mixed = np.full(table.num_rows, 0x345678, dtype=np.uint64)
    for column in table.columns:
        mixed = (mixed ^ _hashes(column.combine_chunks())) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return table.take(np.argsort(mixed, kind="stable")).combine_chunks()


def _hashes(array: pa.Array) -> HashArray:
    """One 64-bit hash per value, the same in whatever order the values come."""
    missing = array.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_string(array.type):
        encoded = array.dictionary_encode()
        words = encoded.dictionary.to_numpy(zero_copy_only=False)
        hashes = pd.util.hash_array(words, categorize=False)
        codes = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
        found = hashes[codes] if len(hashes) else np.zeros(len(array), np.uint64)
    else:
        found = pd.util.hash_array(_numbers(array), categorize=False)
    return np.where(missing, np.uint64(0x9E3779B97F4A7C15), found)


def _numbers(array: pa.Array) -> NDArray[np.generic]:
    if pa.types.is_temporal(array.type):
        array = array.cast(pa.int32() if pa.types.is_date(array.type) else pa.int64())
    zero = False if pa.types.is_boolean(array.type) else 0
    numbers: NDArray[np.generic] = array.fill_null(zero).to_numpy(zero_copy_only=False)
    return numbers
