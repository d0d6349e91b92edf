"""The PostgreSQL adapter under the data ports' contracts, on a real server."""

from collections.abc import Iterator

import pyarrow as pa
import pytest
from tests.databases import Database, fresh_database
from tests.faults.injector.proxy import Proxy
from tests.table_writers import TableWriterContract

from lodestar.adapters.postgres.features import PostgresFeatureTables
from lodestar.adapters.postgres.reader import PostgresReader
from lodestar.adapters.postgres.writer import PostgresWriter
from lodestar.testing.data import SpineReaderContract
from lodestar.testing.features import FeatureTablesContract, Stored


class InSchemaOfItsOwn:
    @pytest.fixture(autouse=True)
    def _database(self, postgres_uri: str) -> Iterator[None]:
        with fresh_database(postgres_uri) as self.database:
            yield


class BehindProxy(InSchemaOfItsOwn):
    @pytest.fixture(autouse=True)
    def _proxy(self, _database: None) -> Iterator[None]:
        with Proxy("127.0.0.1", self.database.port) as self.proxy:
            yield


class TestPostgresReader(BehindProxy, SpineReaderContract):
    def reader(self, table: pa.Table) -> PostgresReader:
        self.database.put(table, "spine")
        return self.database.reader("SELECT * FROM spine")

    def broken(self, table: pa.Table) -> PostgresReader:
        """The network breaks in the middle of the rows."""
        self.database.put(table, "spine")
        self.proxy.cut_after = table.nbytes // 2
        connection = self.database.through(self.proxy.port)
        return self.database.reader("SELECT * FROM spine", connection=connection)


class TestPostgresWriter(InSchemaOfItsOwn, TableWriterContract):
    def writer(self) -> PostgresWriter:
        return PostgresWriter(self.database.connection())

    def destination(self) -> str:
        return f"postgres://{self.database.schema}.predictions"

    def place(self) -> Database:
        return self.database


class TestPostgresFeatureTables(BehindProxy, FeatureTablesContract):
    def tables(self, *stored: Stored) -> PostgresFeatureTables:
        for each in stored:
            self.database.run(f"DROP TABLE IF EXISTS {each.view.source.table}")
            self.database.put(each.table, each.view.source.table)
        return PostgresFeatureTables(self.database.connection())

    def broken(self, stored: Stored) -> PostgresFeatureTables:
        """The network breaks in the middle of the rows."""
        self.tables(stored)
        self.proxy.cut_after = stored.table.nbytes // 2
        return PostgresFeatureTables(self.database.through(self.proxy.port))
