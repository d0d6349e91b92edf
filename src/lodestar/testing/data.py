# ruff: noqa: D102 -- a test says in its name what it is about
"""Contract tests for the data ports: what any reader of rows and any writer of frames must keep.

An adapter's author subclasses them in a test file and says how to make the adapter; pytest then
finds one test for each guarantee of `lodestar.interface.data`:

```python
from pathlib import Path

import pyarrow as pa
import pytest

from lodestar.testing.data import SpineReaderContract


class TestMyReader(SpineReaderContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.place = tmp_path

    def reader(self, table: pa.Table) -> MyReader:
        put_rows_where_my_reader_finds_them(self.place, table)
        return MyReader(self.place)
```

A guarantee that a backend cannot keep is overridden with `pytest.skip(reason)`, in sight.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from lodestar.errors import LodestarError
from lodestar.interface.data import FrameWriter, SpineReader
from lodestar.interface.probing import ProbesPlace
from lodestar.schema import canonical, canonical_schema

__all__ = ["FrameWriterContract", "SpineReaderContract", "every_kind_of_value"]


def every_kind_of_value() -> pa.Table:
    """Four rows with a column of each kind that a model or a key can have; the third has nulls."""
    moments = [
        datetime(2025, 3, 30, 1, 59, 59, 999_999, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
        None,
        datetime(2040, 2, 29, tzinfo=UTC),
    ]
    values: dict[str, Any] = {
        "whole": pa.array([2**53 + 1, -7, None, 0]),
        "number": pa.array([0.1, -2.5e300, None, 1.5]),
        "flag": pa.array([True, False, None, True]),
        "text": pa.array(['naïve, "quoted"\nzwei', "서울 🚀", None, "0012"]),
        "day": pa.array([date(2025, 1, 31), date(1969, 7, 20), None, date(2040, 2, 29)]),
        "at_utc": pa.array(moments, pa.timestamp("us", tz="UTC")),
        "at_seoul": pa.array(moments, pa.timestamp("us", tz="Asia/Seoul")),
        "at_plain": pa.array(
            [moment and moment.replace(tzinfo=None) for moment in moments], pa.timestamp("us")
        ),
    }
    return pa.table(values)


def _numbered(rows: int) -> pa.Table:
    return pa.table({"row": range(rows), "name": [f"row {row}" for row in range(rows)]})


class SpineReaderContract:
    """What every `SpineReader` keeps; a subclass gives `reader`, and `broken` where it can."""

    chunk_rows: ClassVar[int] = 100

    def reader(self, table: pa.Table) -> SpineReader:
        """Make a reader whose source holds exactly these rows."""
        raise NotImplementedError

    def broken(self, table: pa.Table) -> SpineReader:
        """Make a reader whose source once held these rows and is damaged now.

        May raise a LodestarError itself, where the damage is seen at once.
        """
        raise NotImplementedError

    def test_the_schema_is_that_of_the_rows_that_are_read(self) -> None:
        reader = self.reader(every_kind_of_value())
        schema = reader.schema()
        with reader.read(chunk_rows=self.chunk_rows) as batches:
            assert batches.schema.equals(schema)
            assert batches.read_all().schema.equals(schema)

    def test_columns_have_canonical_types(self) -> None:
        schema = self.reader(every_kind_of_value()).schema()
        assert schema.equals(canonical_schema(schema))
        assert schema.equals(canonical_schema(every_kind_of_value().schema))

    def test_columns_keep_the_order_of_the_source(self) -> None:
        names = ["zebra", "apple", "Mango", "b2", "b10"]
        table = pa.table({name: [1, 2] for name in names})
        assert self.reader(table).schema().names == names

    def test_every_kind_of_value_comes_back(self) -> None:
        table = every_kind_of_value()
        read = self.reader(table).read(chunk_rows=self.chunk_rows).read_all()
        for name in table.column_names:
            target = read.schema.field(name).type
            assert read.column(name).to_pylist() == table.column(name).cast(target).to_pylist()

    def test_an_empty_result_keeps_its_columns(self) -> None:
        reader = self.reader(every_kind_of_value().slice(0, 0))
        read = reader.read(chunk_rows=self.chunk_rows).read_all()
        assert read.num_rows == 0
        assert read.column_names == every_kind_of_value().column_names
        assert reader.schema().names == every_kind_of_value().column_names

    @pytest.mark.parametrize("chunk_rows", [1, 7, 1000])
    def test_batches_hold_at_most_the_rows_asked_for(self, chunk_rows: int) -> None:
        with self.reader(_numbered(40)).read(chunk_rows=chunk_rows) as batches:
            sizes = [batch.num_rows for batch in batches]
        assert max(sizes) <= chunk_rows
        assert sum(sizes) == _numbered(40).num_rows

    def test_rows_come_in_the_order_of_the_source(self) -> None:
        table = _numbered(5_000)
        read = self.reader(table).read(chunk_rows=64).read_all()
        assert read.column("row").to_pylist() == list(range(table.num_rows))

    def test_reading_twice_gives_equal_rows(self) -> None:
        reader = self.reader(every_kind_of_value())
        first, second = (reader.read(chunk_rows=3).read_all() for _ in range(2))
        assert first.equals(second)

    def test_a_read_that_was_left_half_way_does_not_disturb_the_next(self) -> None:
        reader = self.reader(_numbered(1_000))
        with reader.read(chunk_rows=10) as batches:
            batches.read_next_batch()
        assert reader.read(chunk_rows=10).read_all().num_rows == _numbered(1_000).num_rows

    def test_a_damaged_source_raises_and_never_ends_as_if_it_were_whole(self) -> None:
        with pytest.raises(LodestarError):
            self.broken(_numbered(50_000)).read(chunk_rows=1_000).read_all()


class FrameWriterContract:
    """What every `FrameWriter` keeps; a subclass gives `writer`, `destination` and `content`.

    Destinations of its own kind that keep no files override `leftovers`. A writer that can be probed is
    held to that too; where its destination does not lie in a folder, `probed` says what is.
    """

    def writer(self) -> FrameWriter:
        """Make a writer."""
        raise NotImplementedError

    def destination(self) -> str:
        """Name the place to write to, the same at each call in one test; nothing is there yet."""
        raise NotImplementedError

    def content(self) -> pa.Table | None:
        """Read what a reader sees at the destination; None where there is nothing."""
        raise NotImplementedError

    def leftovers(self) -> Sequence[Path]:
        """List what lies around besides the destination."""
        raise NotImplementedError

    def probed(self) -> str:
        """Name what the destination lies in."""
        return self.destination().rpartition("/")[0]

    def write(self, *tables: pa.Table) -> None:
        """Write tables, one after the other, in one go."""
        with self.writer().sink(self.destination(), tables[0].schema) as sink:
            for table in tables:
                for batch in table.to_batches():
                    sink.write(batch)

    def test_rows_come_back_in_the_order_of_writing(self) -> None:
        table = _numbered(300)
        self.write(table.slice(0, 100), table.slice(100, 1), table.slice(101))
        assert self.content() == table
        assert not self.leftovers()

    def test_every_kind_of_value_comes_back(self) -> None:
        table = every_kind_of_value()
        target = canonical_schema(table.schema)
        (batch,) = table.to_batches()
        wanted = pa.Table.from_batches([canonical(batch, target)])
        self.write(wanted)
        content = self.content()
        assert content is not None
        assert content.column_names == wanted.column_names
        for name in wanted.column_names:
            assert content.column(name).to_pylist() == wanted.column(name).to_pylist()

    def test_dictionary_columns_come_back_as_their_values(self) -> None:
        values = ["b", None, "a", "b"]
        self.write(pa.table({"label": pa.array(values).dictionary_encode(), "n": [1, 2, 3, 4]}))
        content = self.content()
        assert content is not None
        assert content.column("label").to_pylist() == values

    def test_no_rows_still_make_columns(self) -> None:
        self.write(_numbered(0))
        content = self.content()
        assert content is not None
        assert content.column_names == ["row", "name"]
        assert content.num_rows == 0

    def test_nothing_is_visible_before_the_end(self) -> None:
        with self.writer().sink(self.destination(), _numbered(1).schema) as sink:
            for batch in _numbered(2_000).to_batches(max_chunksize=100):
                sink.write(batch)
                assert self.content() is None
        assert self.content() == _numbered(2_000)

    def test_the_old_content_is_there_until_the_new_is_complete(self) -> None:
        self.write(_numbered(5))
        with self.writer().sink(self.destination(), _numbered(1).schema) as sink:
            sink.write(_numbered(9).to_batches()[0])
            assert self.content() == _numbered(5)
        assert self.content() == _numbered(9)

    def test_an_exception_leaves_the_old_content_and_nothing_else(self) -> None:
        self.write(_numbered(5))
        with pytest.raises(ZeroDivisionError):
            self._fail_half_way()
        assert self.content() == _numbered(5)
        assert not self.leftovers()

    def test_an_exception_leaves_nothing_where_nothing_was(self) -> None:
        with pytest.raises(ZeroDivisionError):
            self._fail_half_way()
        assert self.content() is None
        assert not self.leftovers()

    def test_two_writers_at_once_never_mix(self) -> None:
        schema = _numbered(1).schema
        with self.writer().sink(self.destination(), schema) as one:
            with self.writer().sink(self.destination(), schema) as other:
                for first, second in zip(
                    _numbered(30).to_batches(max_chunksize=10),
                    _numbered(60).to_batches(max_chunksize=20),
                    strict=True,
                ):
                    one.write(first)
                    other.write(second)
            assert self.content() == _numbered(60)
        assert self.content() == _numbered(30)
        assert not self.leftovers()

    def test_one_writers_failure_does_not_touch_the_others_work(self) -> None:
        with self.writer().sink(self.destination(), _numbered(1).schema) as sink:
            sink.write(_numbered(30).to_batches()[0])
            with pytest.raises(ZeroDivisionError):
                self._fail_half_way()
        assert self.content() == _numbered(30)
        assert not self.leftovers()

    def test_a_place_that_is_probed_is_as_it_was(self) -> None:
        writer = self.writer()
        if not isinstance(writer, ProbesPlace):
            pytest.skip("it has no probe: check --online says that it cannot be checked")
        assert writer.probe(self.probed())
        assert self.content() is None
        assert not self.leftovers()
        self.write(_numbered(5))
        assert writer.probe(self.probed())
        assert self.content() == _numbered(5)
        assert not self.leftovers()

    def _fail_half_way(self) -> None:
        with self.writer().sink(self.destination(), _numbered(1).schema) as sink:
            sink.write(_numbered(7).to_batches()[0])
            raise ZeroDivisionError
