# ruff: noqa: S608 -- the SQL of a recipe is what some of these tests are about
"""Snowflake as loader and destination: logins, names, parameters, tags, and what goes wrong."""

import logging
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.table_writers import JANUARY, scores
from tests.warehouses import EmulatedSnowflake, SnowflakeSchema, new_key, private_pem

from lodestar.adapters.registry import SQL_READERS, URI_READERS, WRITERS, adapter
from lodestar.adapters.snowflake.session import opened
from lodestar.adapters.snowflake.writer import SnowflakeWriter
from lodestar.errors import (
    DataError,
    ExternalError,
    LodestarError,
    SchemaError,
    SettingsError,
    UsageError,
)
from lodestar.infra.endpoint import free_port
from lodestar.settings.config import Data
from lodestar.settings.section import EnvText
from lodestar.sql import parse_query


@pytest.fixture
def schema(snowflake_server: EmulatedSnowflake) -> Iterator[SnowflakeSchema]:
    snowflake_server.faults()
    yield SnowflakeSchema(snowflake_server)
    snowflake_server.faults()


@pytest.fixture
def events(schema: SnowflakeSchema) -> SnowflakeSchema:
    days = pa.array([0, 86_400, 172_800], pa.timestamp("s", "UTC")).cast(pa.timestamp("us", "UTC"))
    schema.put(pa.table({"user_id": ["a", "b", "c"], "day": days, "Order": [1, 2, 3]}), "events")
    schema.server.faults()
    return schema


def write(schema: SnowflakeSchema, table: pa.Table, replace: dict[str, str] | None = None) -> None:
    writer = SnowflakeWriter(schema.config(), Path())
    with writer.sink(
        f"snowflake://shop.{schema.name}.scores", table.schema, replace=replace
    ) as sink:
        for batch in table.to_batches(max_chunksize=2):
            sink.write(batch)


def stored(schema: SnowflakeSchema) -> list[tuple[str, float]]:
    return schema.run("SELECT batch_key, score FROM scores ORDER BY batch_key, score")


def test_names_of_any_kind_are_kept_and_plain_ones_need_no_quotes(schema: SnowflakeSchema) -> None:
    names = ["user_id", "Mango", "with space", 'a"b', "group", "ünï"]
    write(schema, pa.table({name: [name] for name in names}))
    read = schema.reader("SELECT * FROM scores").read(chunk_rows=1).read_all()
    assert read.to_pylist() == [{name: name for name in names}]
    assert schema.run("SELECT user_id FROM SCORES") == [("user_id",)]


def test_a_failing_insert_leaves_what_was_there(schema: SnowflakeSchema) -> None:
    write(schema, scores(JANUARY, [1.0]), JANUARY)
    schema.server.faults(fail="INSERT INTO")
    with pytest.raises(LodestarError):
        write(schema, scores(JANUARY, [2.0]), JANUARY)
    schema.server.faults()
    assert stored(schema) == [("january", 1.0)]


def test_a_table_with_other_columns_is_refused_before_any_row_is_made(
    schema: SnowflakeSchema,
) -> None:
    schema.run("CREATE TABLE scores (user_id TEXT, score TEXT, extra FLOAT)")
    writer = SnowflakeWriter(schema.config(), Path())
    sink = writer.sink(f"snowflake://shop.{schema.name}.scores", scores(JANUARY, [1.0]).schema)
    with pytest.raises(SchemaError) as caught, sink:
        pytest.fail("it was opened")
    for words in (
        "- BATCH_KEY: missing",
        "+ EXTRA: not written",
        "~ SCORE: TEXT there, FLOAT here",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "snowflake://scores",
        "snowflake://shop.scores",
        "snowflake://user:canary-55aa@host/shop.public.scores",
        'snowflake://shop.public."x"',
        "snowflake://a.b.c;DROP",
    ],
)
def test_a_destination_that_is_none_is_refused_and_not_shown(
    schema: SnowflakeSchema, uri: str
) -> None:
    with pytest.raises(UsageError, match=r"snowflake://database\.schema\.table") as caught:
        SnowflakeWriter(schema.config(), Path()).sink(uri, pa.schema([("a", pa.int64())]))
    assert "canary" not in str(caught.value)


def test_two_names_that_are_one_in_snowflake_are_refused(schema: SnowflakeSchema) -> None:
    with pytest.raises(SchemaError, match="no room for a column named 'a'"):
        SnowflakeWriter(schema.config(), Path()).sink(
            "snowflake://shop.public.t", pa.schema([("a", pa.int64()), ("A", pa.int64())])
        )


def test_parameters_are_bound_and_may_stand_anywhere_and_twice(events: SnowflakeSchema) -> None:
    sql = (
        "SELECT user_id, :label AS label FROM events WHERE day >= :start AND day < :end "
        "AND (user_id <> :label OR day > :start) ORDER BY user_id"
    )
    params = {"end": "1970-01-03", "label": "x' OR '1'='1", "start": "1970-01-02"}
    read = events.reader(sql, params).read(chunk_rows=10).read_all()
    assert read.to_pylist() == [{"user_id": "b", "label": params["label"]}]
    bindings = [one["bindings"] for one in events.server.said() if one.get("bindings")]
    assert bindings
    assert all(params["label"] not in sql for sql in events.server.statements())


def test_columns_are_known_before_the_parameters_are(events: SnowflakeSchema) -> None:
    reader = events.reader("SELECT user_id FROM events WHERE day >= :start", {"start": ""})
    assert reader.schema().names == ["user_id"]
    assert not [sql for sql in events.server.statements() if "EVENTS" in sql.upper()]


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT * FROM events", ["user_id", "day", "Order"]),
        ("SELECT user_id, day FROM EVENTS", ["user_id", "day"]),
        ('SELECT "user_id", "Order" AS "Number" FROM "events"', ["user_id", "Number"]),
        ("SELECT e.user_id AS UserId FROM events AS e", ["UserId"]),
        ('SELECT user_id AS "group" FROM events', ["group"]),
    ],
)
def test_names_are_those_of_the_recipe(events: SnowflakeSchema, sql: str, names: list[str]) -> None:
    read = events.reader(sql).read(chunk_rows=10).read_all()
    assert read.column_names == names
    assert read.num_rows == 3


def test_quoted_names_of_a_folding_dialect_are_those_that_snowflake_keeps(
    events: SnowflakeSchema,
) -> None:
    events.reader('SELECT "user_id", "Order" FROM "events"').read(chunk_rows=10).read_all()
    assert 'SELECT "USER_ID", "Order" FROM "EVENTS"' in events.server.statements()
    events.server.faults()
    own = events.reader('SELECT "USER_ID" FROM "EVENTS"', dialect="snowflake")
    own.read(chunk_rows=10).read_all()
    assert 'SELECT "USER_ID" FROM "EVENTS"' in events.server.statements()


def test_an_unknown_table_or_column_is_named_with_its_neighbours(events: SnowflakeSchema) -> None:
    with pytest.raises(DataError, match=r"EVENT'.* does not exist") as caught:
        events.reader("SELECT * FROM event").schema()
    assert "did you mean 'events'" in str(caught.value)
    with pytest.raises(SchemaError, match="invalid identifier 'USERID'") as caught:
        events.reader("SELECT userid FROM events").schema()
    assert "did you mean 'user_id'" in str(caught.value)


def test_an_unknown_database_is_named_with_its_neighbours(events: SnowflakeSchema) -> None:
    with pytest.raises(DataError) as caught:
        events.reader("SELECT * FROM shopp.public.events").schema()
    assert "databases: did you mean 'shop'" in str(caught.value)
    writer = SnowflakeWriter(events.config(), Path())
    with (
        pytest.raises(DataError, match="no database 'shopp'") as caught,
        writer.sink("snowflake://shopp.public.t", pa.schema([("a", pa.int64())])),
    ):
        pytest.fail("it was opened")
    assert "did you mean 'shop'" in str(caught.value)


def test_sql_that_snowflake_cannot_say_is_named_with_both_dialects(schema: SnowflakeSchema) -> None:
    window = "ROWS BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE TIES"
    with pytest.raises(SettingsError, match="cannot be said in snowflake: EXCLUDE") as caught:
        schema.reader(f"SELECT SUM(a) OVER (ORDER BY a {window}) AS s FROM t")
    assert "read as postgres" in str(caught.value)


def test_a_whole_number_beyond_64_bits_is_no_other_number(schema: SnowflakeSchema) -> None:
    reader = schema.reader("SELECT 99999999999999999999 AS big", dialect="snowflake")
    with pytest.raises(DataError, match="'big' has a whole number beyond 64 bits"):
        reader.read(chunk_rows=10).read_all()


def test_decimals_are_numbers_and_other_types_are_refused_by_name(schema: SnowflakeSchema) -> None:
    sql = "SELECT CAST(1.25 AS NUMBER(10,2)) AS price"
    assert schema.reader(sql, dialect="snowflake").read(chunk_rows=1).read_all().to_pylist() == [
        {"price": 1.25}
    ]
    schema.run("CREATE TABLE raw (id TEXT, payload BINARY)")
    with pytest.raises(SchemaError, match="'payload' has a type"):
        schema.reader("SELECT * FROM raw").schema()


def test_the_session_is_tagged_and_bounded(events: SnowflakeSchema) -> None:
    warehouse = {"name": "small_wh", "resume": True, "size": "small"}
    reader = events.reader(
        "SELECT * FROM events",
        warehouse=warehouse,
        role="trainer",
        application_name="lodestar train uplift",
        statement_timeout=17,
    )
    reader.read(chunk_rows=10).read_all()
    logins = [one for one in events.server.said() if "login" in one]
    assert {one["parameters"]["QUERY_TAG"] for one in logins} == {"lodestar train uplift"}
    assert {int(one["parameters"]["STATEMENT_TIMEOUT_IN_SECONDS"]) for one in logins} == {17}
    assert {(one["warehouse"].upper(), one["roleName"].upper()) for one in logins} == {
        ("SMALL_WH", "TRAINER")
    }
    # Only what runs needs a warehouse: one for the rows, none for the columns.
    assert [sql for sql in events.server.statements() if sql.startswith("ALTER")] == [
        'ALTER WAREHOUSE "SMALL_WH" SET WAREHOUSE_SIZE = SMALL',
        'ALTER WAREHOUSE "SMALL_WH" RESUME IF SUSPENDED',
    ]


def test_keys_and_tokens_log_in_too(events: SnowflakeSchema, tmp_path: Path) -> None:
    server = events.server
    (tmp_path / "key.p8").write_text(private_pem(server.key, "canary-passphrase-55aa"))
    ways: list[dict[str, Any]] = [
        {"oauth_token": EnvText(server.oauth_token)},
        {"private_key": EnvText(private_pem(server.key))},
        {
            "private_key_file": str(tmp_path / "key.p8"),
            "private_key_passphrase": EnvText("canary-passphrase-55aa"),
        },
    ]
    for way in ways:
        read = events.reader("SELECT * FROM events", password=None, **way).schema()
        assert read.names == ["user_id", "day", "Order"]


def test_a_refused_login_says_why_and_shows_no_secret(
    events: SnowflakeSchema, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = events.server
    (tmp_path / "sealed.p8").write_text(private_pem(server.key, "canary-passphrase-55aa"))
    strange = private_pem(new_key())
    cases: list[tuple[dict[str, Any], str]] = [
        ({"password": EnvText("canary-wrong-55aa")}, "Incorrect username or password"),
        ({"oauth_token": EnvText("canary-wrong-55aa")}, "Invalid OAuth access token"),
        ({"oauth_token": EnvText(server.expired_token)}, "fetch a new token"),
        ({"private_key": EnvText(strange)}, "JWT token is invalid"),
        (
            {"private_key": EnvText("canary-no-key-55aa")},
            "private key for Snowflake cannot be read",
        ),
        ({"private_key_file": str(tmp_path / "sealed.p8")}, "needs private_key_passphrase"),
    ]
    for way, words in cases:
        with pytest.raises(ExternalError) as caught:
            events.reader("SELECT * FROM events", **{"password": None, **way}).schema()
        assert words in str(caught.value)
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None
    told = caplog.text
    assert "canary" not in told
    assert strange.splitlines()[1] not in told


def test_a_key_file_that_is_not_there_is_named(events: SnowflakeSchema) -> None:
    with pytest.raises(UsageError, match=r"private_key_file .*none\.p8: No such file"):
        events.reader("SELECT 1 AS a", password=None, private_key_file="none.p8").schema()


def test_throttling_is_waited_for_and_not_for_ever(events: SnowflakeSchema) -> None:
    events.server.faults(throttle=1, throttle_login=1)
    assert events.reader("SELECT user_id FROM events").schema().names == ["user_id"]
    events.server.faults(throttle=1_000)
    with pytest.raises(ExternalError, match="429"):
        events.reader("SELECT user_id FROM events", attempts=2).schema()
    events.server.faults(throttle_login=1_000)
    with pytest.raises(ExternalError, match="cannot connect to Snowflake"):
        events.reader("SELECT user_id FROM events", attempts=2).schema()


def test_a_statement_whose_answer_is_late_is_sent_again_and_runs_once(
    schema: SnowflakeSchema,
) -> None:
    schema.run("CREATE TABLE late (row_number NUMBER(38,0))")
    schema.server.faults(hold="INSERT INTO late")
    with ThreadPoolExecutor(1) as pool, opened(schema.config(network_timeout=1), Path()) as session:
        inserting = pool.submit(session.rows, "INSERT INTO late VALUES (1)")
        while not any("again" in one for one in schema.server.said()):
            assert not inserting.done()
            time.sleep(0.05)
        schema.server.faults()
        assert inserting.result() == [(1,)]
    assert schema.run("SELECT COUNT(*) FROM late") == [(1,)]


def test_a_server_that_is_not_there_is_an_error_of_the_outside(schema: SnowflakeSchema) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ExternalError, match="cannot connect to Snowflake"):
        schema.reader("SELECT 1 AS a", endpoint_url=address, attempts=2).schema()


def test_a_chunk_that_is_gone_ends_the_read(schema: SnowflakeSchema) -> None:
    schema.put(pa.table({"row": range(70_000)}), "many")
    reader = schema.reader("SELECT * FROM many")
    schema.server.faults(lost_chunk=2)
    with pytest.raises(ExternalError, match="connection to Snowflake was lost"):
        reader.read(chunk_rows=1_000).read_all()
    schema.server.faults(forgotten_chunk=2)
    with pytest.raises(ExternalError, match="sent 50,000 of 70,000 rows"):
        reader.read(chunk_rows=1_000).read_all()


def test_the_config_chooses_by_name_and_by_scheme(events: SnowflakeSchema) -> None:
    data = Data(adapter="snowflake", root="data", snapshots="data", snowflake=events.config())
    query = parse_query("SELECT user_id FROM events", "postgres", where="x.sql")
    by_name = adapter(SQL_READERS, "snowflake", what="data.adapter")(data, Path(), query, {})
    uri = f"snowflake://shop.{events.name}.events"
    by_scheme = adapter(URI_READERS, "snowflake", what="the URI scheme")(data, Path(), uri)
    assert by_name.schema().names == ["user_id"]
    assert by_scheme.read(chunk_rows=2).read_all().column("Order").to_pylist() == [1, 2, 3]
    assert isinstance(
        adapter(WRITERS, "snowflake", what="the URI scheme")(data, Path()), SnowflakeWriter
    )
    empty = data.model_copy(update={"snowflake": None})
    with pytest.raises(UsageError, match="not which account"):
        adapter(URI_READERS, "snowflake", what="the URI scheme")(empty, Path(), uri)


def test_a_missing_driver_names_its_extra(
    events: SnowflakeSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "snowflake.connector", None)
    with pytest.raises(ExternalError, match=r"lodestar-ml\[snowflake\]"):
        events.reader("SELECT 1 AS a").schema()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"password": "canary-in-the-file"}, "must come from an environment variable"),
        ({"password": None}, "needs one of password"),
        ({"oauth_token": EnvText("x")}, "needs one of password"),
        ({"private_key_passphrase": EnvText("x")}, "goes with private_key"),
        ({"endpoint_url": "http://user:canary@host"}, "must hold no user"),
        ({"warehouse": {"name": "w", "size": "huge"}}, "xsmall"),
    ],
)
def test_a_section_that_cannot_be_is_refused(
    schema: SnowflakeSchema, change: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        schema.config(**change)
