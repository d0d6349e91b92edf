# ruff: noqa: S608 -- the SQL of a recipe is what some of these tests are about
"""BigQuery as loader and destination: parameters, costs, names, credentials, and what goes wrong."""

import json
import logging
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from tests.faults.injector.proxy import Proxy
from tests.table_writers import JANUARY, scores
from tests.warehouses import BigQueryDataset, EmulatedBigQuery, account_file, new_key

from lodestar.adapters.bigquery.writer import BigQueryWriter
from lodestar.adapters.registry import SQL_READERS, URI_READERS, WRITERS, adapter
from lodestar.errors import (
    DataError,
    ExternalError,
    LodestarError,
    NotAllowedError,
    SchemaError,
    SettingsError,
    UsageError,
)
from lodestar.infra.endpoint import free_port
from lodestar.settings.config import Data
from lodestar.sql import parse_query

# google-cloud-bigquery calls google-cloud-bigquery-storage in a way that the latter means to give up.
_BY_GOOGLE = "ignore:Retrieving Arrow record batches directly:PendingDeprecationWarning"


@pytest.fixture
def dataset(bigquery_server: EmulatedBigQuery) -> Iterator[BigQueryDataset]:
    bigquery_server.faults()
    yield BigQueryDataset(bigquery_server)
    bigquery_server.faults()


@pytest.fixture
def events(dataset: BigQueryDataset) -> BigQueryDataset:
    days = pa.array([0, 86_400, 172_800], pa.timestamp("s", "UTC")).cast(pa.timestamp("us", "UTC"))
    dataset.put(pa.table({"user_id": ["a", "b", "c"], "at": days, "n": [1, 2, 3]}), "events")
    dataset.server.faults()
    return dataset


def write(dataset: BigQueryDataset, table: pa.Table, replace: dict[str, str] | None = None) -> None:
    writer = BigQueryWriter(dataset.config(), Path())
    uri = f"bq://{dataset.server.project}.{dataset.name}.scores"
    with writer.sink(uri, table.schema, replace=replace) as sink:
        for batch in table.to_batches(max_chunksize=2):
            sink.write(batch)


def stored(dataset: BigQueryDataset) -> list[tuple[str, float]]:
    return dataset.run("SELECT batch_key, score FROM scores ORDER BY batch_key, score")


def test_a_failing_merge_leaves_what_was_there_and_nothing_else(dataset: BigQueryDataset) -> None:
    write(dataset, scores(JANUARY, [1.0]), JANUARY)
    dataset.server.faults(fail="MERGE")
    with pytest.raises(LodestarError):
        write(dataset, scores(JANUARY, [2.0]), JANUARY)
    assert stored(dataset) == [("january", 1.0)]
    assert dataset.tables() == ["scores"]


def test_what_a_killed_job_left_aside_goes_by_itself(dataset: BigQueryDataset) -> None:
    dataset.server.faults(throttle_removal=True)
    writer = BigQueryWriter(dataset.config(retry_timeout=1), Path())
    uri = f"bq://{dataset.server.project}.{dataset.name}.scores"
    table = scores(JANUARY, [1.0])
    with writer.sink(uri, table.schema) as sink:
        sink.write(table.to_batches()[0])
    dataset.server.faults()
    (left,) = [name for name in dataset.tables() if name != "scores"]
    with dataset.client() as client:
        expires = client.get_table(f"{dataset.name}.{left}").expires
    assert expires is not None


def test_larger_files_are_loaded_in_pieces(dataset: BigQueryDataset) -> None:
    table = pa.table({"user_id": [secrets.token_hex(32) for _ in range(100_000)]})
    assert table.nbytes > 5 << 20  # from this size on the client asks for an upload to resume
    writer = BigQueryWriter(dataset.config(), Path())
    uri = f"bq://{dataset.server.project}.{dataset.name}.scores"
    with writer.sink(uri, table.schema) as sink:
        sink.write(table.to_batches()[0])
    assert dataset.run("SELECT COUNT(*) FROM scores") == [(100_000,)]


def test_a_table_with_other_columns_is_refused_before_any_row_is_made(
    dataset: BigQueryDataset,
) -> None:
    dataset.put(pa.table({"user_id": ["a"], "score": ["b"], "extra": [1.0]}), "scores")
    writer = BigQueryWriter(dataset.config(), Path())
    uri = f"bq://{dataset.server.project}.{dataset.name}.scores"
    with (
        pytest.raises(SchemaError) as caught,
        writer.sink(uri, scores(JANUARY, [1.0]).schema),
    ):
        pytest.fail("it was opened")
    for words in (
        "- batch_key: missing",
        "+ extra: not written",
        "~ score: STRING there, FLOAT here",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "bq://scores",
        "bq://shop.scores",
        "bq://user:canary-55aa@host/a.b.c",
        "bq://a.b.c`; DROP TABLE x",
        "bq://A.b.c",
    ],
)
def test_a_destination_that_is_none_is_refused_and_not_shown(
    dataset: BigQueryDataset, uri: str
) -> None:
    with pytest.raises(UsageError, match=r"bq://project\.dataset\.table") as caught:
        BigQueryWriter(dataset.config(), Path()).sink(uri, pa.schema([("a", pa.int64())]))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("names", [["a", "A"], ["a b"], [""], ["1st"], ["a`b"]])
def test_names_that_bigquery_cannot_keep_are_refused(
    dataset: BigQueryDataset, names: list[str]
) -> None:
    writer = BigQueryWriter(dataset.config(), Path())
    with pytest.raises(SchemaError, match="no room for a column named"):
        writer.sink("bq://a.b.c", pa.schema([(name, pa.int64()) for name in names]))


def test_parameters_get_the_types_of_what_they_stand_beside(events: BigQueryDataset) -> None:
    sql = (
        "SELECT user_id FROM events WHERE at >= :start AND at < :end AND user_id <> :user "
        "AND n < :most ORDER BY user_id"
    )
    params = {"end": "1970-01-03", "user": "x' OR '1'='1", "start": "1970-01-02", "most": "9"}
    assert events.reader(sql, params).read(chunk_rows=10).read_all().to_pylist() == [
        {"user_id": "b"}
    ]
    (ran,) = [one for one in events.server.said() if "sql" in one and not one["dry"]]
    assert params["user"] not in ran["sql"]
    kinds = {
        one["name"]: one["parameterType"]["type"]
        for one in ran["configuration"]["query"]["queryParameters"]
    }
    assert kinds == {"start": "TIMESTAMP", "end": "TIMESTAMP", "user": "STRING", "most": "INT64"}


def test_columns_are_known_before_the_parameters_are_and_nothing_runs(
    events: BigQueryDataset,
) -> None:
    reader = events.reader("SELECT user_id FROM events WHERE at >= :start", {"start": ""})
    assert reader.schema().names == ["user_id"]
    assert reader.bytes_read() == 3 * 3 * 8
    assert all(one["dry"] for one in events.server.said())


def test_a_value_that_is_none_of_its_type_is_refused(events: BigQueryDataset) -> None:
    reader = events.reader("SELECT user_id FROM events WHERE at >= :start", {"start": "soon"})
    with pytest.raises(DataError, match="soon"):
        reader.read(chunk_rows=10).read_all()


def test_a_query_beyond_the_cap_is_not_allowed_and_says_what_it_takes(
    events: BigQueryDataset,
) -> None:
    reader = events.reader("SELECT * FROM events", maximum_bytes_billed=71)
    with pytest.raises(NotAllowedError, match="it takes 72 bytes") as caught:
        reader.read(chunk_rows=10).read_all()
    assert "data.bigquery.maximum_bytes_billed" in str(caught.value)
    assert caught.value.exit_code == 5
    within = events.reader("SELECT * FROM events", maximum_bytes_billed=72)
    assert within.read(chunk_rows=10).read_all().num_rows == 3


def test_jobs_carry_labels_a_place_and_a_time(events: BigQueryDataset) -> None:
    reader = events.reader(
        "SELECT * FROM events", application_name="lodestar train Uplift.v3", job_timeout=17
    )
    reader.read(chunk_rows=10).read_all()
    assert events.server.said()
    for one in events.server.said():
        assert one["configuration"]["labels"] == {"application": "lodestar-train-uplift-v3"}
        assert one["configuration"]["jobTimeoutMs"] == "17000"


def test_an_unknown_table_column_or_dataset_is_named_with_its_neighbours(
    events: BigQueryDataset,
) -> None:
    with pytest.raises(DataError, match=r"Not found: Table .*\.event was") as caught:
        events.reader("SELECT * FROM event").schema()
    assert "did you mean 'events'" in str(caught.value)
    with pytest.raises(SchemaError, match="Unrecognized name: userid") as caught:
        events.reader("SELECT userid FROM events").schema()
    assert "did you mean 'user_id'" in str(caught.value)
    near = events.name[:-1]
    with pytest.raises(DataError, match="Not found: Dataset") as caught:
        events.reader(f"SELECT * FROM {near}.events").schema()
    assert "datasets: did you mean" in str(caught.value)
    writer = BigQueryWriter(events.config(), Path())
    destination = f"bq://{events.server.project}.{near}.t"
    with (
        pytest.raises(DataError, match="Not found: Dataset") as caught,
        writer.sink(destination, pa.schema([("a", pa.int64())])),
    ):
        pytest.fail("it was opened")
    assert "datasets: did you mean" in str(caught.value)


def test_sql_that_bigquery_cannot_say_is_named_with_both_dialects(dataset: BigQueryDataset) -> None:
    with pytest.raises(SettingsError, match=r"cannot be said in bigquery: .*modifiers") as caught:
        dataset.reader("SELECT regexp_replace(a, 'x', 'y', 'g') AS a FROM t")
    assert "read as postgres" in str(caught.value)


def test_types_that_no_model_takes_are_refused_by_name(dataset: BigQueryDataset) -> None:
    with pytest.raises(SchemaError, match="'raw' has the type BYTES") as caught:
        dataset.reader("SELECT CAST('a' AS BYTES) AS raw", dialect="bigquery").schema()
    assert "TO_JSON_STRING(raw)" in str(caught.value)


def test_missing_or_refused_credentials_say_what_to_do_and_show_no_secret(
    events: BigQueryDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    strange = account_file(new_key(), events.server.address)
    (tmp_path / "strange.json").write_text(json.dumps(strange))
    (tmp_path / "broken.json").write_text(
        '{"type": "service_account", "private_key": "canary-55aa"}'
    )
    cases: list[tuple[Path, type[LodestarError], str]] = [
        (tmp_path / "strange.json", ExternalError, "no credentials for BigQuery"),
        (tmp_path / "broken.json", UsageError, "no file of a service account's"),
        (tmp_path / "none.json", UsageError, "No such file"),
    ]
    for path, kind, words in cases:
        with pytest.raises(kind, match=words) as caught:
            events.reader("SELECT * FROM events", credentials_file=str(path)).schema()
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None
    secret = strange["private_key"].splitlines()[1]
    assert secret not in caplog.text
    assert "canary" not in caplog.text
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(ExternalError, match="no credentials for BigQuery"):
        events.reader("SELECT * FROM events", credentials_file=None).schema()


def test_googles_default_chain_finds_the_accounts_file(
    events: BigQueryDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(events.server.credentials_file))
    reader = events.reader("SELECT user_id FROM events", credentials_file=None)
    assert reader.schema().names == ["user_id"]


def test_a_revoked_key_is_an_error_of_the_outside(events: BigQueryDataset) -> None:
    events.server.faults(revoked=True)
    with pytest.raises(ExternalError, match=r"no credentials for BigQuery: .*invalid_grant"):
        events.reader("SELECT user_id FROM events").schema()


def test_throttling_is_waited_for_and_not_for_ever(events: BigQueryDataset) -> None:
    events.server.faults(throttle=1)
    assert events.reader("SELECT user_id FROM events").schema().names == ["user_id"]
    events.server.faults(throttle=1_000)
    with pytest.raises(ExternalError, match="Exceeded rate limits") as caught:
        events.reader("SELECT user_id FROM events", retry_timeout=1).schema()
    assert "retry_timeout" in str(caught.value)


def test_a_server_that_is_not_there_is_an_error_of_the_outside(
    dataset: BigQueryDataset, tmp_path: Path
) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ExternalError, match="connection to BigQuery was lost"):
        dataset.reader("SELECT 1 AS a", endpoint_url=address, retry_timeout=1).schema()


def test_a_result_that_ends_early_is_not_taken_for_whole(dataset: BigQueryDataset) -> None:
    dataset.put(pa.table({"row": range(30_000)}), "many")
    reader = dataset.reader("SELECT * FROM many")
    dataset.server.faults(forgotten_after=15_000)
    with pytest.raises(ExternalError, match="sent 20,000 of 30,000 rows"):
        reader.read(chunk_rows=1_000).read_all()


@pytest.mark.filterwarnings(_BY_GOOGLE)
def test_the_storage_api_streams_results_and_tables_in_order(dataset: BigQueryDataset) -> None:
    dataset.put(pa.table({"row": range(30_000)}), "many")
    config = dataset.config(storage_api=True, storage_endpoint_url=dataset.server.storage)
    data = Data(adapter="bigquery", root="data", snapshots="data", bigquery=config)
    query = parse_query("SELECT row FROM many ORDER BY row", "postgres", where="x.sql")
    uri = f"bq://{dataset.server.project}.{dataset.name}.many"
    for reader in (
        adapter(SQL_READERS, "bigquery", what="data.adapter")(data, Path(), query, {}),
        adapter(URI_READERS, "bq", what="the URI scheme")(data, Path(), uri),
    ):
        dataset.server.faults()
        read = reader.read(chunk_rows=1_000).read_all()
        assert read.column("row").to_pylist() == list(range(30_000))
        assert [one for one in dataset.server.said() if "stream" in one]
        dataset.server.faults(forgotten_after=15_000)
        with pytest.raises(ExternalError, match="sent 15,000 of 30,000 rows"):
            reader.read(chunk_rows=1_000).read_all()


def test_reading_has_a_time_too(dataset: BigQueryDataset) -> None:
    dataset.put(pa.table({"row": range(30_000)}), "many")
    reader = dataset.reader("SELECT * FROM many", read_timeout=3)
    with reader.read(chunk_rows=1_000) as batches:
        batches.read_next_batch()
        time.sleep(3.1)
        with pytest.raises(ExternalError, match="took longer than 3 s"):
            batches.read_all()


def test_a_connection_that_breaks_for_a_moment_is_no_matter(dataset: BigQueryDataset) -> None:
    dataset.put(pa.table({"row": range(30_000)}), "many")
    port = int(dataset.server.address.rpartition(":")[2])
    with Proxy("127.0.0.1", port) as proxy:
        reader = dataset.reader("SELECT * FROM many", endpoint_url=f"http://127.0.0.1:{proxy.port}")
        with reader.read(chunk_rows=1_000) as batches:
            rows = batches.read_next_batch().num_rows
            proxy.cut()
            rows += sum(batch.num_rows for batch in batches)
    assert rows == 30_000


def test_the_config_chooses_by_name_and_by_scheme(events: BigQueryDataset) -> None:
    data = Data(adapter="bigquery", root="data", snapshots="data", bigquery=events.config())
    query = parse_query("SELECT user_id FROM events", "postgres", where="x.sql")
    by_name = adapter(SQL_READERS, "bigquery", what="data.adapter")(data, Path(), query, {})
    uri = f"bq://{events.server.project}.{events.name}.events"
    by_scheme = adapter(URI_READERS, "bq", what="the URI scheme")(data, Path(), uri)
    assert by_name.schema().names == ["user_id"]
    assert by_scheme.read(chunk_rows=2).read_all().column("n").to_pylist() == [1, 2, 3]
    assert not [one for one in events.server.said() if not one.get("dry")]  # no query, no cost
    assert isinstance(adapter(WRITERS, "bq", what="the URI scheme")(data, Path()), BigQueryWriter)
    empty = data.model_copy(update={"bigquery": None})
    with pytest.raises(UsageError, match="not which project"):
        adapter(URI_READERS, "bq", what="the URI scheme")(empty, Path(), uri)


def test_a_table_that_is_not_there_is_named_by_its_uri_too(events: BigQueryDataset) -> None:
    data = Data(adapter="bigquery", root="data", snapshots="data", bigquery=events.config())
    uri = f"bq://{events.server.project}.{events.name}.event"
    reader = adapter(URI_READERS, "bq", what="the URI scheme")(data, Path(), uri)
    with pytest.raises(DataError, match="did you mean 'events'"):
        reader.schema()


def test_a_missing_driver_names_its_extra(
    events: BigQueryDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "google.cloud.bigquery", None)
    with pytest.raises(ExternalError, match=r"lodestar-ml\[bigquery\]"):
        events.reader("SELECT 1 AS a").schema()


def test_the_storage_api_has_an_endpoint_of_its_own(dataset: BigQueryDataset) -> None:
    with pytest.raises(ValueError, match="set storage_endpoint_url too"):
        dataset.config(storage_api=True)


@pytest.mark.parametrize(
    "condition",
    [
        "at >= CAST('1970-01-02' AS timestamp)",
        "at >= TIMESTAMP '1970-01-02'",
        "at BETWEEN CAST('1970-01-02' AS timestamp) AND CAST('1970-01-04' AS timestamp)",
        "at >= CAST('1970-01-02' AS timestamptz)",
    ],
)
def test_times_are_compared_as_other_databases_do(events: BigQueryDataset, condition: str) -> None:
    read = events.reader(f"SELECT user_id FROM events WHERE {condition}").read(chunk_rows=9)
    assert read.read_all().column("user_id").to_pylist() == ["b", "c"]
