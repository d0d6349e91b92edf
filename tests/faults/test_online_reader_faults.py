"""Readers on an event loop over a Redis that is gone, frozen, slow, cut off, emptied, or no Redis."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pytest
import uvloop
from pydantic import SecretStr
from tests.faults.injector.proxy import Proxy
from tests.redis_places import Certificate, Redis, one_redis, until, watched_redis
from tests.spoiled_stores import KINDS, NOON, ask, fails_in_time, keep

from lodestar.adapters.feast.redis import FeastRedisStore
from lodestar.adapters.online.threaded_reader import ThreadedReader
from lodestar.adapters.redis.provider import RedisConnection, RedisOnlineStore
from lodestar.adapters.redis.store import RedisStore
from lodestar.errors import ExternalError
from lodestar.interface.features import OnlineReader, OnlineRows, SelectedFeatures
from lodestar.serving.breaker import Breaker
from lodestar.settings.serving import OnlineReads
from lodestar.testing.online import MemoryOnlineStore, stored_rows

pytestmark = pytest.mark.faults
TIMEOUT = 0.5
# How much later than its deadline an answer may come on a busy machine.
GRACE = 0.4
SELECTION = [SelectedFeatures(KINDS, ("whole", "text"))]
SECRET = "Geheim-hunter2"  # noqa: S105 -- a test's own
T = TypeVar("T")
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop] | None] = {
    "asyncio": None,
    "uvloop": uvloop.new_event_loop,
}


@dataclass
class Place:
    """A server, the line to it, and readers of it on one event loop."""

    kind: str
    server: Redis
    line: Proxy
    password: str
    runner: asyncio.Runner

    def reader(self, timeout: float = TIMEOUT) -> OnlineReader:
        uri = SecretStr(f"redis://:{self.password}@127.0.0.1:{self.line.port}/0")
        return reader_of(self.kind, RedisConnection(uri, timeout=timeout))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)


def store_of(kind: str, connection: RedisConnection) -> RedisStore:
    if kind == "direct":
        return RedisOnlineStore(connection)
    return FeastRedisStore(connection, "shop")


def reader_of(kind: str, connection: RedisConnection) -> OnlineReader:
    return store_of(kind, connection).reader(SELECTION)


@pytest.fixture(
    params=[("direct", "asyncio"), ("direct", "uvloop"), ("feast", "uvloop")], ids="-".join
)
def way(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Which layout is read on which event loop."""
    found: tuple[str, str] = request.param
    return found


@pytest.fixture
def kind(way: tuple[str, str]) -> str:
    return way[0]


@pytest.fixture
def runner(way: tuple[str, str]) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=LOOPS[way[1]]) as found:
        yield found


@pytest.fixture
def place(kind: str, runner: asyncio.Runner, tmp_path: Path) -> Iterator[Place]:
    with one_redis(tmp_path / "redis") as server, Proxy("127.0.0.1", server.port) as line:
        keep(store_of(kind, RedisConnection(SecretStr(server.uri), timeout=5.0)), 200)
        yield Place(kind, server, line, server.password, runner)


def fails_within(seconds: float, *words: str, secret: str = SECRET) -> AbstractContextManager[None]:
    return fails_in_time(seconds + GRACE, words, secrets=(secret,))


def test_a_redis_that_is_not_there_is_said_at_once(kind: str, runner: asyncio.Runner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    uri = SecretStr(f"redis://:{SECRET}@127.0.0.1:{port}/0")
    reader = reader_of(kind, RedisConnection(uri, timeout=TIMEOUT))
    for _ in range(2):
        with fails_within(TIMEOUT, f"127.0.0.1:{port}", "cannot be reached"):
            runner.run(ask(reader, 1))


def test_a_frozen_redis_is_an_error_in_time_for_all_who_wait_and_works_again_after(
    place: Place,
) -> None:
    warm, cold = place.reader(), place.reader()
    assert place.run(ask(warm, 1)) == [1]

    async def all_at_once(reader: OnlineReader) -> list[Any]:
        reads = [ask(reader, number) for number in range(20)]
        return await asyncio.gather(*reads, return_exceptions=True)

    place.server.freeze()
    try:
        for reader in (warm, cold, warm):
            began = time.monotonic()
            found = place.run(all_at_once(reader))
            assert time.monotonic() - began < TIMEOUT + GRACE
            for error in found:
                with fails_within(1, "did not answer within 0.5 s", secret=place.password):
                    raise error
    finally:
        place.server.thaw()
    assert place.run(ask(warm, 2)) == [2]
    assert place.run(ask(cold, 3)) == [3]


def test_a_killed_redis_is_an_error_and_one_started_again_works_at_once(
    kind: str, runner: asyncio.Runner, tmp_path: Path
) -> None:
    with one_redis(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        connection = RedisConnection(SecretStr(server.uri), timeout=TIMEOUT)
        keep(store_of(kind, connection), 5)
        reader = reader_of(kind, connection)
        assert runner.run(ask(reader, 4)) == [4]
        server.kill()
        with fails_within(TIMEOUT, "cannot be reached", secret=server.password):
            runner.run(ask(reader, 4))
        server.start()
        assert runner.run(ask(reader, 4)) == [4]
        server.kill()
        server.start()  # and nobody asked meanwhile
        assert runner.run(ask(reader, 4)) == [4]


def test_a_connection_that_is_cut_while_reads_wait_is_replaced_and_they_are_asked_once_more(
    place: Place,
) -> None:
    reader = place.reader(5.0)
    assert place.run(ask(reader, 0)) == [0]
    place.line.delay = 0.1

    async def cut_meanwhile() -> list[list[int | None]]:
        reads = [asyncio.ensure_future(ask(reader, number)) for number in range(10)]
        await asyncio.sleep(0.05)
        place.line.cut()
        return await asyncio.gather(*reads)

    assert place.run(cut_meanwhile()) == [[number] for number in range(10)]


@pytest.mark.parametrize("count", [0, 1, 40, 3_000])
def test_an_answer_that_is_cut_off_is_an_error_and_never_fewer_values(
    place: Place, count: int
) -> None:
    reader = place.reader(5.0)
    numbers = range(200)
    assert place.run(ask(reader, *numbers)) == list(numbers)
    place.line.cut_after = count
    with fails_within(5.0, "broke off in the middle", secret=place.password):
        place.run(ask(reader, *numbers))
    assert place.line.cuts
    place.line.cut_after = None
    assert place.run(ask(reader, *numbers)) == list(numbers)


def test_a_slow_line_is_no_error_and_many_reads_share_it(place: Place) -> None:
    reader = place.reader(5.0)
    assert place.run(ask(reader, 1)) == [1]
    place.line.delay = 0.2

    async def many() -> list[list[int | None]]:
        return await asyncio.gather(*(ask(reader, n, n + 1) for n in range(100)))

    began = time.monotonic()
    assert place.run(many()) == [[n, n + 1] for n in range(100)]
    assert 0.4 <= time.monotonic() - began < 2.0


def test_an_emptied_redis_knows_nobody(place: Place) -> None:
    reader = place.reader()
    assert place.run(reader.read([("c1",)])) != [(None, None, None)]
    place.server.client().flushall()
    assert place.run(reader.read([("c1",), ("c2",)])) == [(None, None, None)] * 2


def test_a_wrong_password_is_refused_without_being_shown(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    reader = replace(place, password=SECRET).reader()
    for _ in range(2):
        with fails_within(TIMEOUT, "refuses the user or the password"):
            place.run(ask(reader, 1))
    assert SECRET not in caplog.text + repr(reader)


def test_a_password_that_is_changed_back_works_again(place: Place) -> None:
    reader = place.reader()
    assert place.run(ask(reader, 1)) == [1]
    client = place.server.client()
    client.config_set("requirepass", SECRET)
    place.line.cut()
    with fails_within(TIMEOUT, "refuses the user or the password", secret=place.password):
        place.run(ask(reader, 1))
    client.config_set("requirepass", place.password)
    assert place.run(ask(reader, 1)) == [1]


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak Redis's protocol"),
        (f"-ERR unknown command, with args: `{SECRET}`\r\n".encode(), "answers with the error"),
        (b"+OK\r\n+OK\r\n+OK\r\n", "does not speak Redis's protocol"),
    ],
)
def test_a_server_that_is_no_redis_is_said(
    kind: str, runner: asyncio.Runner, says: bytes, words: str
) -> None:
    def answer(listener: socket.socket) -> None:
        near, _ = listener.accept()
        with near:
            near.recv(1024)
            near.sendall(says)
            near.recv(1024)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        uri = SecretStr(f"redis://:{SECRET}@127.0.0.1:{listener.getsockname()[1]}")
        reader = reader_of(kind, RedisConnection(uri, timeout=TIMEOUT))
        with fails_within(TIMEOUT, words):
            runner.run(ask(reader, 1))


def test_tls_asked_of_a_server_without_it_is_an_error_in_time(place: Place) -> None:
    uri = SecretStr(f"rediss://:{SECRET}@127.0.0.1:{place.line.port}")
    reader = reader_of(place.kind, RedisConnection(uri, timeout=TIMEOUT))
    with fails_within(TIMEOUT):
        place.run(ask(reader, 1))
    place.line.frozen = True
    try:
        with fails_within(TIMEOUT, "did not answer within"):
            place.run(ask(reader, 1))
    finally:
        place.line.frozen = False


def test_a_certificate_that_nobody_vouches_for_is_refused(
    kind: str, runner: asyncio.Runner, tmp_path: Path
) -> None:
    certificate, other = Certificate.made(tmp_path / "a"), Certificate.made(tmp_path / "b")
    heard: list[bytes] = []

    def answer(listener: socket.socket) -> None:
        near, _ = listener.accept()
        with closing(near):
            try:
                heard.append(certificate.server().wrap_socket(near, server_side=True).recv(1024))
            except OSError:
                heard.append(b"")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,), daemon=True)
        thread.start()
        uri = SecretStr(f"rediss://:{SECRET}@127.0.0.1:{listener.getsockname()[1]}")
        connection = RedisConnection(uri, timeout=5.0, ca_file=other.certificate)
        with fails_within(5.0, "cannot be reached"):
            runner.run(ask(reader_of(kind, connection), 1))
        thread.join(5)
    assert heard == [b""]


@pytest.mark.parametrize("wait", [0.0, 0.02, 0.06, 0.1, 0.14])
def test_a_caller_that_goes_away_never_leaves_its_answer_to_another(
    place: Place, wait: float
) -> None:
    reader = place.reader(5.0)
    place.line.delay = 0.05

    async def some_go_away(turns: int) -> None:
        for turn in range(turns):
            going = [asyncio.ensure_future(ask(reader, number)) for number in range(8)]
            await asyncio.sleep(wait)
            staying = [asyncio.ensure_future(ask(reader, 100 + n)) for n in range(8)]
            for task in going:
                task.cancel()
            found = await asyncio.gather(*staying)
            assert found == [[100 + number] for number in range(8)]
            gone = await asyncio.gather(*going, return_exceptions=True)
            for number, answer in enumerate(gone):
                assert isinstance(answer, asyncio.CancelledError) or answer == [number]
            if turn == 3:
                place.line.cut()

    def connections() -> int:
        return int(place.server.client().info("stats")["total_connections_received"])

    place.run(some_go_away(1))
    before = connections()
    place.run(some_go_away(3))
    assert connections() == before + 1  # that of this question itself: nobody else's was disturbed
    place.run(some_go_away(5))


def test_a_frozen_redis_that_all_callers_have_left_works_again_after(place: Place) -> None:
    warm, cold = place.reader(), place.reader()
    assert place.run(ask(warm, 1)) == [1]

    async def leave(reader: OnlineReader) -> None:
        reads = [asyncio.ensure_future(ask(reader, number)) for number in range(5)]
        await asyncio.sleep(0.1)
        for task in reads:
            task.cancel()
        await asyncio.gather(*reads, return_exceptions=True)

    place.server.freeze()
    try:
        for reader in (warm, cold):
            place.run(leave(reader))
            with fails_within(TIMEOUT, "did not answer within", secret=place.password):
                place.run(ask(reader, 1))
    finally:
        place.server.thaw()
    for reader in (warm, cold):
        assert place.run(ask(reader, 7)) == [7]


def test_an_answer_that_lies_there_while_the_loop_was_busy_is_taken(place: Place) -> None:
    reader = place.reader()
    assert place.run(ask(reader, 1)) == [1]

    async def busy() -> list[int | None]:
        asked = asyncio.ensure_future(ask(reader, 5))
        asyncio.get_running_loop().call_soon(time.sleep, TIMEOUT + 0.1)
        return await asked

    assert place.run(busy()) == [5]


def test_a_reader_works_on_another_loop_when_its_first_has_ended(place: Place) -> None:
    reader = place.reader(5.0)
    assert place.run(ask(reader, 1)) == [1]
    with asyncio.Runner() as another:
        assert another.run(ask(reader, 2)) == [2]
        another.run(reader.close())


def test_closing_a_reader_ends_the_reads_that_wait(place: Place) -> None:
    reader, cold = place.reader(5.0), place.reader(5.0)
    assert place.run(ask(reader, 1)) == [1]

    async def close(one: OnlineReader) -> object:
        waiting = asyncio.ensure_future(ask(one, 1))
        await asyncio.sleep(0.05)
        await one.close()
        (found,) = await asyncio.gather(waiting, return_exceptions=True)
        return found

    place.line.frozen = True
    try:
        for one in (reader, cold):
            began = time.monotonic()
            assert isinstance(place.run(close(one)), ExternalError)
            assert time.monotonic() - began < 1
    finally:
        place.line.frozen = False


@dataclass
class Watch:
    """What the breaker told."""

    told: list[bool]

    def breaker(self, *, is_open: bool) -> None:
        self.told.append(is_open)


@pytest.mark.parametrize("fault", ["freeze", "kill", "refuse"])
def test_the_breaker_opens_spares_the_store_and_closes_within_two_seconds_after_it_is_back(
    place: Place, fault: str
) -> None:
    watch = Watch([])
    breaker = Breaker(place.reader(), OnlineReads(failures=3, pause_seconds=1.0), watch)

    async def steady(seconds: float) -> list[tuple[float, float, bool]]:
        """A read every 20 ms: when it began, how long it took, whether it was answered."""
        found: list[tuple[float, float, bool]] = []

        async def one() -> None:
            began = time.monotonic()
            try:
                answered = await ask(breaker, 5) == [5]
            except ExternalError:
                answered = False
            found.append((began, time.monotonic() - began, answered))

        tasks = []
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            tasks.append(asyncio.ensure_future(one()))
            await asyncio.sleep(0.02)
        await asyncio.gather(*tasks)
        return found

    assert all(answered for _, _, answered in place.run(steady(0.3)))
    {"freeze": place.server.freeze, "kill": place.server.kill, "refuse": place.line.refuse}[fault]()
    began = time.monotonic()
    during = place.run(steady(2.5))
    assert not any(answered for _, _, answered in during)
    later = [took for at, took, _ in during if at > began + TIMEOUT + GRACE]
    assert len(later) > 50
    # But for a probe now and then, nobody waits.
    assert sum(took > 0.1 for took in later) <= 3
    assert watch.told == [True]
    if fault == "freeze":
        place.server.thaw()
    elif fault == "refuse":
        place.line.listen()
    else:
        place.server.start()
        keep(store_of(place.kind, RedisConnection(SecretStr(place.server.uri), timeout=5.0)), 10)
    back = time.monotonic()
    after = place.run(steady(2.5))
    first = min(at for at, _, answered in after if answered)
    assert first - back < 2.0
    assert all(answered for at, _, answered in after if at > back + 2.0)
    assert watch.told == [True, False]
    assert (breaker.open, breaker.failures) == (False, 0)


class Hanging(MemoryOnlineStore):
    """Hangs until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def read(self, keys: pa.RecordBatch, selection: Sequence[SelectedFeatures]) -> OnlineRows:
        self.go.wait(20)
        return super().read(keys, selection)


def test_a_store_that_hangs_in_all_threads_is_an_error_in_time_and_works_again_after() -> None:
    store = Hanging()
    store.write(KINDS, iter([stored_rows(KINDS, [{"code": "c1", "at": NOON, "whole": 1}])]))
    reader = ThreadedReader(store, SELECTION, timeout=TIMEOUT, threads=2)

    async def many() -> list[Any]:
        return await asyncio.gather(*(ask(reader, 1) for _ in range(9)), return_exceptions=True)

    with asyncio.Runner() as runner:
        began = time.monotonic()
        found = runner.run(many())
        assert time.monotonic() - began < TIMEOUT + GRACE
        for error in found:
            with fails_within(1, "did not answer within 0.5 s"):
                raise error
        store.go.set()
        assert runner.run(ask(reader, 1)) == [1]
        runner.run(reader.close())


@pytest.mark.parametrize("kind", ["direct", "feast"])
def test_sentinels_lead_a_reader_to_the_new_master(kind: str, tmp_path: Path) -> None:
    with watched_redis(tmp_path) as watched, asyncio.Runner() as runner:
        connection = RedisConnection(
            SecretStr(watched.uri), mode="sentinel", master_name="shop", timeout=TIMEOUT
        )
        keep(store_of(kind, connection), 10)
        reader = reader_of(kind, connection)
        assert runner.run(ask(reader, 3)) == [3]
        until(lambda: watched.replica.client().dbsize() > 0, "the replica has the rows")
        watched.master.kill()
        with fails_within(TIMEOUT, secret=watched.master.password):
            runner.run(ask(reader, 3))

        def answered() -> bool:
            try:
                return runner.run(ask(reader, 3)) == [3]
            except ExternalError:
                return False

        until(answered, "the replica is the master and answers")
        runner.run(reader.close())
