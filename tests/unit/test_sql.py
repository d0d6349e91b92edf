"""The recipe's SQL: one SELECT and nothing else, whose values are bound and never pasted."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lodestar.adapters.duckdb import DuckDBReader
from lodestar.errors import LodestarError, SettingsError, UsageError
from lodestar.sql import Query, parse_query


def query(sql: str, dialect: str = "postgres") -> Query:
    return parse_query(sql, dialect, where="recipes/sql/loaders/x.sql")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    table = pa.table({"a": [1, 2, 3], "name": ["one", "two", "x' OR '1'='1"]})
    pq.write_table(table, tmp_path / "t.parquet")
    return tmp_path


def rows(data: Path, sql: str, dialect: str = "postgres", **params: str) -> list[dict[str, object]]:
    found = query(sql, dialect)
    reader = DuckDBReader(data, found, found.bind(params))
    read: list[dict[str, object]] = reader.read(chunk_rows=10).read_all().to_pylist()
    return read


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 AS one",
        "SELECT last_update, deleted_at, set_size, copy, lock FROM t",
        "SELECT 'DROP TABLE t; DELETE FROM t' AS text",
        "SELECT a FROM t -- ; DROP TABLE t",
        "SELECT a FROM t /* INSERT INTO t */;",
        "WITH x AS (SELECT a FROM t) SELECT * FROM x",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT i FROM n",
        "SELECT a FROM t UNION ALL SELECT b FROM u",
        "SELECT a FROM t EXCEPT SELECT b FROM u",
        "(SELECT a FROM t)",
        "SELECT a, ROW_NUMBER() OVER (PARTITION BY b ORDER BY c) AS n FROM t",
        "SELECT a FROM t WHERE b IN (SELECT c FROM u) ORDER BY a LIMIT 5",
        "SELECT max(a), min(a) FROM t",
    ],
)
def test_whatever_only_reads_is_accepted(sql: str) -> None:
    assert query(sql).text == sql


REFUSED = [
    "DELETE FROM t",
    "UPDATE t SET a = 1",
    "INSERT INTO t VALUES (1)",
    "MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE",
    "TRUNCATE t",
    "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
    "WITH x AS (UPDATE t SET a = 1 RETURNING *) SELECT * FROM x",
    "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x",
    "SELECT * FROM (SELECT * FROM t FOR UPDATE) AS x",
    "SELECT * INTO copy_of_t FROM t",
    "SELECT * FROM t FOR UPDATE",
    "SELECT * FROM t FOR SHARE",
    "COPY t TO '/tmp/x'",
    "COPY (SELECT * FROM t) TO PROGRAM 'sh'",
    "CREATE TABLE x AS SELECT 1 AS a",
    "CREATE VIEW x AS SELECT 1 AS a",
    "CREATE FUNCTION f() RETURNS int AS 'x' LANGUAGE c",
    "DROP TABLE t",
    "ALTER TABLE t ADD COLUMN b INT",
    "GRANT SELECT ON t TO public",
    "COMMENT ON TABLE t IS 'x'",
    "SET search_path = other",
    "RESET ALL",
    "CALL f()",
    "DO $$ BEGIN DELETE FROM t; END $$",
    "EXECUTE f",
    "PREPARE f AS SELECT 1",
    "EXPLAIN ANALYZE SELECT 1",
    "VACUUM",
    "ANALYZE t",
    "LOCK TABLE t",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "LISTEN x",
    "SHOW x",
    "DESCRIBE t",
    "USE x",
    "ATTACH 'x.db' AS x",
    "DETACH x",
    "PRAGMA database_list",
    "INSTALL httpfs",
    "LOAD httpfs",
    "EXPORT DATABASE 'x'",
    "CHECKPOINT",
    "KILL 1",
    "VALUES (1)",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE t",
    "SELECT 1;; DELETE FROM t;",
    "",
    ";",
    "-- nothing",
    "SELEC a FROM t",
    "SELECT a FROM",
    "SELECT (a FROM t",
    "SELECT 'a FROM t",
]


@pytest.mark.parametrize("dialect", ["postgres", "duckdb", "bigquery", "snowflake"])
@pytest.mark.parametrize("sql", REFUSED)
def test_whatever_does_more_than_read_is_refused(sql: str, dialect: str) -> None:
    with pytest.raises(SettingsError) as caught:
        query(sql, dialect)
    assert caught.value.problems[0].where.startswith("recipes/sql/loaders/x.sql")


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("DELETE FROM t", "contains DELETE"),
        ("SELECT 1; SELECT 2", "has 2"),
        ("-- nothing", "is empty"),
        ("SELECT a\nFROM t\nWHERE (b", "x.sql:3"),
        ("SELEC a FROM t", "not valid postgres SQL"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_where(sql: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        query(sql)
    assert words in str(caught.value)


def test_every_parameter_is_found_once() -> None:
    found = query(
        "WITH x AS (SELECT a FROM t WHERE b >= :start) "
        "SELECT a, ':no' AS c, b::date AS d FROM x WHERE b < :stop AND a > :start"
    )
    assert sorted(found.parameters) == ["start", "stop"]


@pytest.mark.parametrize("mark", ["?", "%s", "$1", ":1", "@p"])
def test_a_parameter_without_a_name_is_refused(mark: str) -> None:
    with pytest.raises(SettingsError):
        query(f"SELECT a FROM t WHERE a = {mark}")  # noqa: S608 -- that is the point


@pytest.mark.parametrize("mark", ["?", "$1"])
def test_a_parameter_without_a_name_is_refused_in_duckdbs_own_dialect_too(mark: str) -> None:
    with pytest.raises(SettingsError, match="without a name"):
        query(f"SELECT a FROM t WHERE a = {mark}", "duckdb")  # noqa: S608 -- that is the point


def test_bind_wants_exactly_the_parameters_there_are() -> None:
    found = query("SELECT a FROM t WHERE b >= :start_date AND b < :end_date")
    assert found.bind({"start_date": "x", "end_date": "y"}) == {"start_date": "x", "end_date": "y"}
    with pytest.raises(UsageError, match="needs a value for :end_date"):
        found.bind({"start_date": "x"})
    with pytest.raises(UsageError, match="no parameter :ende_date") as caught:
        found.bind({"start_date": "x", "end_date": "y", "ende_date": "z"})
    assert "did you mean 'end_date'" in str(caught.value)


def test_a_misspelt_parameter_is_named_before_the_one_that_is_missing_for_it() -> None:
    found = query("SELECT a FROM t WHERE b >= :start_date AND b < :end_date")
    with pytest.raises(UsageError, match="no parameter :ende_date") as caught:
        found.bind({"start_date": "x", "ende_date": "y"})
    assert "did you mean 'end_date'" in str(caught.value)


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("SELECT * FROM t", ("t",)),
        ("SELECT * FROM shop.t AS x JOIN u ON x.a = u.a", ("shop.t", "u")),
        ("WITH c AS (SELECT * FROM t) SELECT * FROM c JOIN u ON c.a = u.a", ("t", "u")),
        ("SELECT a FROM t UNION SELECT a FROM u", ("t", "u")),
        ("SELECT a FROM t WHERE b IN (SELECT b FROM u)", ("t", "u")),
        ("WITH c AS (SELECT 1 AS a) SELECT * FROM c JOIN shop.c AS d ON c.a = d.a", ("shop.c",)),
        ("SELECT 1 AS a", ()),
    ],
)
def test_tables_are_those_of_the_data_and_not_of_the_query(
    sql: str, tables: tuple[str, ...]
) -> None:
    assert set(query(sql).tables) == set(tables)


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SELECT a, b AS c, t.d, e::int AS f FROM t", ("a", "c", "d", "f")),
        ("SELECT a AS x FROM t UNION ALL SELECT b AS y FROM u", ("x",)),
        ("WITH c AS (SELECT a, b FROM t) SELECT b, a FROM c", ("b", "a")),
        ("SELECT a, (SELECT max(b) FROM u) AS m FROM t", ("a", "m")),
        ("SELECT * FROM t", None),
        ("SELECT t.*, a AS b FROM t", None),
        ("WITH c AS (SELECT a FROM t) SELECT * FROM c", None),
        ("SELECT count(*) AS n FROM t", ("n",)),
    ],
)
def test_columns_are_the_top_selects_names_where_no_star_hides_them(
    sql: str, columns: tuple[str, ...] | None
) -> None:
    assert query(sql).columns() == columns


@pytest.mark.parametrize(
    "sql", ["SELECT a, a FROM t", "SELECT a, b AS a FROM t", "SELECT t.a, u.a FROM t, u"]
)
def test_a_column_selected_twice_is_refused(sql: str) -> None:
    with pytest.raises(SettingsError, match="selects the column 'a' twice"):
        query(sql)


def test_a_query_is_said_in_the_other_engines_words() -> None:
    found = query("SELECT a::text AS b, now() - INTERVAL '1 day' AS c FROM t WHERE a = :a")
    assert "CAST(a AS TEXT)" in found.to("duckdb")
    assert "$a" in found.to("duckdb")
    assert "@a" in found.to("bigquery")
    assert ":a" in found.to("snowflake")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT DISTINCT ON (name) a, name FROM t ORDER BY name, a",
        "SELECT a, to_char(DATE '2025-01-31', 'YYYY') AS y FROM t",
        "SELECT a, name ILIKE 'ONE' AS one FROM t",
        "SELECT a, COALESCE(NULLIF(name, 'one'), 'none') AS n, a::double precision / 2 AS h FROM t",
        "SELECT a, date_trunc('month', TIMESTAMP '2025-01-31 10:00:00') AS m FROM t",
    ],
)
def test_postgres_sql_runs_in_duckdb(data: Path, sql: str) -> None:
    assert len(rows(data, sql)) == 3


def test_a_value_is_bound(data: Path) -> None:
    sql = "SELECT a FROM t WHERE name = :name"
    assert rows(data, sql, name="two") == [{"a": 2}]
    assert rows(data, sql, name="x' OR '1'='1") == [{"a": 3}]
    assert rows(data, "SELECT a FROM t WHERE a >= CAST(:low AS INT)", low="2") == [
        {"a": 2},
        {"a": 3},
    ]


INJECTIONS = [
    "' OR 1=1 --",
    "'; DROP TABLE t; --",
    "x'; COPY t TO '/tmp/lodestar-injected.csv'; --",
    "$$ OR 1=1 $$",
    ":name",
    "\\' OR 1=1 --",
    "' UNION SELECT 1 --",
    "\x00' OR 1=1",
    "\u2018 OR \u20191\u2019=\u20191",
]


@pytest.mark.parametrize("value", INJECTIONS)
def test_a_value_with_sql_in_it_is_only_a_value(data: Path, value: str) -> None:
    before = (data / "t.parquet").read_bytes()
    assert rows(data, "SELECT a FROM t WHERE name = :name", name=value) == []
    assert len(rows(data, "SELECT a FROM t WHERE name <> :name", name=value)) == 3
    assert (data / "t.parquet").read_bytes() == before
    assert sorted(path.name for path in data.iterdir()) == ["t.parquet"]


@pytest.mark.parametrize("value", INJECTIONS)
def test_a_value_with_sql_where_a_number_is_needed_is_an_error(data: Path, value: str) -> None:
    with pytest.raises(LodestarError):
        rows(data, "SELECT a FROM t WHERE a = CAST(:a AS INT)", a=value)


def test_the_columns_are_known_before_any_value_is_given(data: Path) -> None:
    found = query("SELECT a, name FROM t WHERE a >= CAST(:low AS INT) LIMIT 2")
    assert DuckDBReader(data, found, {"low": ""}).schema().names == ["a", "name"]


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT nope FROM t", "nope"),
        ("SELECT no_such_function(a) AS x FROM t", "no_such_function"),
        ("SELECT CAST(name AS INT) AS x FROM t", "Could not convert"),
        ("SELECT a + name AS x FROM t", "."),
    ],
)
def test_sql_that_does_not_fit_the_data_is_an_error_of_the_data(
    data: Path, sql: str, words: str
) -> None:
    with pytest.raises(LodestarError, match=words) as caught:
        rows(data, sql)
    assert caught.value.exit_code == 3
