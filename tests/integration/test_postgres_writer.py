"""Tables as destinations: rows of one batch replace each other, never double, never mix."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pytest
from pydantic import SecretStr
from tests.databases import Database, fresh_database
from tests.table_writers import FEBRUARY, JANUARY, scores

from lodestar.adapters.postgres.writer import PostgresWriter
from lodestar.adapters.registry import URI_READERS, adapter
from lodestar.errors import DataError, ExternalError, SchemaError, UsageError
from lodestar.settings.config import Data, Postgres


@pytest.fixture
def database(postgres_uri: str) -> Iterator[Database]:
    with fresh_database(postgres_uri) as database:
        yield database


def write(
    database: Database,
    table: pa.Table,
    replace: dict[str, str] | None = None,
    *,
    name: str = "postgres://scores",
) -> None:
    writer = PostgresWriter(database.connection())
    with writer.sink(name, table.schema, replace=replace) as sink:
        for batch in table.to_batches(max_chunksize=2):
            sink.write(batch)


def stored(database: Database) -> list[tuple[str, float]]:
    return database.run("SELECT batch_key, score FROM scores ORDER BY batch_key, score")


def test_an_empty_batch_among_others_is_nothing(database: Database) -> None:
    table = scores(JANUARY, [1])
    writer = PostgresWriter(database.connection())
    with writer.sink("postgres://scores", table.schema, replace=JANUARY) as sink:
        for batch in (table.slice(0, 0).combine_chunks(), table):
            sink.write(pa.RecordBatch.from_struct_array(batch.to_struct_array().combine_chunks()))
    assert stored(database) == [("january", 1)]


def test_several_values_tell_the_rows_to_replace(database: Database) -> None:
    def table(window: str, part: str, score: float) -> pa.Table:
        return pa.table({"w'1": [window], 'p"2.x': [part], "score": [score]})

    for window, part, score in [("a", "x", 1), ("a", "y", 2), ("b", "x", 3), ("a", "x", 4)]:
        write(database, table(window, part, score), {"w'1": window, 'p"2.x': part})
    assert database.run("SELECT score FROM scores ORDER BY score") == [(2.0,), (3.0,), (4.0,)]


def test_other_columns_are_refused_with_every_difference(database: Database) -> None:
    write(database, scores(JANUARY, [1]))
    other = pa.table({"score": ["high"], "batch_key": ["january"], "user": ["u1"]})
    with pytest.raises(SchemaError) as caught:
        write(database, other)
    said = str(caught.value)
    assert "- user: missing" in said
    assert "+ user_id: not written" in said
    assert "~ score: double precision there, text here" in said
    assert stored(database) == [("january", 1)]


def test_a_table_that_someone_made_keeps_its_index_and_rights(database: Database) -> None:
    database.run(
        "CREATE TABLE scores (user_id varchar(40), batch_key text NOT NULL, score float8, "
        "PRIMARY KEY (batch_key, user_id))"
    )
    for _ in range(2):
        write(database, scores(JANUARY, [1, 2]), JANUARY)
    assert stored(database) == [("january", 1), ("january", 2)]
    assert database.run("SELECT count(*) FROM pg_indexes WHERE tablename = 'scores'") != [(0,)]
    same = scores(FEBRUARY, [1, 2]).set_column(0, "user_id", pa.array(["u1", "u1"]))
    with pytest.raises(DataError, match="scores_pkey"):
        write(database, same, FEBRUARY)
    assert stored(database) == [("january", 1), ("january", 2)]


def test_what_is_no_table_is_not_written_to(database: Database) -> None:
    database.run("CREATE VIEW scores AS SELECT 'u'::text AS user_id")
    with pytest.raises(SchemaError, match="no table"):
        write(database, scores(JANUARY, [1]))


@pytest.mark.parametrize(
    "name",
    [
        "postgres://",
        "postgres://a.b.c",
        "postgres://user:secret@host/db",
        "postgres://scores; DROP TABLE scores",
        'postgres://"scores"',
        "postgres://" + "x" * 64,
        "scores",
    ],
)
def test_other_destinations_are_refused_and_not_repeated(database: Database, name: str) -> None:
    with pytest.raises(UsageError, match=r"postgres://schema\.table") as caught:
        write(database, scores(JANUARY, [1]), name=name)
    assert "secret" not in str(caught.value)


def test_a_schema_that_is_not_there_is_named(database: Database) -> None:
    with pytest.raises(ExternalError, match="no_such_schema"):
        write(database, scores(JANUARY, [1]), name="postgres://no_such_schema.scores")


def test_names_with_and_without_their_schema_are_one_table(database: Database) -> None:
    write(database, scores(JANUARY, [1]), name="postgres://scores")
    write(database, scores(JANUARY, [2]), name=f"postgres://{database.schema}.scores")
    assert stored(database) == [("january", 2)]


def test_a_table_that_was_written_is_read_by_its_uri(database: Database) -> None:
    write(database, scores(JANUARY, [3, 1]))
    section = Postgres(uri=SecretStr(database.uri))
    data = Data(adapter="postgres", root="data", snapshots="data", postgres=section)
    make = adapter(URI_READERS, "postgres", what="the URI scheme")
    for uri in ("postgres://scores", f"postgres://{database.schema}.scores"):
        with make(data, Path(), uri).read(chunk_rows=1) as reader:
            table = reader.read_all()
        assert table.column_names == ["user_id", "batch_key", "score"]
        assert sorted(table.column("score").to_pylist()) == [1.0, 3.0]
    with pytest.raises(UsageError, match=r"postgres://schema\.table"):
        make(data, Path(), "postgres://user:secret@host/db")
    with pytest.raises(UsageError, match="not which server"):
        make(data.model_copy(update={"postgres": None}), Path(), "postgres://scores")


@pytest.mark.parametrize("name", ["", "a\0b", "é" * 32])
def test_a_column_that_no_table_can_have_is_refused(database: Database, name: str) -> None:
    with pytest.raises(SchemaError, match="no room for a column"):
        write(database, pa.table({name: [1]}))


def test_a_nul_in_a_text_names_column_and_row(database: Database) -> None:
    write(database, scores(JANUARY, [1]))
    bad = pa.table({"user_id": ["a", "b", "c\0d"], "batch_key": ["x"] * 3, "score": [1.0] * 3})
    with pytest.raises(DataError, match="column 'user_id' has a text with a NUL in row 2"):
        write(database, bad)
    assert stored(database) == [("january", 1)]


def test_a_text_that_is_half_a_sign_names_its_column(database: Database) -> None:
    raw = pa.array([b"ok", "\udc80".encode("utf-8", "surrogatepass")], pa.binary())
    text = pa.StringArray.from_buffers(2, raw.buffers()[1], raw.buffers()[2])
    with pytest.raises(DataError, match="column 'user_id' has a text that is not UTF-8"):
        write(database, pa.table({"user_id": text}))
    assert database.tables() == []


def test_times_finer_than_a_microsecond_are_kept_whole_or_refused(database: Database) -> None:
    moment = datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    fine = pa.array([-1_000, None], pa.timestamp("ns", "UTC"))
    write(database, pa.table({"at": fine}))
    assert database.run("SELECT at FROM scores") == [(moment,), (None,)]
    with pytest.raises(DataError, match="does not fit"):
        write(database, pa.table({"at": pa.array([-999], pa.timestamp("ns", "UTC"))}))


def test_narrow_types_are_written_as_the_wide_ones_and_odd_numbers_as_they_are(
    database: Database,
) -> None:
    numbers = np.array([0.1, np.nan, -np.inf], np.float32)
    table = pa.table({"a": numbers, "b": np.array([1, 2, 3], np.int8), "c": pa.nulls(3)})
    write(database, table)
    read = database.reader("SELECT * FROM scores").read(chunk_rows=10).read_all()
    assert read.schema.types == [pa.float64(), pa.int64(), pa.float64()]
    np.testing.assert_array_equal(read.column("a").to_numpy(), numbers.astype(np.float64))


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_of_writers_of_one_batch_the_last_to_end_wins_whole(
    database: Database, isolation: str
) -> None:
    started = threading.Barrier(4, timeout=60)
    escaped = isolation.replace(" ", r"\ ")
    option = quote(f" -cdefault_transaction_isolation={escaped}")
    writer = PostgresWriter(database.connection(uri=database.uri + option))

    def work(worker: int) -> None:
        started.wait()
        for turn in range(5):
            table = scores(JANUARY, [worker * 100 + turn] * 6)
            with writer.sink("postgres://scores", table.schema, replace=JANUARY) as sink:
                sink.write(table.to_batches()[0])

    write(database, scores(JANUARY, [0]), JANUARY)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    found = stored(database)
    assert len(found) == 6
    assert len(set(found)) == 1
    assert database.tables() == ["scores"]


def test_writers_that_both_make_the_table_leave_one_with_the_rows_of_both(
    database: Database,
) -> None:
    writer = PostgresWriter(database.connection())
    one, other = scores(JANUARY, [1]), scores(FEBRUARY, [2])
    with (
        writer.sink("postgres://scores", one.schema, replace=JANUARY) as first,
        writer.sink("postgres://scores", other.schema, replace=FEBRUARY) as second,
    ):
        first.write(one.to_batches()[0])
        second.write(other.to_batches()[0])
    assert stored(database) == [("february", 2), ("january", 1)]
    assert database.tables() == ["scores"]
