"""Footers of several objects are read a few at a time, each once."""

import io
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.memory_stores import InMemory

from lodestar.adapters.files.several import AT_ONCE
from lodestar.adapters.objects.rows import Stores
from lodestar.adapters.objects.sets import ObjectAdapters
from lodestar.errors import DataError, SchemaError
from lodestar.interface.parts import Division, PartitionedReader
from lodestar.settings.config import Data
from lodestar.settings.stores import Transfer

COUNT = 3 * AT_ONCE + 1
SIZE = Division(chunk_rows=2, part_rows=4)


def parquet(**columns: list[int]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def objects(**others: bytes) -> dict[str, bytes]:
    """Rows 0, 1, 2, … of many objects; those of `others` are replaced."""
    made = {f"at{n:02}": parquet(n=[2 * n, 2 * n + 1]) for n in range(COUNT)}
    return {f"rows/{name}.parquet": content for name, content in (made | others).items()}


def reader(store: InMemory) -> PartitionedReader:
    data = Data.model_validate({"adapter": "duckdb", "root": "data", "snapshots": "data"})
    stores = Stores(lambda: store, Transfer(attempts=1))
    found = ObjectAdapters(lambda _: stores).reader(data, Path(), "mem://box/rows/")
    assert isinstance(found, PartitionedReader)
    return found


def test_each_footer_is_read_once_beside_as_many_others_as_may_be() -> None:
    store = InMemory(objects())
    store.together, store.pause = AT_ONCE, 0.02
    with reader(store).parts(SIZE) as divided:
        assert divided.parts is not None
        assert store.most == AT_ONCE
        assert set(Counter(store.asked).values()) == {1}
        assert len(store.asked) == 2 * COUNT
        store.pause = 0.0
        rows = [n for part in divided.parts for batch in part.read() for n in batch[0].to_pylist()]
    assert rows == list(range(2 * COUNT))


@pytest.mark.parametrize(
    ("other", "error", "words"),
    [
        (parquet(m=[1]), SchemaError, r"at05\.parquet are not those of .*at00\.parquet"),
        (b"PAR1 is how one begins", DataError, r"at05\.parquet cannot be read as parquet"),
    ],
)
def test_which_object_cannot_be_read_with_the_others_is_said(
    other: bytes, error: type[DataError], words: str
) -> None:
    store = InMemory(objects(at05=other))
    with pytest.raises(error, match=words), reader(store).parts(SIZE):
        pass
