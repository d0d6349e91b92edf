"""A query divided among sessions: exactly the rows of one moment, or one session and the reason why."""

import pickle
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.databases import Database, fresh_database
from tests.parted import place_of_project

from lodestar.errors import DataError, ExternalError, UsageError
from lodestar.interface.parts import Divided, Division
from lodestar.settings.loading import ConfigPlace

SIZE = Division(chunk_rows=64, part_rows=700, keys=("customer", "id"))


@pytest.fixture(scope="module")
def filled(postgres_uri: str) -> Iterator[Database]:
    """Sales in some eighty blocks, and customers; nothing in it is changed."""
    with fresh_database(postgres_uri) as database:
        database.run(
            "CREATE TABLE sales (id bigint, customer int, at timestamptz, shop text, wide text)"
        )
        database.run(
            "INSERT INTO sales SELECT n, CASE WHEN n % 11 = 0 THEN NULL ELSE n * 7919 % 100 END, "
            "'2025-01-01+00'::timestamptz + n * interval '1 hour', chr(97 + n % 5), repeat('w', 150) "
            "FROM generate_series(1, 3000) AS n"
        )
        database.run("CREATE INDEX ON sales (customer)")
        database.run("CREATE INDEX ON sales (at DESC NULLS LAST)")
        database.run('CREATE TABLE "Odd Name" AS SELECT id AS "Id", customer FROM sales')
        database.run("CREATE TABLE customers (customer int PRIMARY KEY, age int)")
        database.run("INSERT INTO customers SELECT n, n % 60 FROM generate_series(0, 90) AS n")
        database.run("CREATE TABLE parted (id bigint, shop text) PARTITION BY LIST (shop)")
        for shop in "abcde":
            database.run(f"CREATE TABLE parted_{shop} PARTITION OF parted FOR VALUES IN ('{shop}')")
        database.run("INSERT INTO parted SELECT id, shop FROM sales")
        database.run("CREATE VIEW today AS SELECT id, customer FROM sales WHERE at < now()")
        database.run("CREATE VIEW thousand AS SELECT id, customer FROM sales LIMIT 1000")
        database.run(
            "CREATE FUNCTION guess(int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN $1; END'"
        )
        database.run("ANALYZE")
        yield database


@contextmanager
def divided(
    database: Database,
    sql: str,
    division: Division = SIZE,
    params: Mapping[str, str] | None = None,
) -> Iterator[Divided]:
    with database.reader(sql, params or {}).parts(division) as found:
        yield found


def rows_of(found: Divided) -> list[list[dict[str, Any]]]:
    assert found.parts is not None, found.why
    return [pa.Table.from_batches(part.read()).to_pylist() for part in found.parts]


def whole(
    database: Database, sql: str, params: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (
        database.reader(sql, params or {}).read(chunk_rows=1_000).read_all().to_pylist()
    )
    return rows


def in_order(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(str(row) for row in rows)


PLAIN = [
    "SELECT * FROM sales",
    "SELECT s.id, s.shop FROM sales AS s WHERE s.at >= CAST(:since AS timestamptz) OR s.shop = 'a'",
    'SELECT "Id", "X".customer FROM "Odd Name" AS "X"',
    'SELECT "Id" FROM "Odd Name"',
    "SELECT sales.id, c.age FROM sales LEFT JOIN customers AS c ON c.customer = sales.customer",
    "SELECT s.id, c.age FROM sales s JOIN customers c USING (customer) WHERE c.age > 5",
    "SELECT s.id, c.customer AS other FROM sales s, customers c WHERE c.customer < 3",
    "WITH old AS (SELECT customer FROM customers WHERE age > 30) "
    "SELECT id, customer FROM sales WHERE customer IN (SELECT customer FROM old)",
    "SELECT id, unnest(ARRAY[1, 2]) AS piece FROM sales",
    "SELECT id, (SELECT c.age FROM customers c WHERE c.customer = s.customer) AS age FROM sales s",
    "SELECT * FROM parted",
]
DERIVED = [
    "SELECT customer, count(*) AS n, sum(id) AS total FROM sales GROUP BY customer",
    "SELECT id, customer FROM sales UNION ALL SELECT customer AS id, customer FROM customers",
    "SELECT s.id, c.customer FROM sales s RIGHT JOIN customers c ON c.customer = s.customer",
    "SELECT x.customer, x.id FROM (SELECT customer, id FROM sales) AS x",
    "WITH sales AS (SELECT customer FROM customers) SELECT customer FROM sales",
    "SELECT id, customer FROM sales ORDER BY customer, id",
    "SELECT id, customer AS buyer FROM sales ORDER BY buyer DESC, id",
    "SELECT id, at FROM sales ORDER BY at DESC NULLS LAST, id",
    "SELECT id, customer FROM sales ORDER BY customer NULLS FIRST, id",
    "SELECT id, shop FROM sales ORDER BY 2 DESC, 1",
    "SELECT id, id % 3 = 0 AS third FROM sales ORDER BY third, id",
]


@pytest.mark.parametrize("sql", PLAIN)
def test_the_blocks_of_a_table_divide_what_is_selected_from_it(filled: Database, sql: str) -> None:
    params = {"since": "2025-02-01"} if ":since" in sql else {}
    with divided(filled, sql, SIZE, params) as found:
        parts = rows_of(found)
        assert len(parts) > 1
        assert all(parts)
        together = [row for part in parts for row in part]
    assert in_order(together) == in_order(whole(filled, sql, params))


@pytest.mark.parametrize("sql", DERIVED)
def test_the_values_of_a_column_divide_any_other_query(filled: Database, sql: str) -> None:
    # Some have no index to go by: what the server would say of that is another test's.
    few = replace(SIZE, part_rows=40 if "GROUP" in sql or "WITH" in sql else 1_000)
    with divided(filled, sql, few) as found:
        parts = rows_of(found)
        assert len(parts) > 1
        together = [row for part in parts for row in part]
    expected = whole(filled, sql)
    if "ORDER BY" in sql:
        assert together == expected
    else:
        assert in_order(together) == in_order(expected)


def test_rows_of_one_value_stay_together_and_those_without_any_are_a_part(filled: Database) -> None:
    sql = "SELECT customer, id FROM sales"
    with divided(filled, sql, replace(SIZE, by=("nothing", "customer"), part_rows=1_000)) as found:
        parts = rows_of(found)
    seen = [{row["customer"] for row in part} for part in parts]
    assert seen[-1] == {None}
    values = [value for one in seen for value in one]
    assert len(values) == len(set(values))


UNSURE = {
    "SELECT id, random() AS r FROM sales": r"calls random\(\)",
    "SELECT id FROM sales WHERE at < now()": r"looks at the clock or the session \(CURRENT_TIMESTAMP\)",
    "SELECT id FROM sales WHERE at::date < current_date": r"\(CURRENT_DATE\)",
    "SELECT * FROM today": r"\(now\(\)\)",
    "SELECT * FROM thousand": "LIMIT or OFFSET",
    "SELECT id FROM sales ORDER BY id LIMIT 500": "LIMIT or OFFSET",
    "SELECT id, row_number() OVER (ORDER BY shop) AS n FROM sales": "a window function",
    "SELECT id FROM sales TABLESAMPLE SYSTEM (50)": "TABLESAMPLE",
    "SELECT id, guess(customer) AS g FROM sales": r"calls guess\(\), which is not declared immut",
    "SELECT id FROM sales ORDER BY lower(shop), id": "ordered by LOWER",
    "SELECT count(*) AS n FROM sales": "no entity key",
}


@pytest.mark.parametrize("sql", UNSURE)
def test_what_may_vary_is_read_by_one_session_and_says_why(filled: Database, sql: str) -> None:
    with divided(filled, sql) as found:
        assert found.parts is None
        said = found.why
    assert re.search(UNSURE[sql], said), said


def test_ranges_that_would_cost_too_much_are_not_made(filled: Database) -> None:
    sql = "SELECT id, shop FROM sales ORDER BY id"  # there is no index by id
    with divided(filled, sql, replace(SIZE, part_rows=100)) as found:
        assert found.parts is None
        assert "× as much; an index" in found.why


def test_all_parts_are_of_one_moment_whatever_is_committed_meanwhile(postgres_uri: str) -> None:
    with fresh_database(postgres_uri) as database:
        database.run("CREATE TABLE moving (id bigint, wide text)")
        database.run(
            "INSERT INTO moving SELECT n, repeat('w', 200) FROM generate_series(1, 2000) n"
        )
        database.run("ANALYZE moving")
        expected = in_order(whole(database, "SELECT id FROM moving"))
        over = threading.Event()

        def change() -> None:
            while True:
                database.run("UPDATE moving SET id = id + 100000 WHERE id % 3 = 0")
                database.run("DELETE FROM moving WHERE id % 5 = 0")
                database.run("INSERT INTO moving SELECT n FROM generate_series(5000, 5100) n")
                database.run("VACUUM moving")
                if over.is_set():
                    return

        with divided(database, "SELECT id FROM moving") as found:
            thread = threading.Thread(target=change)
            thread.start()
            try:
                first, second = (rows_of(found) for _ in range(2))
            finally:
                over.set()
                thread.join()
        together = [row for part in first for row in part]
        assert in_order(together) == expected
        assert first == second
        assert in_order(whole(database, "SELECT id FROM moving")) != expected


def test_a_part_outlives_its_session_but_not_the_command(filled: Database) -> None:
    with divided(filled, "SELECT * FROM sales") as found:
        parts = found.parts or []
        left = parts[0].read()
        next(left)
        del left
        assert sum(batch.num_rows for batch in parts[0].read()) == parts[0].rows
    with pytest.raises(ExternalError, match="the rows of that moment are gone") as caught:
        list(parts[0].read())
    assert "the command that keeps them must run on" in str(caught.value.hint)
    assert filled.is_left("lodestar test")


def test_a_worker_with_another_database_is_refused(
    filled: Database, postgres_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of_project(tmp_path / "project", {"postgres": {"uri": "${PARTS_URI}"}})
    with divided(filled, "SELECT * FROM sales", replace(SIZE, place=place)) as found:
        sent = pickle.dumps((found.parts or [])[0])
        monkeypatch.setenv("PARTS_URI", filled.uri)
        assert sum(b.num_rows for b in pickle.loads(sent).read()) > 100
        filled.run("CREATE DATABASE elsewhere")
        try:
            monkeypatch.setenv("PARTS_URI", f"{postgres_uri.rpartition('/')[0]}/elsewhere")
            with pytest.raises(ExternalError, match="the rows of that moment are gone"):
                list(pickle.loads(sent).read())
        finally:
            filled.run("DROP DATABASE elsewhere WITH (FORCE)")
        gone = ConfigPlace(tmp_path / "nowhere", "local")
    with divided(filled, "SELECT * FROM sales", replace(SIZE, place=gone)) as found:
        sent = pickle.dumps((found.parts or [])[0])
        with pytest.raises(UsageError, match="where a part is to be read") as caught:
            list(pickle.loads(sent).read())
        assert "all nodes must see the project" in str(caught.value.hint)


def test_more_rows_than_were_counted_are_an_error(filled: Database) -> None:
    """What hides behind a function that is declared immutable and is not."""
    filled.run("CREATE SEQUENCE IF NOT EXISTS liar")
    filled.run(
        "CREATE OR REPLACE FUNCTION lies(bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS "
        "'BEGIN RETURN random() < 0.5; END'"
    )
    with divided(filled, "SELECT id FROM sales WHERE lies(id)") as found:
        with pytest.raises(DataError, match="the SQL gives other rows each time") as caught:
            rows_of(found)
        assert "depend on more than the tables" in str(caught.value.hint)
