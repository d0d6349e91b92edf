"""How much of a file far away is fetched at a time."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lodestar.adapters.formats import FAR_BUDGET, chunks, schema_of


class Counted(io.BytesIO):
    """Bytes that remember how many were asked for at once."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.sizes: list[int] = []

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        self.sizes.append(len(found))
        return found


def written(table: pa.Table, group: int) -> Counted:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=group, use_dictionary=False)
    return Counted(sink.getvalue())


def streamed(source: Counted, chunk_rows: int, *, far: bool) -> int:
    target = schema_of(pa.PythonFile(source, "r"), ".parquet", far=far)
    source.sizes.clear()
    file = pa.PythonFile(source, "r")
    return sum(batch.num_rows for batch in chunks(file, ".parquet", target, chunk_rows, far=far))


@pytest.fixture(scope="module")
def numbers() -> pa.Table:
    rng = np.random.default_rng(1)
    return pa.table({f"x{place}": rng.normal(size=1_000_000) for place in range(9)})


def test_small_row_groups_are_fetched_whole_in_few_requests(numbers: pa.Table) -> None:
    source = written(numbers.slice(0, 200_000), 50_000)
    assert streamed(source, 10_000, far=True) == 200_000
    # The footer twice, then one request for each of four row groups.
    assert len(source.sizes) < 12
    assert max(source.sizes) < 2 * 50_000 * 9 * 8


def test_a_row_group_above_the_budget_is_fetched_column_by_column(numbers: pa.Table) -> None:
    source = written(numbers, 1_000_000)
    assert pq.read_metadata(source).row_group(0).total_byte_size > FAR_BUDGET
    assert streamed(source, 10_000, far=True) == 1_000_000
    assert max(source.sizes) <= FAR_BUDGET // 9
    assert sum(source.sizes) < 1.1 * len(source.getvalue())


def test_a_file_near_by_is_read_in_small_pieces(numbers: pa.Table) -> None:
    source = written(numbers.slice(0, 200_000), 200_000)
    assert streamed(source, 10_000, far=False) == 200_000
    assert max(source.sizes) <= 2 << 16
