"""PostgreSQL down, slow, frozen, killed, cut at any byte; writers killed or in each other's way."""

import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from urllib.parse import urlsplit

import psutil
import psycopg
import pyarrow as pa
import pytest
from tests.databases import Database, fresh_database
from tests.faults.injector.proxy import Proxy

from lodestar.adapters.postgres.features import PostgresFeatureTables
from lodestar.adapters.postgres.reader import PostgresConnection
from lodestar.adapters.postgres.writer import PostgresWriter
from lodestar.errors import ExternalError, LodestarError, UsageError
from lodestar.interface.features import TimeRange
from lodestar.settings.features import FeatureView

WITHIN = 15.0
ROWS = 20_000
CANARY = "canary-p4ssw0rd"
MANY = "SELECT generate_series(1, 20000) AS n, md5('text') AS t"
ENDLESS = "SELECT generate_series(1, 1000000000) AS n, repeat('x', 100) AS t"
NOW = datetime(2025, 1, 1, tzinfo=UTC)
SLEEPY = "SELECT pg_sleep(30)::text AS z"


@pytest.fixture
def database(postgres_uri: str) -> Iterator[Database]:
    with fresh_database(postgres_uri) as database:
        yield database


@pytest.fixture
def proxy(database: Database) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", database.port) as proxy:
        yield proxy


@contextmanager
def fails_in_time(words: str, within: float = WITHIN) -> Iterator[None]:
    """An error of the outside, with a cause and a hint, without SQL, in time."""
    began = time.monotonic()
    with pytest.raises(ExternalError, match=words) as caught:
        yield
    assert time.monotonic() - began < within
    assert caught.value.exit_code == 4
    assert caught.value.hint
    for secret in ("SELECT", "generate_series", "COPY"):
        assert secret not in str(caught.value)


def eventually(is_so: Callable[[], object], within: float = 10) -> None:
    deadline = time.monotonic() + within
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def sessions(database: Database) -> list[int]:
    """The process ids of our adapters' sessions in this server."""
    sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'lodestar test'"
    return [pid for (pid,) in database.run(sql)]


WRITING = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'lodestar'"


# Connecting


def test_a_server_that_is_down_is_an_error_after_a_few_attempts(
    database: Database, proxy: Proxy
) -> None:
    proxy.refuse()
    began = time.monotonic()
    with fails_in_time("cannot connect to PostgreSQL: .*refused"):
        database.reader(MANY, connection=database.through(proxy.port)).schema()
    assert time.monotonic() - began > 2  # more than one attempt


def test_a_server_that_comes_up_meanwhile_is_connected_to(database: Database, proxy: Proxy) -> None:
    proxy.refuse()
    threading.Timer(1.0, proxy.listen).start()
    reader = database.reader(MANY, connection=database.through(proxy.port))
    assert reader.schema().names == ["n", "t"]


def test_a_wrong_password_is_said_at_once_and_not_repeated(database: Database) -> None:
    wrong = database.uri.replace(database.password, CANARY)
    with fails_in_time("password authentication failed", within=2):
        database.reader(MANY, connection=database.connection(uri=wrong)).schema()


def test_a_database_that_is_not_there_is_named(database: Database) -> None:
    there = urlsplit(database.uri)
    uri = there._replace(path="/no_such_database").geturl()
    with fails_in_time('"no_such_database" does not exist', within=2):
        database.reader(MANY, connection=database.connection(uri=uri)).schema()


def test_a_host_that_has_no_address_is_named(database: Database) -> None:
    uri = f"postgresql://u:{CANARY}@host.invalid/db"
    # Where the machine's own resolver hangs, that is given up like a server that does.
    with fails_in_time("host.invalid|not answered", within=8):
        database.reader(MANY, connection=database.connection(uri=uri)).schema()


def test_a_server_that_accepts_and_says_nothing_is_given_up(
    database: Database, proxy: Proxy
) -> None:
    proxy.frozen = True
    with fails_in_time("cannot connect|not answered", within=8):
        database.reader(MANY, connection=database.through(proxy.port)).schema()
    assert proxy.held


@pytest.mark.parametrize(
    "uri",
    [
        f"postgresql://u:{CANARY}@x@127.0.0.1/db",
        f"postgresql://u:a/{CANARY}@127.0.0.1/db",
        f"postgresql://u:a?{CANARY}@127.0.0.1/db",
        f"postgresql://u:{CANARY}%zz@127.0.0.1/db",
        f"postgresql://u:x@127.0.0.1:{CANARY}/db",
        f"postgresql://u:x@127.0.0.1/db?{CANARY}=1",
        f"postgresql://u:x@127.0.0.1/db?sslmode={CANARY}",
        f"mysql://u:{CANARY}@127.0.0.1/db",
        f"password={CANARY} host=127.0.0.1",
        CANARY,
        "",
    ],
)
def test_a_uri_that_cannot_be_read_is_not_shown(database: Database, uri: str) -> None:
    with pytest.raises(UsageError, match="URI of PostgreSQL cannot be read") as caught:
        database.reader(MANY, connection=database.connection(uri=uri)).schema()
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.faults
def test_no_failure_shows_the_password(
    database: Database, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    good = database.through(proxy.port, timeout=1)
    there = urlsplit(good.uri.get_secret_value())
    hidden = there.netloc.replace(database.password, CANARY)
    wrong = database.connection(uri=there._replace(netloc=hidden).geturl())
    said = [repr(good), str(good), repr(wrong)]

    def fail(connection: PostgresConnection, sql: str) -> None:
        reader = database.reader(sql, connection=connection)
        with pytest.raises(LodestarError) as caught:
            reader.read(chunk_rows=100).read_all()
        said.extend([repr(reader), repr(reader.__dict__), repr(caught.value)])
        said.extend(traceback.format_exception(caught.value))

    for connection, sql in [(wrong, MANY), (good, "SELECT no"), (good, SLEEPY)]:
        fail(connection, sql)
    proxy.cut_after = 3_000
    fail(good, MANY)
    proxy.refuse()
    fail(wrong, MANY)
    for text in [*said, caplog.text]:
        assert CANARY not in text
        assert database.password not in text


# Reading

# A connection begins with the server's catalogue of types: 180 KB, and more with every table that any
# test has made. Cut within that, connecting is only tried again. So a cut that is to fall among the
# rows is counted from the end of a whole read; the rows below are several times as many bytes.
FROM_END = 100_000


@pytest.mark.faults
def test_a_read_that_is_cut_at_any_byte_is_never_taken_for_whole(
    database: Database, proxy: Proxy
) -> None:
    reader = database.reader(MANY, connection=database.through(proxy.port))
    whole = reader.read(chunk_rows=1_000)
    proxy.most = 0
    assert whole.read_all().num_rows == ROWS
    total = proxy.most
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 -- to repeat it
    draw = random.Random(seed)  # noqa: S311 -- repeatable on purpose
    end = [total - left for left in (1, 2, 6, 7, 13, 20, 30, 40, 60, 100)]
    # Before there are rows, connecting is tried again; that takes a while.
    rows_at = total - 5 * FROM_END
    for cut in [500, 10_000, *(draw.randrange(rows_at, total) for _ in range(15)), *end]:
        batches = reader.read(chunk_rows=1_000)
        before, proxy.cut_after = proxy.cuts, cut
        rows = 0
        with contextlib.suppress(ExternalError):
            rows = batches.read_all().num_rows
        proxy.cut_after = None
        assert proxy.cuts > before
        # What follows the rows only says that there are no more.
        assert rows == 0 or (rows == ROWS and cut > total - 100), f"{rows} rows, cut at {cut}"


def test_after_a_cut_the_next_read_is_whole(database: Database, proxy: Proxy) -> None:
    reader = database.reader(MANY, connection=database.through(proxy.port))
    assert reader.read(chunk_rows=1_000).read_all().num_rows == ROWS
    batches = reader.read(chunk_rows=1_000)
    proxy.cut_after = proxy.most - FROM_END
    with fails_in_time("lost"):
        batches.read_all()
    assert proxy.cuts == 1
    proxy.cut_after = None
    assert reader.read(chunk_rows=1_000).read_all().num_rows == ROWS


@pytest.mark.faults
def test_a_network_that_freezes_among_the_rows_is_given_up(
    database: Database, proxy: Proxy
) -> None:
    reader = database.reader(ENDLESS, connection=database.through(proxy.port, timeout=3))
    with reader.read(chunk_rows=1_000) as batches:
        batches.read_next_batch()
        proxy.frozen = True
        with fails_in_time("not answered within 8 s"):
            batches.read_all()
    assert proxy.held


def test_a_slow_network_gives_all_rows(database: Database, proxy: Proxy) -> None:
    proxy.delay = 0.005
    reader = database.reader(MANY, connection=database.through(proxy.port))
    assert reader.read(chunk_rows=1_000).read_all().num_rows == ROWS


@pytest.mark.parametrize(
    "sql",
    [SLEEPY, ENDLESS, "SELECT x, pg_sleep(0.01)::text AS z FROM generate_series(1, 9999) AS x"],
)
def test_a_query_that_takes_too_long_is_ended(database: Database, sql: str) -> None:
    reader = database.reader(sql, connection=database.connection(timeout=1))
    with fails_in_time("ended the query after 1 s", within=8), reader.read(chunk_rows=9) as batches:
        for _ in batches:
            pass
    eventually(lambda: not sessions(database))


def test_a_session_that_is_ended_among_the_rows_is_an_error(database: Database) -> None:
    with database.reader(ENDLESS).read(chunk_rows=1_000) as batches:
        batches.read_next_batch()
        (pid,) = sessions(database)
        assert database.run("SELECT pg_terminate_backend(%s)", pid) == [(True,)]
        with fails_in_time("terminating connection|closed the connection"):
            batches.read_all()


@pytest.mark.faults
def test_a_stopped_session_is_given_up(database: Database) -> None:
    with database.reader(ENDLESS, connection=database.connection(timeout=2)).read(
        chunk_rows=1_000
    ) as batches:
        batches.read_next_batch()
        (pid,) = sessions(database)
        os.kill(pid, signal.SIGSTOP)
        try:
            with fails_in_time("not answered within 7 s"):
                batches.read_all()
        finally:
            os.kill(pid, signal.SIGCONT)
    eventually(lambda: not sessions(database))


@pytest.mark.faults
def test_a_stopped_server_is_given_up(database: Database) -> None:
    with psycopg.connect(database.uri) as connection:
        postmaster = psutil.Process(connection.info.backend_pid).ppid()
    reader = database.reader(MANY)
    os.kill(postmaster, signal.SIGSTOP)
    try:
        with fails_in_time("cannot connect|not answered", within=8):
            reader.schema()
    finally:
        os.kill(postmaster, signal.SIGCONT)
    assert reader.schema().names == ["n", "t"]


def test_a_read_that_is_left_ends_the_query_in_the_server(database: Database) -> None:
    batches = database.reader(ENDLESS).read(chunk_rows=10)
    batches.read_next_batch()
    assert sessions(database)
    del batches
    eventually(lambda: not sessions(database))


def test_feature_tables_keep_the_same_promises(database: Database, proxy: Proxy) -> None:
    database.put(pa.table({"k": range(ROWS), "v": range(ROWS), "at": [NOW] * ROWS}), "versions")
    view = FeatureView.model_validate(
        {
            "namespace": "n",
            "entity_keys": {"k": "int"},
            "source": {"table": "versions", "timestamp_col": "at"},
            "features": {"v": "int"},
        }
    )
    tables = PostgresFeatureTables(database.through(proxy.port))
    versions = tables.versions(view, ["v"], TimeRange(None, NOW))
    latest = tables.latest(view, TimeRange(None, NOW), known_by=NOW)
    assert tables.versions(view, ["v"], TimeRange(None, NOW)).read_all().num_rows == ROWS
    proxy.cut_after = proxy.most - FROM_END
    for batches in (versions, latest):
        with fails_in_time("lost"):
            batches.read_all()
    assert proxy.cuts == 2
    proxy.refuse()
    with fails_in_time("cannot connect"):
        tables.versions(view, ["v"], TimeRange(None, NOW))


# Writing


def scores(rows: int, score: float) -> pa.Table:
    return pa.table({"n": range(rows), "batch_key": ["b"] * rows, "score": [score] * rows})


def write(connection: PostgresConnection, table: pa.Table, disturb: Callable[[], object]) -> None:
    """Write half of the rows, disturb, write the other half."""
    replace = {"batch_key": "b"}
    with PostgresWriter(connection).sink(
        "postgres://scores", table.schema, replace=replace
    ) as sink:
        batches = table.to_batches(max_chunksize=len(table) // 10)
        for number, batch in enumerate(batches):
            if number == len(batches) // 2:
                disturb()
            sink.write(batch)


def nothing() -> None:
    """Disturb nobody."""


def every_row_once(database: Database, rows: int) -> float:
    """The score that all rows have."""
    ((count, distinct, least, most),) = database.run(
        "SELECT count(*), count(DISTINCT n), min(score), max(score) FROM scores"
    )
    assert (count, distinct) == (rows, rows)
    assert least == most
    assert database.tables() == ["scores"]
    return float(least)


def test_a_write_whose_session_is_lost_leaves_the_old_rows(
    database: Database, proxy: Proxy
) -> None:
    write(database.connection(), scores(100, 1), nothing)
    through = database.through(proxy.port)
    with fails_in_time("lost"):
        write(through, scores(90, 2), proxy.cut)
    ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
    with fails_in_time("terminating connection|lost"):
        write(through, scores(80, 3), lambda: database.run(ends, "lodestar test"))
    eventually(lambda: not sessions(database))
    assert every_row_once(database, 100) == 1


@pytest.mark.parametrize("after", [0, 40, 100, 250, 600, 900, 1_000, 1_100, 1_200, 1_300, 1_400])
def test_a_publication_that_is_cut_is_whole_or_has_not_happened(
    database: Database, proxy: Proxy, after: int
) -> None:
    write(database.connection(), scores(100, 1), nothing)
    table = scores(100, 2)
    writer = PostgresWriter(database.through(proxy.port))
    with (
        contextlib.suppress(ExternalError),
        writer.sink("postgres://scores", table.schema, replace={"batch_key": "b"}) as sink,
    ):
        sink.write(table.to_batches()[0])
        proxy.cut_after = after
    eventually(lambda: not sessions(database))
    assert every_row_once(database, 100) in {1, 2}
    write(database.connection(), scores(100, 3), nothing)
    assert every_row_once(database, 100) == 3


@pytest.mark.faults
def test_a_write_into_a_frozen_network_is_given_up(database: Database, proxy: Proxy) -> None:
    write(database.connection(), scores(100, 1), nothing)

    def freeze() -> None:
        proxy.frozen = True

    with fails_in_time("not answered within 6 s"):
        write(database.through(proxy.port, timeout=1), scores(90, 2), freeze)
    proxy.cut()
    proxy.frozen = False
    eventually(lambda: not sessions(database))
    assert every_row_once(database, 100) == 1


def test_a_table_that_someone_holds_is_an_error_in_time(database: Database) -> None:
    write(database.connection(), scores(100, 1), nothing)
    with psycopg.connect(database.uri) as other:
        other.execute("LOCK TABLE scores IN EXCLUSIVE MODE")
        with fails_in_time("another session holds the table", within=8):
            write(database.connection(timeout=3), scores(90, 2), nothing)
    assert every_row_once(database, 100) == 1


def test_a_writer_waits_for_another_one_and_replaces_its_rows(database: Database) -> None:
    write(database.connection(), scores(100, 1), nothing)
    key = f'"{database.schema}"."scores"'
    with psycopg.connect(database.uri) as other:
        other.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('lodestar:' || %s, 0))", (key,)
        )
        other.execute("DELETE FROM scores")
        other.execute("INSERT INTO scores SELECT n, 'b', 7 FROM generate_series(1, 30) AS n")
        waiting = threading.Thread(
            target=write, args=(database.connection(), scores(90, 2), nothing)
        )
        waiting.start()
        waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        eventually(lambda: database.run(waits))
        assert every_row_once(database, 100) == 1
        other.commit()
    waiting.join(20)
    assert every_row_once(database, 90) == 2


KILLED = """
import sys
import pyarrow as pa
from pydantic import SecretStr
from lodestar.adapters.postgres.reader import PostgresConnection
from lodestar.adapters.postgres.writer import PostgresWriter

writer = PostgresWriter(PostgresConnection(SecretStr(sys.stdin.readline().strip()), 20))
rows = 50_000
score = 10.0
print("ready", flush=True)
while True:
    score += 1
    columns = {"n": range(rows), "batch_key": ["b"] * rows, "score": [score] * rows}
    table = pa.table(columns)
    with writer.sink("postgres://scores", table.schema, replace={"batch_key": "b"}) as sink:
        for batch in table.to_batches(max_chunksize=5_000):
            sink.write(batch)
"""


def test_a_writer_that_is_killed_leaves_every_row_once(database: Database) -> None:
    rows = 50_000
    write(database.connection(), scores(rows, 1), nothing)
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 -- to repeat it
    draw = random.Random(seed)  # noqa: S311 -- a moment, no secret
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin
            assert process.stdout
            process.stdin.write(database.uri + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == "ready\n"
            time.sleep(draw.uniform(0.05, 1.0))
            process.kill()
        eventually(lambda: not database.run(WRITING))
        every_row_once(database, rows)
    write(database.connection(), scores(90, 2), nothing)
    assert every_row_once(database, 90) == 2
