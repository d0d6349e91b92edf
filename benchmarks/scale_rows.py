"""Writes rows for `scale_model.py`: so many columns, four of five of them numbers, the rest texts."""

import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SEED = 20_250_713


def main() -> None:
    """`path rows columns group bare|labelled`; or copy: `path rows 0 group first target`."""
    path, rows, columns, group, kind, *rest = sys.argv[1:]
    if kind == "first":
        table = next(pq.ParquetFile(path).iter_batches(int(rows)))
        pq.write_table(pa.Table.from_batches([table]), rest[0], row_group_size=int(group))
        return
    generator = np.random.default_rng(SEED)
    count, texts = int(rows), int(columns) // 5
    numbers = int(columns) - texts
    made: dict[str, Any] = {"id": pa.array(np.arange(count))}
    score = generator.normal(size=count)
    for at in range(numbers):
        values = generator.normal(size=count)
        made[f"n{at:03}"] = pa.array(values * 10.0 ** (at % 4) + 5)
        score += values if at < 6 else 0
    for at in range(texts):
        most = 8 + at % 8
        labels = pa.array([f"category {label}" for label in range(most)])
        made[f"c{at:03}"] = labels.take(pa.array(generator.integers(0, most, size=count)))
    if kind == "labelled":
        made["bought"] = pa.array((score > 0).astype(np.int64))
    pq.write_table(pa.table(made), path, row_group_size=int(group))


if __name__ == "__main__":
    main()
