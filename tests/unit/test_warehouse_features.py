"""Answers of a warehouse are looked at: each row gets its own, or none gets any."""

import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal

import pyarrow as pa
import pytest

from lodestar.adapters.warehouse.features import HeldRows, WarehouseFeatures
from lodestar.adapters.warehouse.spool import ParquetSpool
from lodestar.adapters.warehouse.sql import FoundColumn, WarehouseTable, table_at
from lodestar.core.version_columns import VersionColumns
from lodestar.errors import ExternalError, LodestarError
from lodestar.interface.features import SelectedFeatures
from lodestar.testing.known import asking, some_view

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
SPINE = asking(*(("u", NOON) for _ in range(5)))
SELECTION = [SelectedFeatures(some_view(), ("points",))]


class Answering:
    """A warehouse that has every table, and gives the answers that it was made with."""

    dialect: Literal["bigquery"] = "bigquery"

    def __init__(self, numbers: Sequence[int], batch_rows: int = 2) -> None:
        self._numbers, self._batch_rows = numbers, batch_rows
        self.uploaded = 0
        self.left = False

    def tables(self, declared: Sequence[VersionColumns]) -> list[WarehouseTable]:
        return [
            WarehouseTable(
                "bigquery",
                one,
                table_at("p", "d", one.view.source.table),
                {field.name: FoundColumn(field.name, field.type) for field in one.schema},
            )
            for one in declared
        ]

    def query(self, sql: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        assert "`lodestar_spine`" in sql
        answers = pa.table([pa.array(self._numbers, pa.int64())] * len(schema), schema=schema)
        yield from answers.to_batches(max_chunksize=self._batch_rows)

    @contextmanager
    def holding(self, schema: pa.Schema, rows: ParquetSpool) -> Iterator[HeldRows]:
        self.uploaded = rows.rows
        try:
            yield HeldRows(table_at("p", "d", "lodestar_spine"), self.query)
        finally:
            self.left = True

    def bytes_read(self, sql: str) -> int:
        return len(sql)


def joined(warehouse: Answering) -> pa.Table:
    features = WarehouseFeatures(warehouse)
    with features.historical(SPINE.to_reader(2), SELECTION, timestamp="asked_at") as rows:
        return rows.read_all()


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 5, 100])
def test_answers_are_put_beside_their_rows_however_they_are_cut(batch_rows: int) -> None:
    warehouse = Answering(range(5), batch_rows)
    table = joined(warehouse)
    assert table.select(SPINE.column_names).equals(SPINE)
    assert table["points"].to_pylist() == [0, 1, 2, 3, 4]
    assert (warehouse.uploaded, warehouse.left) == (5, True)


@pytest.mark.parametrize(
    "numbers",
    [[], [0, 1, 2, 3], [0, 1, 2, 3, 4, 5], [1, 0, 2, 3, 4], [0, 0, 1, 2, 3], [0, 1, 2, 3, 3]],
    ids=["none", "too few", "too many", "turned round", "one twice", "one instead of another"],
)
def test_other_answers_than_were_asked_for_are_an_error(numbers: list[int]) -> None:
    warehouse = Answering(numbers)
    with pytest.raises(ExternalError, match="did not give each of 5 rows its features"):
        joined(warehouse)
    assert warehouse.left


def test_rows_that_are_read_too_late_are_an_error_and_not_fewer_rows() -> None:
    features = WarehouseFeatures(Answering(range(5)))
    with features.historical(SPINE.to_reader(2), SELECTION, timestamp="asked_at") as rows:
        pass
    with pytest.raises(LodestarError, match="closed after 0 of 5 rows"):
        rows.read_all()


def test_only_keys_and_times_of_rows_are_held_while_they_are_uploaded() -> None:
    rows, width = 50_000, 1_000
    spine = pa.table(
        {
            "user_id": ["u"] * rows,
            "asked_at": pa.array([NOON] * rows, pa.timestamp("us", "UTC")),
            "note": ["n" * width] * rows,
        }
    )
    features = WarehouseFeatures(Answering([]))
    tracemalloc.start()
    try:
        with features.historical(spine.to_reader(1_000), SELECTION, timestamp="asked_at"):
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < rows * width / 5


def test_what_a_join_reads_is_asked_without_any_row() -> None:
    warehouse = Answering([])
    spine = SPINE.schema
    assert (WarehouseFeatures(warehouse).bytes_read(SELECTION, spine) or 0) > 500
    assert warehouse.uploaded == 0
