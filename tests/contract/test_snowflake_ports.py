"""The Snowflake adapter under the data ports' contracts, with the real client, on fakesnow's server."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from tests.table_writers import TableWriterContract
from tests.warehouses import EmulatedSnowflake, SnowflakeSchema

from lodestar.adapters.snowflake.reader import SnowflakeReader
from lodestar.adapters.snowflake.writer import SnowflakeWriter
from lodestar.testing.data import SpineReaderContract


class InSchemaOfItsOwn:
    @pytest.fixture(autouse=True)
    def _schema(self, snowflake_server: EmulatedSnowflake) -> Iterator[None]:
        self.schema = SnowflakeSchema(snowflake_server)
        yield
        snowflake_server.faults()


class TestSnowflakeReader(InSchemaOfItsOwn, SpineReaderContract):
    def reader(self, table: pa.Table) -> SnowflakeReader:
        self.schema.put(table, "spine")
        return self.schema.reader("SELECT * FROM spine")

    def broken(self, table: pa.Table) -> SnowflakeReader:
        """A chunk in the middle of the rows is cut off, at each attempt."""
        reader = self.reader(table)
        self.schema.server.faults(cut_chunk=1)
        return reader


class TestSnowflakeWriter(InSchemaOfItsOwn, TableWriterContract):
    def writer(self) -> SnowflakeWriter:
        return SnowflakeWriter(self.schema.config(), Path())

    def destination(self) -> str:
        return f"snowflake://shop.{self.schema.name}.predictions"

    def place(self) -> SnowflakeSchema:
        return self.schema
