"""Rows that wait for a warehouse: in parts of some size, whole and in order, gone at the end."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lodestar.adapters.warehouse.spool import ParquetSpool
from lodestar.errors import ExternalError

SCHEMA = pa.schema([("row", pa.int64()), ("at", pa.timestamp("us", tz="UTC"))])


def rows(first: int, count: int) -> pa.RecordBatch:
    numbers = pa.array(range(first, first + count))
    return pa.record_batch([numbers, numbers.cast(SCHEMA.field("at").type)], schema=SCHEMA)


def test_parts_are_files_of_their_own_with_all_rows_in_order() -> None:
    with ParquetSpool(SCHEMA, part_bytes=20_000) as spool:
        for first in range(0, 10_000, 1_000):
            spool.write(rows(first, 1_000))
        parts = [pq.read_table(part) for part in spool.parts()]
    assert len(parts) > 2
    table = pa.concat_tables(parts)
    assert table.column("row").to_pylist() == list(range(10_000))
    assert table.schema.equals(SCHEMA)
    assert spool.rows == 10_000


def test_no_rows_are_one_part_with_the_columns() -> None:
    with ParquetSpool(SCHEMA) as spool:
        (part,) = [pq.read_table(file) for file in spool.parts()]
    assert part.num_rows == 0
    assert part.schema.equals(SCHEMA)


def test_files_go_with_the_block_also_before_they_are_read() -> None:
    with ParquetSpool(SCHEMA) as spool:
        spool.write(rows(0, 10))
        (file,) = spool._files
        assert not file.closed
    assert file.closed


def test_a_folder_that_is_not_there_is_named(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("gone") / "none"))
    with pytest.raises(ExternalError, match="cannot hold the rows") as caught:
        ParquetSpool(SCHEMA).write(rows(0, 1))
    assert "TMPDIR" in str(caught.value)
