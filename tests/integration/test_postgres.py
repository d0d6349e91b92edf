# ruff: noqa: S608 -- hostile SQL text is what some of these tests are about
"""What the PostgreSQL reader adds to the ports' contract: parameters, types, names, a safe session."""

import importlib.util
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.databases import Database, fresh_database

from lodestar.adapters.postgres.reader import PostgresReader
from lodestar.errors import DataError, ExternalError, LodestarError, SchemaError, UsageError

HOSTILE = [
    "x'; DROP TABLE sales; --",
    "'",
    '"',
    "\\",
    "\\'; DROP TABLE sales; --",
    "$1",
    "$$",
    ":other",
    "%s %(x)s",
    "{x}",
    "서울 🚀\n\t",
    "",
    "x" * 100_000,
]


@pytest.fixture
def database(postgres_uri: str) -> Iterator[Database]:
    with fresh_database(postgres_uri) as database:
        database.run("CREATE TABLE sales (id bigint, shop text, at timestamptz, note char(3))")
        database.run(
            "INSERT INTO sales VALUES (1, 'a', '2025-01-01+00', 'abc'), (2, 'b', '2025-02-01+00', 'x')"
        )
        yield database


def rows(reader: PostgresReader) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = reader.read(chunk_rows=100).read_all().to_pylist()
    return found


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value[:20]))
def test_a_parameters_value_is_a_value_whatever_it_looks_like(
    database: Database, value: str
) -> None:
    sql = "SELECT :x AS said, ':x' AS kept, count(*) AS n FROM sales WHERE shop = :x"
    assert rows(database.reader(sql, {"x": value})) == [{"said": value, "kept": ":x", "n": 0}]
    assert database.run("SELECT count(*) FROM sales") == [(2,)]


@pytest.mark.parametrize(
    ("condition", "value"),
    [
        ("id = :x", "2"),
        ("id = CAST(:x AS bigint)", "2"),
        ("at > :x", "2025-01-15"),
        ("at > CAST(:x AS timestamp)", "2025-01-15"),
        ("at - interval '1 day' >= :x", "2025-01-31 00:00:00+00"),
        ("shop LIKE :x", "b%"),
        ("shop = ANY(CAST(:x AS text[]))", "{b,c}"),
        ("note = :x", "x"),
        ("id + 0.5 > :x AND id > :y", "2.25"),
        ("id IN (SELECT max(id) FROM sales WHERE shop >= :x)", "b"),
    ],
)
def test_a_parameter_has_the_type_of_its_place(
    database: Database, condition: str, value: str
) -> None:
    sql = f"SELECT id FROM sales WHERE {condition}"
    given = {"x": value} | ({"y": "1"} if ":y" in condition else {})
    assert rows(database.reader(sql, given)) == [{"id": 2}]


def test_a_text_of_fixed_length_is_compared_in_its_whole_length(database: Database) -> None:
    assert rows(database.reader("SELECT id FROM sales WHERE note = :x", {"x": "abc"})) == [
        {"id": 1}
    ]


def test_one_parameter_may_have_several_types(database: Database) -> None:
    sql = "SELECT id, :x AS said FROM sales WHERE id = :x ORDER BY id LIMIT :x"
    assert rows(database.reader(sql, {"x": "1"})) == [{"id": 1, "said": "1"}]


def test_a_value_that_does_not_fit_its_type_is_an_error_of_the_data(database: Database) -> None:
    reader = database.reader("SELECT id FROM sales WHERE at > :x", {"x": "next week"})
    with pytest.raises(DataError, match="invalid input syntax for type timestamp"):
        rows(reader)


def test_a_parameter_without_a_type_asks_for_a_cast(database: Database) -> None:
    with pytest.raises(DataError, match=r"CAST\(:name AS"):
        database.reader("SELECT concat(:x) AS y FROM sales", {"x": "1"}).schema()


def test_columns_need_no_values(database: Database) -> None:
    sql = (
        "SELECT id, CAST(:d AS date) AS day FROM sales WHERE at > CAST(:d AS timestamp) AND id = :i"
    )
    schema = database.reader(sql, {"d": "", "i": ""}).schema()
    assert schema == pa.schema([("id", pa.int64()), ("day", pa.date32())])


@pytest.mark.parametrize("value", ["a\0b", "\ud800", "x\udfff"])
def test_a_value_that_no_text_can_hold_is_refused(database: Database, value: str) -> None:
    with pytest.raises(UsageError, match="value of x"):
        database.reader("SELECT :x AS said", {"x": value})


def test_the_schema_is_known_without_running_the_query(database: Database) -> None:
    reader = database.reader(
        "SELECT id, pg_sleep(60)::text AS z, 1 / (id - id) AS y FROM sales",
        connection=database.connection(timeout=15),
    )
    assert reader.schema().names == ["id", "z", "y"]


@pytest.mark.parametrize(
    ("expression", "kind", "value"),
    [
        ("1::smallint", pa.int64(), 1),
        ("1::int", pa.int64(), 1),
        ("9007199254740993::bigint", pa.int64(), 2**53 + 1),
        ("0.5::real", pa.float64(), 0.5),
        ("0.1::numeric", pa.float64(), 0.1),
        ("-12345678901234567890.123::numeric(30,3)", pa.float64(), -12345678901234567890.123),
        ("sum(id)", pa.float64(), 3.0),  # the sum of bigints is numeric
        ("'a'::varchar(3)", pa.string(), "a"),
        ("'a'::\"char\"", pa.string(), "a"),
        ("'6f9619ff-8b86-d011-b42d-00c04fc964ff'::uuid", pa.string(), None),
        ("'{\"a\": [1]}'::jsonb", pa.string(), '{"a": [1]}'),
        ("date '1969-07-20'", pa.date32(), date(1969, 7, 20)),
        ("NULL", pa.string(), None),
        ("NULL::numeric", pa.float64(), None),
        ("NULL::uuid", pa.string(), None),
    ],
)
def test_a_type_becomes_one_that_models_take(
    database: Database, expression: str, kind: pa.DataType, value: object
) -> None:
    read = database.reader(f"SELECT {expression} AS v FROM sales").read(chunk_rows=9).read_all()
    assert read.schema.field("v").type == kind
    if "uuid" in expression and "NULL" not in expression:
        value = "6f9619ff-8b86-d011-b42d-00c04fc964ff"
    assert read.column("v")[0].as_py() == value


def test_enums_are_text_and_domains_what_they_are_made_of(database: Database) -> None:
    database.run("CREATE TYPE mood AS ENUM ('good', 'bad')")
    database.run("CREATE DOMAIN years AS int CHECK (value > 0)")
    reader = database.reader(
        "SELECT 'bad'::mood AS m, 7::years AS y WHERE 'bad'::mood = :m", {"m": "bad"}
    )
    assert rows(reader) == [{"m": "bad", "y": 7}]


def test_uuids_keep_their_nulls_through_every_slice(database: Database) -> None:
    sql = (
        "SELECT x, CASE WHEN x % 3 > 0 THEN md5(x::text)::uuid END AS u, "
        "CASE WHEN x % 3 > 0 THEN md5(x::text)::uuid::text END AS t "
        "FROM generate_series(1, 1000) AS x ORDER BY x"
    )
    for row in rows(database.reader(sql)):
        assert row["u"] == row["t"]


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("1::money", "money"),
        ("1::oid", "oid"),
        ("ARRAY[1, 2]", "list"),
        ("ROW(1, 2)", "struct"),
        ("interval '1 day'", "interval"),
        ("'x'::bytea", "binary"),
        ("time '10:00'", "time"),
        ("'127.0.0.1'::inet", "inet"),
        ("point(1, 2)", ""),
    ],
)
def test_a_type_that_no_model_takes_is_refused_by_the_columns_name(
    database: Database, expression: str, kind: str
) -> None:
    reader = database.reader(f"SELECT id, {expression} AS odd FROM sales")
    for use in (reader.schema, lambda: reader.read(chunk_rows=10)):
        with pytest.raises(SchemaError, match=f"column 'odd' has the type .*{kind}") as caught:
            use()
        assert caught.value.hint


@pytest.mark.parametrize("kind", ["timestamp", "timestamptz", "date"])
@pytest.mark.parametrize("sign", ["", "-"])
def test_an_infinite_time_is_an_error_and_no_other_time(
    database: Database, kind: str, sign: str
) -> None:
    reader = database.reader(f"SELECT '{sign}infinity'::{kind} AS t FROM sales")
    with pytest.raises(DataError, match="column 't' has an infinite time"):
        rows(reader)


def test_times_are_the_same_whatever_zone_the_server_is_in(database: Database) -> None:
    sql = (
        "SELECT at, timestamp '2025-07-01 12:00' AS plain, at::date AS day, "
        "timestamptz '1883-11-18 12:00:00.000001+00' AS old FROM sales ORDER BY id LIMIT 1"
    )
    wanted = rows(database.reader(sql))
    assert wanted[0]["at"] == datetime(2025, 1, 1, tzinfo=UTC)
    assert wanted[0]["plain"] == datetime(2025, 7, 1, 12, tzinfo=UTC)
    assert wanted[0]["old"] == datetime(1883, 11, 18, 12, 0, 0, 1, tzinfo=UTC)
    (name,) = database.run("SELECT current_database()")[0]
    database.run(f"ALTER DATABASE {name} SET timezone = 'Asia/Seoul'")
    try:
        assert database.run("SHOW timezone") == [("Asia/Seoul",)]
        assert rows(database.reader(sql)) == wanted
    finally:
        database.run(f"ALTER DATABASE {name} RESET timezone")
    there = database.connection(uri=f"{database.uri}%20-cTimeZone%3DAmerica/New_York")
    assert rows(database.reader(sql, connection=there)) == wanted


def test_the_session_says_who_it_is_and_what_it_may(database: Database) -> None:
    names = ("application_name", "TimeZone", "transaction_read_only", "statement_timeout")
    sql = "SELECT " + ", ".join(f"current_setting('{name}') AS {name}" for name in names)
    (found,) = rows(database.reader(sql, connection=database.connection(timeout=7)))
    assert list(found.values()) == ["lodestar test", "UTC", "on", "7s"]


def test_a_function_that_writes_is_refused_by_the_server(database: Database) -> None:
    database.run(
        "CREATE FUNCTION sneak() RETURNS int LANGUAGE sql VOLATILE AS "
        "$$INSERT INTO sales VALUES (3); SELECT 1$$"
    )
    for sql in (
        "SELECT sneak() AS n",
        "SELECT set_config('transaction_read_only', 'off', true) AS s, sneak() AS n",
        "SELECT set_config('default_transaction_read_only', 'off', false) AS s, sneak() AS n",
    ):
        with pytest.raises(LodestarError):
            rows(database.reader(sql))
    with pytest.raises(DataError, match="read-only transaction"):
        rows(database.reader("SELECT sneak() AS n"))
    assert database.run("SELECT count(*) FROM sales") == [(2,)]


def test_a_table_that_is_not_there_is_named_with_its_neighbours(database: Database) -> None:
    for sql in ("SELECT id FROM sale", "SELECT id FROM sale WHERE id = :x"):
        given = {"x": "1"} if ":x" in sql else {}
        with pytest.raises(DataError, match='"sale" does not exist') as caught:
            database.reader(sql, given).schema()
        assert "'sales'" in str(caught.value)
        assert "SELECT" not in str(caught.value)


@pytest.mark.parametrize("column", ["shp", "s.shp", '"Shop"'])
def test_a_column_that_is_not_there_is_named_with_its_neighbours(
    database: Database, column: str
) -> None:
    with pytest.raises(SchemaError, match="does not exist") as caught:
        database.reader(f"SELECT {column} FROM sales AS s").read(chunk_rows=10)
    assert "did you mean 'shop'" in str(caught.value)


def test_a_table_that_may_not_be_read_is_an_error_of_the_outside(database: Database) -> None:
    with pytest.raises(ExternalError, match="permission denied"):
        rows(database.reader("SELECT rolname FROM pg_authid"))


def test_a_column_that_stands_twice_behind_a_star_is_refused(database: Database) -> None:
    reader = database.reader("SELECT s.*, t.* FROM sales AS s JOIN sales AS t ON s.id = t.id")
    with pytest.raises(DataError, match="stands twice"):
        reader.read(chunk_rows=10)


def test_a_failure_at_the_last_row_is_our_error(database: Database) -> None:
    sql = "SELECT 1 / (300000 - x) AS y FROM generate_series(1, 300000) AS x"
    with pytest.raises(DataError, match="division by zero"):
        database.reader(sql).read(chunk_rows=1_000).read_all()


def test_a_table_that_changes_between_two_looks_is_an_error(database: Database) -> None:
    reader = database.reader("SELECT * FROM sales").read(chunk_rows=10)
    database.run("ALTER TABLE sales ALTER COLUMN id TYPE text")
    with pytest.raises(SchemaError, match="changed"):
        reader.read_all()


def test_the_recipes_dialect_is_translated(database: Database) -> None:
    sql = "SELECT IFNULL(shop, '-') AS `the shop` FROM sales WHERE at >= CAST(:d AS DATETIME)"
    reader = database.reader(sql, {"d": "2025-01-15"}, dialect="mysql")
    assert rows(reader) == [{"the shop": "b"}]


class NotInstalled:
    """Finds no driver."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.startswith("adbc_driver_postgresql"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_package_that_is_not_installed_names_the_extra(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("adbc_driver_postgresql", "adbc_driver_postgresql.dbapi"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [NotInstalled(), *sys.meta_path])
    with pytest.raises(ExternalError, match=r"pip install 'lodestar-ml\[postgres\]'"):
        database.reader("SELECT 1 AS a").schema()


def test_a_package_that_is_broken_shows_its_own_error(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert importlib.util.find_spec("adbc_driver_postgresql") is not None
    broken = tmp_path / "adbc_driver_postgresql"
    broken.mkdir()
    (broken / "__init__.py").write_text("import a_module_that_nobody_has\n")
    for name in ("adbc_driver_postgresql", "adbc_driver_postgresql.dbapi"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_nobody_has"):
        database.reader("SELECT 1 AS a").schema()
