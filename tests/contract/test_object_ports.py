"""The object store adapters under the data ports' contracts, each against an emulator of its store."""

import io
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from tests.object_stores import AzureBox, Box, GcsBox, S3Box

from lodestar.adapters.files.formats import chunks, schema_of
from lodestar.adapters.objects.places import place_of
from lodestar.adapters.objects.rows import ObjectReader, ObjectSink, ObjectWriter, _remove
from lodestar.adapters.registry import URI_READERS, WRITERS, adapter
from lodestar.errors import DataError, ExternalError, UsageError
from lodestar.testing.data import FrameWriterContract, SpineReaderContract, every_kind_of_value

SUFFIXES = (".parquet", ".csv", ".arrow")


def encoded(table: pa.Table, suffix: str) -> bytes:
    sink = io.BytesIO()
    match suffix:
        case ".parquet":
            pq.write_table(table, sink, row_group_size=10_000)
        case ".csv":
            pacsv.write_csv(table, sink)
        case _:
            with pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=10_000)
    return sink.getvalue()


class InBucketOfItsOwn:
    suffix: ClassVar[str]
    endpoint: ClassVar[str]
    kind: ClassVar[type[Box]]

    @pytest.fixture(autouse=True)
    def _bucket(self, request: pytest.FixtureRequest) -> None:
        self.box = self.kind(request.getfixturevalue(self.endpoint))
        self.box.make()

    @property
    def key(self) -> str:
        return f"deep/down/rows{self.suffix}"


class InS3(InBucketOfItsOwn):
    endpoint = "s3_endpoint"
    kind = S3Box


class InGCS(InBucketOfItsOwn):
    endpoint = "gcs_endpoint"
    kind = GcsBox


class InAzure(InBucketOfItsOwn):
    endpoint = "azure_endpoint"
    kind = AzureBox


class ObjectReaderContract(InBucketOfItsOwn, SpineReaderContract):
    def reader(self, table: pa.Table) -> ObjectReader:
        self.box.put(self.key, encoded(table, self.suffix))
        return self.found()

    def broken(self, table: pa.Table) -> ObjectReader:
        """Cut where a copy that was interrupted would have cut it."""
        content = encoded(table, self.suffix)
        self.box.put(self.key, content[: len(content) // 2].rsplit(b",", 1)[0])
        return self.found()

    def found(self) -> ObjectReader:
        make = adapter(URI_READERS, self.box.scheme, what="the URI scheme")
        made: ObjectReader = make(self.box.data(), Path(), self.box.uri(self.key))
        return made


class KnowsNoTypes(SpineReaderContract):
    """A csv object without rows says only what its columns are called."""

    def test_an_empty_result_keeps_its_columns(self) -> None:
        reader = self.reader(every_kind_of_value().slice(0, 0))
        assert reader.schema().names == every_kind_of_value().column_names
        assert reader.read(chunk_rows=10).read_all().num_rows == 0


class TestParquetInS3(InS3, ObjectReaderContract):
    suffix = ".parquet"


class TestCsvInS3(InS3, KnowsNoTypes, ObjectReaderContract):
    suffix = ".csv"


class TestArrowInS3(InS3, ObjectReaderContract):
    suffix = ".arrow"


class TestParquetInGCS(InGCS, ObjectReaderContract):
    suffix = ".parquet"


class TestCsvInGCS(InGCS, KnowsNoTypes, ObjectReaderContract):
    suffix = ".csv"


class TestArrowInGCS(InGCS, ObjectReaderContract):
    suffix = ".arrow"


class TestParquetInAzure(InAzure, ObjectReaderContract):
    suffix = ".parquet"


class TestCsvInAzure(InAzure, KnowsNoTypes, ObjectReaderContract):
    suffix = ".csv"


class TestArrowInAzure(InAzure, ObjectReaderContract):
    suffix = ".arrow"


class ObjectWriterContract(InBucketOfItsOwn, FrameWriterContract):
    def writer(self) -> ObjectWriter:
        make = adapter(WRITERS, self.box.scheme, what="the URI scheme")
        made: ObjectWriter = make(self.box.data(), Path())
        return made

    def destination(self) -> str:
        return self.box.uri(self.key)

    def content(self) -> pa.Table | None:
        """By the store's own client, and not by our reader."""
        content = self.box.get(self.key)
        if content is None:
            return None
        source = pa.BufferReader(content)
        target = schema_of(source, self.suffix)
        batches = chunks(pa.BufferReader(content), self.suffix, target, 1_000)
        return pa.Table.from_batches(batches, target)

    def leftovers(self) -> list[Path]:
        """Other objects, and uploads that are neither complete nor aborted."""
        others = [key for key in self.box.names() if key != self.key]
        return [Path(key) for key in (*others, *self.box.unfinished())]


class ClearsFolders(ObjectWriterContract):
    def test_a_folder_is_cleared_of_all_that_is_below_it_and_of_nothing_else(self) -> None:
        below = [f"a/b/{number:03}/x" for number in range(70)]
        beside = ["a/bc", "a/c/b/x", "b/x"]
        for key in (*below, *beside):
            self.box.put(key, b"1")
        self.writer().clear(self.box.uri("a/b/"))
        self.writer().clear(self.box.uri("a/b/"))
        assert sorted(self.box.names()) == sorted(beside)

    def test_what_somebody_else_removes_meanwhile_is_as_good_as_removed(self) -> None:
        gone = place_of(self.box.uri("a/gone"))
        with self.writer()._stores.opened(gone) as asking:
            _remove(asking, [gone])

    def test_a_folder_of_no_bucket_cannot_be_cleared(self) -> None:
        elsewhere = self.box.uri("a/").replace(self.box.name, "lodestar-no-such-bucket")
        with pytest.raises(DataError, match="'lodestar-no-such-bucket'"):
            self.writer().clear(elsewhere)

    @pytest.mark.parametrize("key", ["", "a", "a/b", "*"])
    def test_what_is_no_folder_is_not_cleared(self, key: str) -> None:
        self.box.put("a/b", b"1")
        with pytest.raises(UsageError, match="is no folder"):
            self.writer().clear(self.box.uri(key))
        assert self.box.names() == ["a/b"]


class TestParquetToS3(InS3, ClearsFolders):
    suffix = ".parquet"


class TestCsvToS3(InS3, ObjectWriterContract):
    suffix = ".csv"


class TestArrowToS3(InS3, ObjectWriterContract):
    suffix = ".arrow"


class TestParquetToGCS(InGCS, ClearsFolders):
    suffix = ".parquet"


class TestCsvToGCS(InGCS, ObjectWriterContract):
    suffix = ".csv"


class TestArrowToGCS(InGCS, ObjectWriterContract):
    suffix = ".arrow"


class FirstComesFirst(ObjectWriterContract):
    """Azure drops what others have uploaded for a blob when it is published."""

    def test_two_writers_at_once_never_mix(self) -> None:
        pytest.skip("Azure: only the first of two publishes; see the test of that below")


class TestParquetToAzure(InAzure, FirstComesFirst, ClearsFolders):
    suffix = ".parquet"

    def test_of_two_writers_at_once_the_second_is_told_that_the_first_has_published(self) -> None:
        one, other = (pa.table({"row": range(rows)}) for rows in (30, 60))
        late = self.writer().sink(self.destination(), one.schema)
        late.__enter__()
        late.write(one.to_batches()[0])
        self.send_what_waits(late)
        with self.writer().sink(self.destination(), other.schema) as early:
            early.write(other.to_batches()[0])
        with pytest.raises(ExternalError, match="written by somebody else meanwhile"):
            late.__exit__(None, None, None)
        assert self.content() == other

    @staticmethod
    def send_what_waits(sink: ObjectSink) -> None:
        """Rows this few would wait for the end, and there would be nothing of them to drop."""
        file = sink._file
        file._send(len(file._waiting), last=False)


class TestCsvToAzure(InAzure, FirstComesFirst):
    suffix = ".csv"


class TestArrowToAzure(InAzure, FirstComesFirst):
    suffix = ".arrow"
