"""Trying out where results go in a warehouse: each thing that is missing is said, with what to do."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from tests.warehouses import BigQueryDataset, EmulatedBigQuery, EmulatedSnowflake, SnowflakeSchema

from lodestar.adapters.bigquery.writer import BigQueryWriter
from lodestar.adapters.snowflake.writer import SnowflakeWriter
from lodestar.errors import DataError, ExternalError, LodestarError, NotAllowedError, UsageError


@pytest.fixture
def schema(snowflake_server: EmulatedSnowflake) -> Iterator[SnowflakeSchema]:
    snowflake_server.faults()
    made = SnowflakeSchema(snowflake_server)
    made.put(pa.table({"a": [1]}), "mine")
    yield made
    snowflake_server.faults()


@pytest.fixture
def dataset(bigquery_server: EmulatedBigQuery) -> Iterator[BigQueryDataset]:
    bigquery_server.faults()
    made = BigQueryDataset(bigquery_server)
    made.put(pa.table({"a": [1]}), "mine")
    yield made
    bigquery_server.faults()


def place_in(schema: SnowflakeSchema) -> str:
    return f"snowflake://shop.{schema.name}"


def place_of(dataset: BigQueryDataset) -> str:
    return f"bq://{dataset.server.project}.{dataset.name}"


def snowflake_fails(
    schema: SnowflakeSchema, where: str, code: str, words: str, **config: object
) -> str:
    schema.server.faults(**{"fail": where, "as": [code, words]})
    with pytest.raises(LodestarError) as caught:
        SnowflakeWriter(schema.config(**config), Path()).probe(place_in(schema))
    schema.server.faults()
    assert schema.tables() == ["mine"]
    return str(caught.value)


def test_snowflake_runs_the_statements_that_results_take(schema: SnowflakeSchema) -> None:
    schema.server.faults()
    warehouse = {"name": "train_wh", "resume": True}
    SnowflakeWriter(schema.config(warehouse=warehouse), Path()).probe(place_in(schema))
    statements = schema.server.statements()
    for words in ("ALTER WAREHOUSE", "PUT ", "COPY INTO", "CREATE TABLE", "SELECT probe", "DROP"):
        assert any(one.startswith(words) for one in statements), words
    assert schema.tables() == ["mine"]


@pytest.mark.parametrize(
    ("where", "code", "words", "hint"),
    [
        (
            "CREATE TABLE",
            "003001",
            "Insufficient privileges",
            "grant the right to data.snowflake's role",
        ),
        ("CREATE TEMPORARY STAGE", "003001", "Insufficient privileges", "grant the right"),
        ("COPY INTO", "000606", "No active warehouse selected", "warehouse.resume if it sleeps"),
        ("COPY INTO", "090073", "Warehouse 'W' cannot be resumed", "resource monitor"),
        ("COPY INTO", "000630", "Statement reached its timeout", "statement_timeout"),
        ("SELECT probe", "003001", "Insufficient privileges", "grant the right"),
    ],
)
def test_what_snowflake_refuses_is_said_with_a_hint_and_nothing_is_left(
    schema: SnowflakeSchema, where: str, code: str, words: str, hint: str
) -> None:
    said = snowflake_fails(schema, where, code, words)
    assert words in said
    assert hint in said


def test_a_warehouse_that_is_not_there_is_said(schema: SnowflakeSchema) -> None:
    said = snowflake_fails(
        schema,
        "ALTER WAREHOUSE",
        "003001",
        "Insufficient privileges to operate on warehouse",
        warehouse={"name": "none", "resume": True},
    )
    assert "name another role" in said


@pytest.mark.parametrize(
    ("place", "what", "near"),
    [
        ("snowflake://shopp.public", "no database 'shopp'", "did you mean 'shop'"),
        ("snowflake://shop.{name}x", "no schema", "did you mean"),
    ],
)
def test_a_database_or_schema_that_is_not_there_is_said_with_near_ones(
    schema: SnowflakeSchema, place: str, what: str, near: str
) -> None:
    with pytest.raises(DataError, match=what) as caught:
        SnowflakeWriter(schema.config(), Path()).probe(place.format(name=schema.name))
    assert near in str(caught.value)


def test_bigquery_loads_publishes_and_reads(dataset: BigQueryDataset) -> None:
    dataset.server.faults()
    BigQueryWriter(dataset.config(), Path()).probe(place_of(dataset))
    said = [one["sql"] for one in dataset.server.said() if "sql" in one]
    assert [sql.split()[0] for sql in said] == ["CREATE", "SELECT"]
    assert dataset.tables() == ["mine"]


def test_a_dataset_that_is_not_there_is_said_with_near_ones(dataset: BigQueryDataset) -> None:
    with pytest.raises(DataError, match="Not found: Dataset") as caught:
        BigQueryWriter(dataset.config(), Path()).probe(f"{place_of(dataset)}x")
    assert f"did you mean '{dataset.name}'" in str(caught.value)


def test_a_cap_below_what_publishing_takes_is_said_with_its_key(dataset: BigQueryDataset) -> None:
    writer = BigQueryWriter(dataset.config(maximum_bytes_billed=1), Path())
    with pytest.raises(NotAllowedError, match="may be billed") as caught:
        writer.probe(place_of(dataset))
    assert "data.bigquery.maximum_bytes_billed" in str(caught.value)
    assert dataset.tables() == ["mine"]


@pytest.mark.parametrize("where", ["load", "CREATE TABLE", "SELECT probe"])
def test_what_bigquery_refuses_is_said_with_the_roles_and_nothing_is_left(
    dataset: BigQueryDataset, where: str
) -> None:
    dataset.server.faults(deny=where)
    with pytest.raises(ExternalError, match="Access Denied") as caught:
        BigQueryWriter(dataset.config(), Path()).probe(place_of(dataset))
    assert "BigQuery Data Viewer (to write: Editor)" in str(caught.value)
    dataset.server.faults()
    assert dataset.tables() == ["mine"]


def test_a_root_that_names_no_dataset_or_schema_is_refused(
    dataset: BigQueryDataset, schema: SnowflakeSchema
) -> None:
    with pytest.raises(UsageError, match="bq://project"):
        BigQueryWriter(dataset.config(), Path()).probe("bq://project")
    with pytest.raises(UsageError, match="snowflake://database"):
        SnowflakeWriter(schema.config(), Path()).probe("snowflake://shop")
