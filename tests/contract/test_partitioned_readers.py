"""What divides rows among workers keeps the contract; for PostgreSQL see test_postgres_parts.py too."""

import io
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.databases import fresh_database
from tests.object_stores import AzureBox, Box, GcsBox, S3Box
from tests.parted import place_of_project
from tests.warehouse_projects import bigquery_project, snowflake_project
from tests.warehouses import EmulatedBigQuery, EmulatedSnowflake

from lodestar.adapters.registry import URI_READERS, adapter
from lodestar.interface.parts import Division, PartitionedReader
from lodestar.settings.loading import ConfigPlace
from lodestar.testing.parts import PartitionedReaderContract, numbered_rows

GROUP = 50
# A file of some three rows, one of two, a large one, and what is left.
CUTS = ((0, 3), (3, 5), (5, 600), (600, 100_000))


class InAProject(PartitionedReaderContract):
    place: ConfigPlace

    def division(self) -> Division:
        return replace(super().division(), place=self.place)

    def found(self, uri: str) -> PartitionedReader:
        scheme = uri.partition("://")[0] if "://" in uri else ""
        make = adapter(URI_READERS, scheme, what="the URI scheme")
        data = self.place.read({}).config.data
        found: PartitionedReader = make(data, self.place.project, uri)
        return found


class InFiles(InAProject):
    @pytest.fixture(autouse=True)
    def _project(self, tmp_path: Path) -> None:
        self.place = place_of_project(tmp_path / "project [x]*")


class TestFile(InFiles):
    def reader(self, table: pa.Table) -> PartitionedReader:
        path = self.place.project / "data/rows.parquet"
        pq.write_table(table, path, row_group_size=GROUP)
        return self.found("data/rows.parquet")


class TestFolder(InFiles):
    def reader(self, table: pa.Table) -> PartitionedReader:
        folder = self.place.project / "data/rows"
        folder.mkdir(exist_ok=True)
        for number, (start, stop) in enumerate(CUTS):
            piece = table.slice(start, stop - start)
            pq.write_table(piece, folder / f"part-{number:03}.parquet", row_group_size=GROUP)
        return self.found("data/rows")


class InAStore(InAProject):
    kind: ClassVar[type[Box]]
    endpoint: ClassVar[str]
    canary: ClassVar[str] = secrets.token_hex(12)

    @pytest.fixture(autouse=True)
    def _bucket(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        self.box = self.kind(request.getfixturevalue(self.endpoint))
        self.box.make()
        self.place = place_of_project(tmp_path / "project", self.sections())

    def sections(self) -> dict[str, dict[str, object]]:
        return self.box.sections()

    def reader(self, table: pa.Table) -> PartitionedReader:
        for number, (start, stop) in enumerate(CUTS):
            sink = io.BytesIO()
            pq.write_table(table.slice(start, stop - start), sink, row_group_size=GROUP)
            self.box.put(f"deep/{number}/rows.parquet", sink.getvalue())
        return self.found(self.box.uri("deep/*/*.parquet"))


@pytest.mark.faults  # moto reads the whole object for each range; the reader is the same for all stores
class TestS3(InAStore):
    kind = S3Box
    endpoint = "s3_endpoint"

    def sections(self) -> dict[str, dict[str, object]]:
        self.secrets = (self.canary,)
        return self.box.sections(secret_access_key=self.canary)


class TestGCS(InAStore):
    kind = GcsBox
    endpoint = "gcs_endpoint"


class TestAzure(InAStore):
    kind = AzureBox
    endpoint = "azure_endpoint"


class TestPostgresBlocks(InAProject):
    sql: ClassVar[str] = "SELECT id, x, name FROM spine"

    @pytest.fixture(autouse=True)
    def _database(self, postgres_uri: str, tmp_path: Path) -> Iterator[None]:
        with fresh_database(postgres_uri) as self.database:
            self.secrets = (self.database.password,)
            data = {"postgres": {"uri": self.database.uri}}
            self.place = place_of_project(tmp_path / "project", data)
            yield

    def reader(self, table: pa.Table) -> PartitionedReader:
        self.database.run("DROP TABLE IF EXISTS spine")
        # So wide that a block has some thirty rows.
        self.database.run("CREATE TABLE spine (id bigint, x float8, name text, wide text)")
        rows = zip(*table.to_pydict().values(), strict=True)
        self.database.fill("spine", [(*row, "w" * 200) for row in rows])
        self.database.run("CREATE INDEX ON spine (id)")
        self.database.run("ANALYZE spine")
        return self.database.reader(self.sql)


class TestPostgresKeys(TestPostgresBlocks):
    sql = "SELECT id, x, name FROM spine ORDER BY id"


class TestSnowflake(InAProject):
    @pytest.fixture(autouse=True)
    def _schema(
        self,
        snowflake_server: EmulatedSnowflake,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Iterator[None]:
        self.project = snowflake_project(snowflake_server, tmp_path / "project")
        self.place = self.project.place
        self.secrets = tuple(self.project.variables.values())
        for name, value in self.project.variables.items():
            monkeypatch.setenv(name, value)
        snowflake_server.faults(chunk_rows=GROUP)
        yield
        snowflake_server.faults()

    def reader(self, table: pa.Table) -> PartitionedReader:
        self.project.put(table.cast(numbered_rows(2).schema), "spine")
        return self.project.reader("SELECT id, x, name FROM spine ORDER BY id")


class TestBigQuery(InAProject):
    @pytest.fixture(autouse=True)
    def _dataset(
        self, bigquery_server: EmulatedBigQuery, gcs_endpoint: str, tmp_path: Path
    ) -> Iterator[None]:
        self.project = bigquery_project(bigquery_server, gcs_endpoint, tmp_path / "project")
        self.place = self.project.place
        self.secrets = (self.project.private_key,)
        yield
        bigquery_server.faults()
        assert self.project.box.names() == []

    def reader(self, table: pa.Table) -> PartitionedReader:
        self.project.put(table.cast(numbered_rows(2).schema), "spine")
        return self.project.reader("SELECT id, x, name FROM spine ORDER BY id")


class TestBigQueryTable(TestBigQuery):
    def reader(self, table: pa.Table) -> PartitionedReader:
        self.project.put(table.cast(numbered_rows(2).schema), "spine")
        return self.project.table_reader("spine")
