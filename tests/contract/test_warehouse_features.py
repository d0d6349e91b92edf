"""Feature tables in warehouses, and the join there, under their contracts, by the real clients."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.warehouses import BigQueryDataset, EmulatedBigQuery, EmulatedSnowflake, SnowflakeSchema

from lodestar.adapters.bigquery.features import BigQueryWarehouse
from lodestar.adapters.snowflake.features import SnowflakeWarehouse
from lodestar.adapters.warehouse.features import WarehouseFeatures
from lodestar.testing.features import FeatureTablesContract, HistoricalContract, Stored


class InWarehouse:
    """A place of its own for each set of tables; some tests ask for the same ones over and over."""

    server: Any
    made: tuple[Stored, WarehouseFeatures] | None = None

    def tables(self, *stored: Stored) -> WarehouseFeatures:
        if self.made is None or self.made[0] is not stored[0]:
            self.made = (stored[0], self.filled(*stored))
        return self.made[1]

    def filled(self, *stored: Stored) -> WarehouseFeatures:
        raise NotImplementedError


class InBigQuery(InWarehouse):
    @pytest.fixture(autouse=True)
    def _server(self, bigquery_server: EmulatedBigQuery) -> Iterator[None]:
        self.server = bigquery_server
        yield
        bigquery_server.faults()

    def filled(self, *stored: Stored) -> WarehouseFeatures:
        dataset = BigQueryDataset(self.server)
        for each in stored:
            dataset.put(each.table, each.view.source.table)
        return WarehouseFeatures(BigQueryWarehouse(dataset.config(retry_timeout=1), Path()))


class InSnowflake(InWarehouse):
    @pytest.fixture(autouse=True)
    def _server(self, snowflake_server: EmulatedSnowflake) -> Iterator[None]:
        self.server = snowflake_server
        yield
        snowflake_server.faults()

    def filled(self, *stored: Stored) -> WarehouseFeatures:
        schema = SnowflakeSchema(self.server)
        for each in stored:
            schema.put(each.table, each.view.source.table)
        return WarehouseFeatures(SnowflakeWarehouse(schema.config(), Path()))


# The suite holds each warehouse to one of the contracts, `make faults` both to both, with many cases.


@pytest.mark.faults
class TestBigQueryTables(InBigQuery, FeatureTablesContract):
    def broken(self, stored: Stored) -> WarehouseFeatures:
        """A page in the middle of the rows is cut off, at each attempt."""
        tables = self.tables(stored)
        self.server.faults(cut_after=stored.table.num_rows // 2)
        return tables


class SnowflakeTables(InSnowflake, FeatureTablesContract):
    def broken(self, stored: Stored) -> WarehouseFeatures:
        """A chunk in the middle of the rows is cut off, at each attempt."""
        tables = self.tables(stored)
        self.server.faults(cut_chunk=1)
        return tables


class TestSnowflakeTables(SnowflakeTables):
    @pytest.mark.parametrize("seed", [1])
    def test_the_latest_version_per_entity_is_as_in_plain_python(self, seed: int) -> None:
        super().test_the_latest_version_per_entity_is_as_in_plain_python(seed)


@pytest.mark.faults
class TestSnowflakeTablesOfMoreCases(SnowflakeTables):
    pass


class Join(HistoricalContract, InWarehouse):
    seeds: ClassVar[int] = 2

    def store(self, *stored: Stored) -> WarehouseFeatures:
        return self.tables(*stored)


class TestBigQueryJoin(InBigQuery, Join):
    pass


@pytest.mark.faults
class TestBigQueryJoinOfManyCases(InBigQuery, Join):
    seeds = 20


@pytest.mark.faults
class TestSnowflakeJoin(InSnowflake, Join):
    seeds = 20
