"""A digest of a table's content, the same whatever file or engine it came from."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["fingerprint"]


def fingerprint(table: pa.Table) -> str:
    """sha256 over column names, types and values, in order; layout in memory does not matter."""
    digest = hashlib.sha256()
    for field, column in zip(table.schema, table.columns, strict=True):
        digest.update(f"{field.name}\0{field.type}\0{len(column)}\0".encode())
        array = column.combine_chunks()
        if array.null_count:
            digest.update(np.packbits(array.is_null().to_numpy(zero_copy_only=False)).tobytes())
        if pa.types.is_string(field.type):
            filled = array.fill_null("")
            digest.update(pc.binary_length(filled).to_numpy(zero_copy_only=False).tobytes())
            digest.update(_signs(filled))
            continue
        if pa.types.is_temporal(field.type):
            width = pa.int32() if pa.types.is_date(field.type) else pa.int64()
            array = array.cast(width)
        zero = False if pa.types.is_boolean(array.type) else 0
        digest.update(array.fill_null(zero).to_numpy(zero_copy_only=False).tobytes())
    return digest.hexdigest()


def _signs(texts: pa.StringArray) -> memoryview:
    """The bytes of all texts, one after another, where they lie."""
    _, starts, signs = texts.buffers()
    if signs is None or not len(texts):
        return memoryview(b"")
    bounds = np.frombuffer(starts, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return memoryview(signs)[bounds[0] : bounds[-1]]
