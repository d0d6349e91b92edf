"""Projects whose rows lie in an emulated warehouse, for parts that are read as by workers."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pytest
from tests.object_stores import GcsBox
from tests.parted import place_of_project
from tests.warehouses import BigQueryDataset, EmulatedBigQuery, EmulatedSnowflake, SnowflakeSchema

from lodestar.adapters.registry import SQL_READERS, URI_READERS, adapter
from lodestar.interface.data import SpineReader
from lodestar.interface.parts import PartitionedReader
from lodestar.settings.loading import ConfigPlace
from lodestar.sql import parse_query

__all__ = [
    "InAWarehouse",
    "InBigQuery",
    "InSnowflake",
    "WarehouseReader",
    "bigquery_project",
    "filled",
    "snowflake_project",
]

PASSWORD = "LODESTAR_TEST_PASSWORD"  # noqa: S105 -- a variable's name


class WarehouseReader(SpineReader, PartitionedReader, Protocol):
    """Reads all rows by one session, or in parts."""


@dataclass(frozen=True)
class InAWarehouse(ABC):
    """A place of one test's own, and the project whose config names it; workers need its variables."""

    place: ConfigPlace
    variables: Mapping[str, str]
    sections: Mapping[str, Any]

    kind = ""

    def reader(self, sql: str, **params: str) -> WarehouseReader:
        """Read by a query, as the factory makes the reader."""
        data = self.place.read(self.variables).config.data
        make = adapter(SQL_READERS, self.kind, what="data.adapter")
        query = parse_query(sql, "postgres", where="x.sql")
        found: WarehouseReader = make(data, self.place.project, query, params)
        return found

    @abstractmethod
    def put(self, table: pa.Table, name: str) -> None:
        """Make a table of these rows, in place of the one that is there."""

    @abstractmethod
    def in_pieces(self, rows: int) -> None:
        """Have results handed out so many rows at a time."""

    @abstractmethod
    def well(self) -> None:
        """Set nothing that goes wrong any more."""

    @abstractmethod
    def left(self) -> list[str]:
        """What batches have left behind."""


@dataclass(frozen=True)
class InSnowflake(InAWarehouse):
    """A schema."""

    schema: SnowflakeSchema

    kind = "snowflake"

    def put(self, table: pa.Table, name: str) -> None:
        self.schema.run(f'DROP TABLE IF EXISTS "{name.upper()}"')
        self.schema.put(table, name)

    def in_pieces(self, rows: int) -> None:
        self.schema.server.faults(chunk_rows=rows)

    def well(self) -> None:
        self.schema.server.faults()

    def left(self) -> list[str]:
        return []


@dataclass(frozen=True)
class InBigQuery(InAWarehouse):
    """A dataset and a bucket."""

    dataset: BigQueryDataset
    box: GcsBox

    kind = "bigquery"

    def put(self, table: pa.Table, name: str) -> None:
        with self.dataset.client() as client:
            client.delete_table(f"{self.dataset.name}.{name}", not_found_ok=True)
        self.dataset.put(table, name)

    def in_pieces(self, rows: int) -> None:
        """Row groups of so many, four of them to an object."""
        self.faults(file_rows=4 * rows, group_rows=rows)

    def well(self) -> None:
        self.dataset.server.faults()

    def left(self) -> list[str]:
        return [name for name in self.box.names() if name.startswith("exports/")]

    def faults(self, **faults: object) -> None:
        """Set what goes wrong from now on; the bucket's server stays known."""
        self.dataset.server.faults(buckets=self.box.endpoint, **faults)

    def table_reader(self, name: str) -> WarehouseReader:
        """Read a whole table, as the factory makes the reader."""
        data = self.place.read(self.variables).config.data
        make = adapter(URI_READERS, "bq", what="the URI scheme")
        uri = f"bq://{self.dataset.server.project}.{self.dataset.name}.{name}"
        found: WarehouseReader = make(data, self.place.project, uri)
        return found

    @property
    def private_key(self) -> str:
        """A line of the service account's key."""
        account = json.loads(self.dataset.server.credentials_file.read_text())
        return str(account["private_key"]).splitlines()[1]


def snowflake_sections(schema: SnowflakeSchema) -> dict[str, Any]:
    """The config's data section that names a schema; the password is a variable's."""
    section = schema.config().model_dump(exclude_none=True, exclude={"password"})
    return {"adapter": "snowflake", "snowflake": {**section, "password": f"${{{PASSWORD}}}"}}


def snowflake_project(server: EmulatedSnowflake, folder: Path) -> InSnowflake:
    """Make one."""
    schema = SnowflakeSchema(server)
    sections = snowflake_sections(schema)
    place = place_of_project(folder, sections)
    return InSnowflake(place, {PASSWORD: server.password}, sections, schema)


def bigquery_sections(dataset: BigQueryDataset, box: GcsBox, **changes: object) -> dict[str, Any]:
    """The config's data section that names a dataset, and where to export its rows to."""
    section = dataset.config(**{"export_root": box.uri("exports"), **changes})
    shown = section.model_dump(exclude_none=True)
    return {"adapter": "bigquery", "bigquery": shown, **box.sections()}


def bigquery_project(
    server: EmulatedBigQuery, endpoint: str, folder: Path, **changes: object
) -> InBigQuery:
    """Make one, with an empty bucket."""
    dataset, box = BigQueryDataset(server), GcsBox(endpoint)
    box.make()
    sections = bigquery_sections(dataset, box, **changes)
    made = InBigQuery(place_of_project(folder, sections), {}, sections, dataset, box)
    made.faults()
    return made


@contextmanager
def filled(
    request: pytest.FixtureRequest,
    kind: str,
    folder: Path,
    table: pa.Table,
    name: str,
    *,
    pieces: int,
) -> Iterator[InAWarehouse]:
    """A project whose rows lie in `bigquery` or `snowflake`, which hands out `pieces` rows at a time.

    Nothing must be left behind when the block ends.
    """
    made: InAWarehouse
    if kind == "snowflake":
        made = snowflake_project(request.getfixturevalue("snowflake_server"), folder)
    else:
        server, endpoint = map(request.getfixturevalue, ("bigquery_server", "gcs_endpoint"))
        made = bigquery_project(server, endpoint, folder)
    made.put(table, name)
    made.in_pieces(pieces)
    yield made
    made.well()
    assert made.left() == []
