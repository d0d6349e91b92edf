"""Projects whose rows lie in an emulated warehouse, for parts that are read as by workers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from tests.object_stores import GcsBox
from tests.parted import place_of_project
from tests.warehouses import BigQueryDataset, EmulatedBigQuery, EmulatedSnowflake, SnowflakeSchema

from lodestar.adapters.registry import SQL_READERS, adapter
from lodestar.interface.parts import PartitionedReader
from lodestar.settings.loading import ConfigPlace
from lodestar.sql import parse_query

__all__ = [
    "InBigQuery",
    "InSnowflake",
    "bigquery_project",
    "snowflake_project",
]

PASSWORD = "LODESTAR_TEST_PASSWORD"  # noqa: S105 -- a variable's name


@dataclass(frozen=True)
class _InAWarehouse:
    place: ConfigPlace
    variables: Mapping[str, str]
    sections: Mapping[str, Any]

    kind = ""

    def reader(self, sql: str, **params: str) -> PartitionedReader:
        """Read by a query, as the factory makes the reader."""
        data = self.place.read(self.variables).config.data
        make = adapter(SQL_READERS, self.kind, what="data.adapter")
        query = parse_query(sql, "postgres", where="x.sql")
        found: PartitionedReader = make(data, self.place.project, query, params)
        return found


@dataclass(frozen=True)
class InSnowflake(_InAWarehouse):
    """A schema of one test's own, and the project whose config names it."""

    schema: SnowflakeSchema

    kind = "snowflake"

    def put(self, table: pa.Table, name: str) -> None:
        """Make a table of these rows, in place of the one that is there."""
        self.schema.run(f'DROP TABLE IF EXISTS "{name.upper()}"')
        self.schema.put(table, name)


@dataclass(frozen=True)
class InBigQuery(_InAWarehouse):
    """A dataset and a bucket of one test's own, and the project whose config names them."""

    dataset: BigQueryDataset
    box: GcsBox

    kind = "bigquery"

    def put(self, table: pa.Table, name: str) -> None:
        """Make a table of these rows, in place of the one that is there."""
        with self.dataset.client() as client:
            client.delete_table(f"{self.dataset.name}.{name}", not_found_ok=True)
        self.dataset.put(table, name)

    def faults(self, **faults: object) -> None:
        """Set what goes wrong from now on; the bucket's server stays known."""
        self.dataset.server.faults(buckets=self.box.endpoint, **faults)

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
    """Make one; workers need its variables."""
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
