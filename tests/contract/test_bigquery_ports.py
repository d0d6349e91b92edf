"""The BigQuery adapter under the data ports' contracts, with the real client, on a small server."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from tests.table_writers import TableWriterContract
from tests.warehouses import BigQueryDataset, EmulatedBigQuery

from lodestar.adapters.bigquery.reader import BigQueryReader, BigQueryTableReader
from lodestar.adapters.bigquery.writer import BigQueryWriter
from lodestar.testing.data import SpineReaderContract

# google-cloud-bigquery calls google-cloud-bigquery-storage in a way that the latter means to give up.
_BY_GOOGLE = "ignore:Retrieving Arrow record batches directly:PendingDeprecationWarning"


class InDatasetOfItsOwn:
    @pytest.fixture(autouse=True)
    def _dataset(self, bigquery_server: EmulatedBigQuery) -> Iterator[None]:
        self.dataset = BigQueryDataset(bigquery_server)
        yield
        bigquery_server.faults()


class TestBigQueryReader(InDatasetOfItsOwn, SpineReaderContract):
    def reader(self, table: pa.Table) -> BigQueryReader:
        self.dataset.put(table, "spine")
        return self.dataset.reader("SELECT * FROM spine", retry_timeout=1)

    def broken(self, table: pa.Table) -> BigQueryReader:
        """A page in the middle of the rows is cut off, at each attempt."""
        reader = self.reader(table)
        self.dataset.server.faults(cut_after=table.num_rows // 2)
        return reader


@pytest.mark.filterwarnings(_BY_GOOGLE)
class TestBigQueryReaderByTheStorageApi(InDatasetOfItsOwn, SpineReaderContract):
    def reader(self, table: pa.Table) -> BigQueryReader:
        self.dataset.put(table, "spine")
        storage = self.dataset.server.storage
        return self.dataset.reader(
            "SELECT * FROM spine", storage_api=True, storage_endpoint_url=storage
        )

    def broken(self, table: pa.Table) -> BigQueryReader:
        """The stream ends in an error in the middle of the rows."""
        reader = self.reader(table)
        self.dataset.server.faults(cut_after=table.num_rows // 2)
        return reader


class TestBigQueryTableReader(InDatasetOfItsOwn, SpineReaderContract):
    def reader(self, table: pa.Table) -> BigQueryTableReader:
        self.dataset.put(table, "spine")
        place = (self.dataset.server.project, self.dataset.name, "spine")
        return BigQueryTableReader(self.dataset.config(retry_timeout=1), Path(), place)

    def broken(self, table: pa.Table) -> BigQueryTableReader:
        """A page in the middle of the rows is cut off, at each attempt."""
        reader = self.reader(table)
        self.dataset.server.faults(cut_after=table.num_rows // 2)
        return reader


class TestBigQueryWriter(InDatasetOfItsOwn, TableWriterContract):
    def writer(self) -> BigQueryWriter:
        return BigQueryWriter(self.dataset.config(), Path())

    def destination(self) -> str:
        return f"bq://{self.dataset.server.project}.{self.dataset.name}.predictions"

    def place(self) -> BigQueryDataset:
        return self.dataset
