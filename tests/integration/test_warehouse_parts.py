"""A warehouse's rows read in parts: those of one session, or an error that says what is missing."""

import pickle
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from google.cloud import bigquery
from tests.warehouse_projects import (
    InAWarehouse,
    InBigQuery,
    InSnowflake,
    WarehouseReader,
    bigquery_project,
    filled,
)
from tests.warehouses import EmulatedBigQuery

from lodestar.errors import (
    DataError,
    ExternalError,
    LodestarError,
    NotAllowedError,
    SchemaError,
    SettingsError,
)
from lodestar.interface.parts import Division, PartitionedReader
from lodestar.pipelines.online_pieces import OnlinePieces, Said

ROWS = 900
SIZE = Division(chunk_rows=64, part_rows=200, keys=("id",))
START = datetime(2025, 1, 1, tzinfo=UTC)


def every_type(rows: int = ROWS) -> pa.Table:
    """A column of each type, every seventh value missing, and one whose rows are in another order."""

    def some(values: list[object], kind: pa.DataType) -> pa.Array:
        return pa.array([None if n % 7 == 3 else value for n, value in enumerate(values)], kind)

    numbers, plain = range(rows), START.replace(tzinfo=None)
    return pa.table(
        {
            "id": pa.array(numbers, pa.int64()),
            "place": pa.array([n * 7919 % rows for n in numbers], pa.int64()),
            "flag": some([n % 3 == 0 for n in numbers], pa.bool_()),
            "score": some([n / 8 - 20 for n in numbers], pa.float64()),
            "name": some([f"né {n} 猫" for n in numbers], pa.string()),
            "day": some([date(1969, 12, 1) + timedelta(n) for n in numbers], pa.date32()),
            "at": some(
                [START - timedelta(hours=n, microseconds=n) for n in numbers],
                pa.timestamp("us", "UTC"),
            ),
            "local": some([plain + timedelta(n) for n in numbers], pa.timestamp("us")),
        }
    )


@pytest.fixture
def snow(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InSnowflake]:
    folder = tmp_path / "project"
    with filled(request, "snowflake", folder, every_type(), "spine", pieces=150) as made:
        assert isinstance(made, InSnowflake)
        for name, value in made.variables.items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def big(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[InBigQuery]:
    folder = tmp_path / "project"
    with filled(request, "bigquery", folder, every_type(), "spine", pieces=100) as made:
        assert isinstance(made, InBigQuery)
        yield made


def division(project: InAWarehouse) -> Division:
    return replace(SIZE, place=project.place)


def elsewhere(reader: PartitionedReader, size: Division) -> pa.Table:
    """All rows as workers on other nodes read them."""
    with reader.parts(size) as divided:
        assert divided.parts is not None, divided.why
        assert len(divided.parts) > 3
        there = [pickle.loads(pickle.dumps(part)) for part in divided.parts]
        return pa.Table.from_batches([batch for part in there for batch in part.read()])


def by_one_session(reader: WarehouseReader) -> pa.Table:
    return reader.read(chunk_rows=64).read_all()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT *, CAST(score AS numeric(10, 2)) AS amount FROM spine ORDER BY id",
        "SELECT id, name FROM spine ORDER BY place DESC",
    ],
)
@pytest.mark.parametrize("warehouse", ["big", "snow"])
def test_workers_read_the_rows_that_one_session_reads_in_their_order(
    request: pytest.FixtureRequest, warehouse: str, sql: str
) -> None:
    project = request.getfixturevalue(warehouse)
    alone = by_one_session(project.reader(sql))
    assert alone.num_rows == ROWS
    assert elsewhere(project.reader(sql), division(project)).equals(alone)


def test_parameters_are_bound_in_an_export_too(big: InBigQuery) -> None:
    sql = "SELECT id, at FROM spine WHERE at >= :start_date ORDER BY id"
    rows = elsewhere(big.reader(sql, start_date="2024-12-01"), division(big))
    assert rows.equals(by_one_session(big.reader(sql, start_date="2024-12-01")))
    assert 0 < rows.num_rows < ROWS
    (export,) = [one for one in big.dataset.server.said() if "EXPORT" in one.get("sql", "")]
    assert "2024" not in export["sql"]
    assert export["configuration"]["labels"] == {"application": "lodestar-test"}


def test_a_table_is_exported_by_one_query_and_that_it_is_billed_is_said(big: InBigQuery) -> None:
    alone = by_one_session(big.table_reader("spine"))
    big.in_pieces(100)
    assert elsewhere(big.table_reader("spine"), division(big)).equals(alone)
    (export,) = [one for one in big.dataset.server.said() if not one["dry"]]
    assert export["sql"].startswith("EXPORT DATA OPTIONS (uri = 'gs://")
    with big.table_reader("spine").parts(division(big)) as divided:
        assert "a query of all of it, which BigQuery bills" in divided.why
        assert divided.moving


def test_a_table_that_requires_a_partition_filter_is_read_by_one_session(big: InBigQuery) -> None:
    table = bigquery.Table(
        f"{big.dataset.server.project}.{big.dataset.name}.filtered",
        schema=[bigquery.SchemaField("id", "INT64")],
    )
    table.require_partition_filter = True
    with big.dataset.client() as client:
        client.create_table(table)
    with big.table_reader("filtered").parts(division(big)) as divided:
        assert divided.parts is None
    assert "it requires a partition filter" in divided.why
    assert by_one_session(big.table_reader("filtered")).column_names == ["id"]
    assert not [one for one in big.dataset.server.said() if "sql" in one]


def test_a_table_that_is_not_there_is_no_export(big: InBigQuery) -> None:
    big.in_pieces(100)
    with (
        pytest.raises(DataError, match="spines") as caught,
        big.table_reader("spines").parts(division(big)),
    ):
        pass
    assert "did you mean 'spine'" in str(caught.value.hint)
    assert not [one for one in big.dataset.server.said() if "sql" in one]


def test_no_rows_are_no_export_to_be_read(big: InBigQuery) -> None:
    reader = big.reader("SELECT id FROM spine WHERE id < 0")
    with reader.parts(division(big)) as divided:
        assert divided.parts == []


def test_an_export_is_not_dearer_than_a_query_may_be(
    bigquery_server: EmulatedBigQuery, gcs_endpoint: str, tmp_path: Path
) -> None:
    big = bigquery_project(
        bigquery_server, gcs_endpoint, tmp_path / "project", maximum_bytes_billed=100
    )
    big.put(every_type(), "spine")
    with (
        pytest.raises(NotAllowedError, match="more than may be billed"),
        big.reader("SELECT id FROM spine").parts(division(big)),
    ):
        pass
    assert big.box.names() == []


@pytest.mark.parametrize(
    ("status", "reason", "message"),
    [
        (
            403,
            "accessDenied",
            "Access Denied: BigQuery BigQuery: Permission denied while writing data.",
        ),
        (404, "notFound", "Not found: Cloud Storage bucket mine does not exist"),
        (
            400,
            "invalid",
            "Cannot read and write in different locations: source: EU, destination: US",
        ),
    ],
)
def test_what_keeps_bigquery_from_the_bucket_is_said(
    big: InBigQuery, status: int, reason: str, message: str
) -> None:
    big.faults(bucket_says=(status, reason, message))
    with (
        pytest.raises(ExternalError) as caught,
        big.reader("SELECT id FROM spine").parts(division(big)),
    ):
        pass
    assert message.removeprefix("Access Denied: ") in str(caught.value)
    assert f"BigQuery cannot export rows to {big.box.uri('exports/lodestar_export_')}" in str(
        caught.value
    )
    assert "data.bigquery.export_root" in str(caught.value.hint)
    assert "Storage Object User" in str(caught.value.hint)


def test_a_query_that_fails_in_an_export_is_no_matter_of_the_bucket(big: InBigQuery) -> None:
    with (
        pytest.raises(LodestarError, match="plac"),
        big.reader("SELECT plac FROM spine").parts(division(big)),
    ):
        pass
    big.faults(fail="SELECT id")
    with (
        pytest.raises(DataError, match="BigQuery refuses: the test said so"),
        big.reader("SELECT id FROM spine").parts(division(big)),
    ):
        pass


def test_a_bucket_that_is_not_there_costs_no_query(
    bigquery_server: EmulatedBigQuery, gcs_endpoint: str, tmp_path: Path
) -> None:
    root = "gs://lodestar-no-such-bucket/exports"
    big = bigquery_project(bigquery_server, gcs_endpoint, tmp_path / "project", export_root=root)
    big.put(pa.table({"id": [1]}), "spine")
    with (
        pytest.raises(DataError, match="there is no bucket 'lodestar-no-such-bucket'"),
        big.reader("SELECT id FROM spine").parts(division(big)),
    ):
        pass
    assert not [one for one in bigquery_server.said() if "EXPORT" in one.get("sql", "")]


def test_what_was_exported_goes_also_after_a_failure(big: InBigQuery) -> None:
    big.box.put("exports/mine.txt", b"not an export")
    reader = big.reader("SELECT id FROM spine")
    with reader.parts(division(big)):
        assert len(big.box.names()) > 2
    with pytest.raises(RuntimeError), reader.parts(division(big)):
        raise RuntimeError
    assert big.box.names() == ["exports/mine.txt"]
    big.faults(breaks_off=True)  # after files were written
    with pytest.raises(DataError, match="the test said so"), reader.parts(division(big)):
        pass
    assert big.box.names() == ["exports/mine.txt"]
    big.box.bucket.blob("exports/mine.txt").delete()


def failing(big: InBigQuery) -> RuntimeError:
    """Remove the bucket with all that is in it."""
    big.box.bucket.delete(force=True)
    return RuntimeError()


def test_what_cannot_be_removed_is_said(big: InBigQuery) -> None:
    reader = big.reader("SELECT id FROM spine")
    with pytest.raises(DataError, match="there is no bucket"), reader.parts(division(big)):
        failing(big)
    big.box.make()
    with pytest.raises(RuntimeError) as caught, reader.parts(division(big)):
        raise failing(big)
    (note,) = caught.value.__notes__
    assert "exports/lodestar_export_" in note
    assert "could not be removed: there is no bucket" in note
    big.box.make()


@pytest.mark.parametrize("file", [0, 1, 2])
def test_an_export_that_is_not_whole_is_not_taken_for_whole(big: InBigQuery, file: int) -> None:
    big.faults(forgotten_file=file)
    with (
        pytest.raises(
            ExternalError, match=r"(500|800) of 900 rows that BigQuery exported are there"
        ),
        big.reader("SELECT id FROM spine").parts(division(big)),
    ):
        pass


def test_an_export_of_other_columns_is_not_taken_for_the_querys(big: InBigQuery) -> None:
    big.faults(names=["place", "id"])
    with big.reader("SELECT id, place FROM spine").parts(division(big)) as divided:
        assert divided.parts is not None
        with pytest.raises(SchemaError, match="are not the query's"):
            divided.parts[0].digest()


def test_without_a_place_for_exports_one_session_reads(
    bigquery_server: EmulatedBigQuery, gcs_endpoint: str, tmp_path: Path
) -> None:
    big = bigquery_project(bigquery_server, gcs_endpoint, tmp_path / "project", export_root=None)
    for reader in (big.reader("SELECT 1 AS one"), big.table_reader("spine")):
        with reader.parts(division(big)) as divided:
            assert divided.parts is None
        assert "data.bigquery.export_root names no place" in divided.why


@pytest.mark.parametrize(
    "root",
    ["s3://bucket/x", "gs://", "gs://Bucket", "gs://a/b'c", "gs://a//b", "gs://a/b?c", "a/b"],
)
def test_a_place_that_bigquery_cannot_export_to_is_refused(
    bigquery_server: EmulatedBigQuery, gcs_endpoint: str, tmp_path: Path, root: str
) -> None:
    big = bigquery_project(bigquery_server, gcs_endpoint, tmp_path / "project")
    path = big.place.project / "config/base.yaml"
    path.write_text(path.read_text().replace(big.box.uri("exports"), root))
    with pytest.raises(SettingsError, match="must be gs://bucket or gs://bucket/folder"):
        big.reader("SELECT 1 AS one")


def test_a_part_of_snowflake_is_of_the_moment_of_the_query(snow: InSnowflake) -> None:
    def digests() -> tuple[list[bytes], list[str]]:
        with reader.parts(division(snow)) as divided:
            assert divided.parts is not None
            sent = [pickle.dumps(part) for part in divided.parts]
            return sent, [part.digest() for part in divided.parts]

    reader = snow.reader("SELECT id, score FROM spine ORDER BY id")
    sent, before = digests()
    snow.schema.run("DELETE FROM spine WHERE id < 400")
    snow.schema.server.faults(chunk_rows=150)
    there = [pickle.loads(one) for one in sent]
    assert [batch.column("id")[0].as_py() for batch in there[0].read()] == [0, 64, 128]
    assert [part.digest() for part in there] == before
    assert snow.schema.server.statements() == []  # a result is fetched by its name
    assert digests()[1] != before


def test_a_part_of_snowflake_holds_no_link_to_its_rows(snow: InSnowflake) -> None:
    with snow.reader("SELECT id FROM spine").parts(division(snow)) as divided:
        assert divided.parts is not None
        for part in divided.parts:
            sent = pickle.dumps(part)
            assert b"/chunks/" not in sent
            assert snow.schema.server.password.encode() not in sent


@pytest.mark.parametrize(
    ("fault", "words"), [("forgotten_results", "not found"), ("expired_results", "has expired")]
)
def test_a_result_that_is_gone_or_anothers_says_so(
    snow: InSnowflake, fault: str, words: str
) -> None:
    with snow.reader("SELECT id FROM spine").parts(division(snow)) as divided:
        assert divided.parts is not None
        snow.schema.server.faults(chunk_rows=150, **{fault: True})
        with pytest.raises(ExternalError, match=words) as caught:
            divided.parts[0].digest()
    assert "for the user who ran the query" in str(caught.value.hint)


def test_a_result_that_is_not_whole_is_not_taken_for_whole(snow: InSnowflake) -> None:
    reader = snow.reader("SELECT id FROM spine")
    snow.schema.server.faults(chunk_rows=150, forgotten_chunk=2)
    with reader.parts(division(snow)) as divided:
        assert divided.parts is not None
        with pytest.raises(ExternalError, match="150 of 300 rows came"):
            divided.parts[0].digest()
    snow.schema.server.faults(chunk_rows=150)
    with reader.parts(division(snow)) as divided:
        assert divided.parts is not None
        snow.schema.server.faults(chunk_rows=100)
        with pytest.raises(ExternalError, match="in other batches than before"):
            divided.parts[0].digest()
        snow.schema.server.faults(chunk_rows=150, cut_chunk=0)
        with pytest.raises(ExternalError, match="connection to Snowflake was lost"):
            divided.parts[1].digest()


def test_parts_of_snowflake_log_in_as_their_work(snow: InSnowflake) -> None:
    reader = snow.schema.reader("SELECT id FROM spine", application_name="lodestar batch 1234")
    with reader.parts(division(snow)) as divided:
        assert divided.parts is not None
        sent = pickle.dumps(divided.parts[0])
    snow.schema.server.faults(chunk_rows=150)
    pickle.loads(sent).digest()
    (login,) = [one for one in snow.schema.server.said() if "login" in one]
    assert login["parameters"]["QUERY_TAG"] == "lodestar batch 1234"


def test_check_online_exports_a_row_and_removes_it(big: InBigQuery) -> None:
    pieces = OnlinePieces(big.place.read({}), None).of_stores()
    (exports,) = [piece for piece in pieces if piece.where == "data.bigquery.export_root"]
    assert exports.work() == Said("fine", "a row was exported, read and removed")
    assert big.box.names() == []
    big.faults(bucket_says=(403, "accessDenied", "Access Denied: no writing data"))
    with pytest.raises(ExternalError, match="cannot export rows"):
        exports.work()
