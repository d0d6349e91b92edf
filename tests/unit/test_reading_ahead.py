"""Which bytes of a file far away are fetched before they are needed, and how many are held."""

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from lodestar.adapters.files import reading_ahead
from lodestar.adapters.files.formats import chunks, footer_of, schema_of
from lodestar.adapters.files.reading_ahead import Span


class Told(io.BytesIO):
    """Bytes that remember what they were told to expect, and what was read."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.told: list[tuple[list[Span], int]] = []
        self.read_spans: list[Span] = []

    def expect(self, tracks: Sequence[Sequence[Span]], *, ahead: int) -> None:
        self.told += [(list(track), ahead) for track in tracks]

    def read(self, size: int | None = -1, /) -> bytes:
        start = self.tell()
        found = super().read(size)
        self.read_spans.append((start, start + len(found)))
        return found


def written(table: pa.Table, group: int) -> Told:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=group, use_dictionary=False, compression="none")
    return Told(sink.getvalue())


def streamed(source: Told, suffix: str = ".parquet") -> int:
    footer = footer_of(pa.PythonFile(source, "r"), suffix)
    target = schema_of(pa.PythonFile(source, "r"), suffix, footer=footer)
    source.read_spans.clear()
    source.seek(0)
    file = pa.PythonFile(source, "r")
    batches = chunks(file, suffix, target, 10_000, far=source, footer=footer)
    return sum(batch.num_rows for batch in batches)


def length(spans: Sequence[Span]) -> int:
    return sum(end - start for start, end in spans)


@pytest.fixture(scope="module")
def numbers() -> pa.Table:
    rng = np.random.default_rng(1)
    return pa.table({f"x{place}": rng.normal(size=200_000) for place in range(9)})


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (
        ("REQUEST", 1 << 20),
        ("AHEAD", 4 << 20),
        ("WHOLE_GROUP", 8 << 20),
        ("PIECES", 4 << 20),
    ):
        monkeypatch.setattr(reading_ahead, name, size)


@pytest.mark.usefixtures("small_steps")
def test_small_row_groups_share_requests_and_a_few_are_held_ahead(numbers: pa.Table) -> None:
    source = written(numbers, 5_000)  # 40 groups of 360 kB
    assert streamed(source) == 200_000
    for spans, ahead in source.told:
        assert ahead >= len(spans)
        assert length(spans) <= 4 << 20
    first, _ = source.told[0]
    assert all(1 << 20 <= end - start < 2 << 20 for start, end in first)
    assert len(first) == 3
    assert {span for spans, _ in source.told for span in spans} >= set(first)
    every = sorted({span for spans, _ in source.told for span in spans})
    assert length(every) == length(source.read_spans)


@pytest.mark.usefixtures("small_steps")
def test_a_row_group_is_fetched_in_several_requests_at_the_columns_borders(
    numbers: pa.Table,
) -> None:
    source = written(numbers.slice(0, 100_000), 100_000)  # 9 columns of 800 kB
    assert streamed(source) == 100_000
    ((spans, ahead),) = source.told
    assert len(spans) == 5 <= ahead
    starts = {start for start, _ in source.read_spans}
    assert {start for start, _ in spans} <= starts


@pytest.mark.usefixtures("small_steps")
def test_a_large_row_group_is_fetched_piece_by_piece_of_every_column(numbers: pa.Table) -> None:
    source = written(numbers, 200_000)  # 14 MB
    assert streamed(source) == 200_000
    assert len(source.told) == 9
    held = [length(spans[:2]) for spans, ahead in source.told if ahead == 1]
    assert len(held) == 9
    assert sum(held) <= 4 << 20


@pytest.mark.usefixtures("small_steps")
def test_what_is_expected_of_a_large_row_group_is_read_once_and_in_order(
    numbers: pa.Table,
) -> None:
    source = written(numbers, 200_000)
    streamed(source)
    for spans, _ in source.told:
        start, end = spans[0][0], spans[-1][1]
        of_column = [one for one in source.read_spans if start <= one[0] < end]
        assert of_column == sorted(of_column)
        assert length(of_column) == end - start


def test_csv_is_expected_from_its_first_byte_to_its_last(numbers: pa.Table) -> None:
    sink = io.BytesIO()
    pacsv.write_csv(numbers, sink)
    source = Told(sink.getvalue())
    assert streamed(source, ".csv") == 200_000
    ((spans, ahead),) = source.told
    assert spans[0][0] == 0
    assert length(spans) == len(source.getvalue())
    assert len(spans) > ahead == reading_ahead.AHEAD // reading_ahead.REQUEST


def test_a_file_near_by_is_read_in_small_pieces(numbers: pa.Table) -> None:
    source = written(numbers, 200_000)
    target = schema_of(pa.PythonFile(source, "r"), ".parquet")
    source.read_spans.clear()
    file = pa.PythonFile(source, "r")
    assert sum(batch.num_rows for batch in chunks(file, ".parquet", target, 10_000)) == 200_000
    # A page may be larger than what is read at a time.
    assert max(end - start for start, end in source.read_spans) <= 2 << 20
