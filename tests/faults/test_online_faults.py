"""Online stores over a Redis that is gone, frozen, slow, cut off, emptied, or not Redis at all."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import pyarrow as pa
import pytest
from pydantic import SecretStr
from tests.redis_places import (
    DEADLINE,
    Line,
    Redis,
    line_to,
    one_redis,
    redis_cluster,
    until,
    watched_redis,
)
from tests.spoiled_stores import KINDS, NOON, SELECTION, fails_in_time, keep, read

from lodestar.adapters.feast.redis import FeastRedisStore
from lodestar.adapters.redis.provider import RedisConnection, RedisOnlineStore
from lodestar.errors import ExternalError
from lodestar.interface.features import OnlineStore

pytestmark = pytest.mark.faults
TIMEOUT = 0.5
# How much later than its deadline an answer may come on a busy machine.
GRACE = 0.4
SECRET = "Geheim-hunter2"  # noqa: S105 -- a test's own


@dataclass
class Place:
    """A store, the server that it talks to, and the line between them."""

    kind: str
    server: Redis
    line: Line
    password: str

    def store(self, timeout: float = TIMEOUT) -> OnlineStore:
        uri = SecretStr(f"redis://:{self.password}@127.0.0.1:{self.line.port}/0")
        return store_of(self.kind, RedisConnection(uri, timeout=timeout))


def store_of(kind: str, connection: RedisConnection) -> OnlineStore:
    if kind == "direct":
        return RedisOnlineStore(connection)
    return FeastRedisStore(connection, "shop")


@pytest.fixture(params=["direct", "feast"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place(kind: str, tmp_path: Path) -> Iterator[Place]:
    with one_redis(tmp_path / "redis") as server, line_to(server.port) as line:
        found = Place(kind, server, line, server.password)
        keep(found.store(5.0), 200)
        yield found


def fails_within(seconds: float, *words: str, secret: str = SECRET) -> AbstractContextManager[None]:
    return fails_in_time(seconds + GRACE, words, secrets=(secret,))


def test_a_redis_that_is_not_there_is_said_at_once(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    uri = SecretStr(f"redis://:{SECRET}@127.0.0.1:{port}/0")
    store = store_of(kind, RedisConnection(uri, timeout=TIMEOUT))
    for use in (lambda: read(store, 1), lambda: keep(store, 1), lambda: store.watermark(KINDS)):
        with fails_within(TIMEOUT, f"127.0.0.1:{port}", "cannot be reached"):
            use()


def test_a_frozen_redis_is_an_error_in_time_and_works_again_after(place: Place) -> None:
    warm, cold = place.store(), place.store()
    assert read(warm, 1) == [1]
    place.server.freeze()
    try:
        for store in (warm, cold, warm):
            with fails_within(TIMEOUT, "did not answer within 0.5 s", secret=place.password):
                read(store, 1)
        with fails_within(TIMEOUT, secret=place.password):
            keep(warm, 1)
    finally:
        place.server.thaw()
    assert read(warm, 2) == [2]
    assert read(cold, 3) == [3]


def test_a_killed_redis_is_an_error_and_one_started_again_works_at_once(
    kind: str, tmp_path: Path
) -> None:
    with one_redis(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        store = store_of(kind, RedisConnection(SecretStr(server.uri), timeout=TIMEOUT))
        keep(store, 5)
        assert read(store, 4) == [4]
        server.kill()
        with fails_within(TIMEOUT, "cannot be reached", secret=server.password):
            read(store, 4)
        server.start()
        assert read(store, 4) == [4]
        server.kill()
        server.start()  # and nobody asked meanwhile
        assert read(store, 4) == [4]


def test_a_wrong_password_is_refused_without_being_shown(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store = replace(place, password=SECRET).store()
    with fails_within(TIMEOUT, "refuses the user or the password"):
        read(store, 1)
    assert SECRET not in caplog.text + repr(store)


def test_no_password_where_one_is_needed_is_said(place: Place) -> None:
    uri = SecretStr(f"redis://127.0.0.1:{place.server.port}")
    store = store_of(place.kind, RedisConnection(uri, timeout=TIMEOUT))
    with fails_within(TIMEOUT, "refuses the user or the password"):
        read(store, 1)


@pytest.mark.parametrize("count", [0, 1, 40, 3_000, 9_000])
def test_an_answer_that_is_cut_off_is_an_error_and_never_fewer_values(
    place: Place, count: int
) -> None:
    store = place.store(5.0)
    numbers = range(200)
    assert read(store, *numbers) == list(numbers)
    place.line.cut_after = count
    with fails_within(5.0, "broke off in the middle", secret=place.password):
        read(store, *numbers)
    assert place.line.fired.is_set()
    place.line.cut_after = None
    assert read(store, *numbers) == list(numbers)


def test_an_answer_that_trickles_in_is_late_as_a_whole(place: Place) -> None:
    store = place.store()
    assert read(store, 1) == [1]
    place.line.trickle = 0.05
    with fails_within(TIMEOUT, "did not answer within", secret=place.password):
        read(store, *range(200))
    assert place.line.fired.is_set()
    place.line.trickle = None
    assert read(store, 7) == [7]


def test_a_slow_line_within_the_deadline_is_no_error(place: Place) -> None:
    store = place.store(2.0)
    place.line.delay = 0.2
    assert read(store, 1, 2) == [1, 2]
    assert place.line.fired.is_set()


class CancelledError(BaseException):
    """What a test raises out of the blue."""


@pytest.mark.parametrize("wait", [0.02, 0.06, 0.1, 0.14])
def test_a_call_that_is_cancelled_never_leaves_its_answer_to_the_next(
    place: Place, wait: float
) -> None:
    store = place.store(5.0)
    assert read(store, 1) == [1]
    place.line.delay = 0.1

    def cancel(number: int, frame: FrameType | None) -> None:
        raise CancelledError

    before = signal.signal(signal.SIGALRM, cancel)
    try:
        for number in range(4):
            signal.setitimer(signal.ITIMER_REAL, wait)
            try:
                read(store, number)
            except CancelledError:
                pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            assert read(store, 100 + number) == [100 + number]
    finally:
        signal.signal(signal.SIGALRM, before)


def test_threads_get_each_their_own_answers_while_connections_break(place: Place) -> None:
    store = place.store(5.0)
    stop = threading.Event()

    def breaks() -> None:
        while not stop.wait(0.05):
            place.line.drop()

    def asks(number: int) -> int:
        right = 0
        for turn in range(60):
            asked = (number * 60 + turn) % 200
            try:
                assert read(store, asked) == [asked]
                right += 1
            except ExternalError:
                time.sleep(0.01)
        return right

    breaker = threading.Thread(target=breaks)
    breaker.start()
    try:
        with ThreadPoolExecutor(8) as threads:
            counts = list(threads.map(asks, range(8)))
    finally:
        stop.set()
        breaker.join(DEADLINE)
    assert sum(counts) > 0
    assert read(store, 3) == [3]


def test_a_forked_process_does_not_talk_on_its_parents_connection(place: Place) -> None:
    store = place.store(5.0)
    assert read(store, 1) == [1]
    code = (
        "import os, sys\n"
        "from tests.faults.test_online_faults import forked\n"
        "sys.exit(forked(*sys.argv[1:]))\n"
    )
    uri = f"redis://:{place.password}@127.0.0.1:{place.line.port}/0"
    done = subprocess.run(
        [sys.executable, "-c", code, place.kind],
        env={**os.environ, "TEST_REDIS": uri},
        cwd=Path(__file__).parents[2],
        timeout=60,
        check=False,
    )
    assert done.returncode == 0


def forked(kind: str) -> int:
    store = store_of(kind, RedisConnection(SecretStr(os.environ["TEST_REDIS"]), timeout=5.0))
    read(store, 1)
    child = os.fork()
    if child == 0:
        wrong = sum(read(store, n) != [n] for n in range(100))
        os._exit(min(wrong, 100))
    wrong = sum(read(store, 199 - n) != [199 - n] for n in range(100))
    _, status = os.waitpid(child, 0)
    return wrong + os.waitstatus_to_exitcode(status)


def test_a_server_that_is_no_redis_is_said(kind: str) -> None:
    def answer(listener: socket.socket) -> None:
        near, _ = listener.accept()
        with near:
            near.recv(1024)
            near.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        uri = SecretStr(f"redis://:{SECRET}@127.0.0.1:{listener.getsockname()[1]}")
        store = store_of(kind, RedisConnection(uri, timeout=TIMEOUT))
        with fails_within(TIMEOUT, "does not speak Redis's protocol"):
            read(store, 1)


def test_a_server_that_echoes_the_password_in_its_error_does_not_make_us_show_it(kind: str) -> None:
    def answer(listener: socket.socket) -> None:
        near, _ = listener.accept()
        with near:
            near.recv(1024)
            near.sendall(f"-ERR unknown command, with args: `{SECRET}`\r\n".encode())
            near.recv(1024)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        uri = SecretStr(f"redis://:{SECRET}@127.0.0.1:{listener.getsockname()[1]}")
        store = store_of(kind, RedisConnection(uri, timeout=TIMEOUT))
        with fails_within(TIMEOUT):
            read(store, 1)


def test_tls_asked_of_a_server_without_it_is_an_error_in_time(place: Place) -> None:
    uri = SecretStr(f"rediss://:{SECRET}@127.0.0.1:{place.server.port}")
    with fails_within(TIMEOUT):
        read(store_of(place.kind, RedisConnection(uri, timeout=TIMEOUT)), 1)


def test_a_full_redis_refuses_to_write_and_still_reads(place: Place) -> None:
    place.server.client().config_set("maxmemory", "1mb")
    store = place.store(5.0)
    with fails_within(5.0, "out of memory", secret=place.password):
        for step in range(50):
            keep(store, 2_000, step=step)
    assert read(store, 1) is not None


def test_a_version_that_another_writer_came_before_is_written_all_the_same(place: Place) -> None:
    slow = place.store(5.0)
    place.line.delay = 0.2
    with ThreadPoolExecutor(1) as thread:
        newest = thread.submit(keep, slow, 5, step=9)
        time.sleep(0.3)  # it has asked what is there, and waits for the answer
        uri = SecretStr(f"redis://:{place.password}@127.0.0.1:{place.server.port}")
        assert keep(store_of(place.kind, RedisConnection(uri)), 5, step=4) == 5
        assert newest.result(DEADLINE) == 5
    place.line.delay = 0.0
    assert read(slow, *range(5)) == [9, 10, 11, 12, 13]


def test_an_emptied_redis_flags_every_entity_as_missing(place: Place) -> None:
    store = place.store()
    store.set_watermark(KINDS, NOON)
    place.server.client().flushall()
    rows = store.read(pa.record_batch({"code": ["c1", "c2"]}), SELECTION)
    assert rows.event_times["every_kind"].to_pylist() == [None, None]
    assert rows.features.column("whole").to_pylist() == [None, None]
    assert store.watermark(KINDS) is None


def written(kind: str) -> int:
    """Write 20,000 rows and then the watermark, as a process to be killed."""
    store = store_of(kind, RedisConnection(SecretStr(os.environ["TEST_REDIS"]), timeout=10.0))
    keep(store, 20_000, step=1)
    store.set_watermark(KINDS, NOON)
    return 0


def test_a_materialisation_killed_half_way_is_done_again_to_the_same_state(place: Place) -> None:
    code = (
        "import sys\n"
        "from tests.faults.test_online_faults import written\n"
        "sys.exit(written(*sys.argv[1:]))\n"
    )
    uri = f"redis://:{place.password}@127.0.0.1:{place.line.port}/0"
    process = subprocess.Popen(
        [sys.executable, "-c", code, place.kind],
        env={**os.environ, "TEST_REDIS": uri},
        cwd=Path(__file__).parents[2],
    )
    store = place.store(10.0)
    until(lambda: place.server.client().dbsize() > 4_000, "some rows are written")
    process.kill()
    process.wait(DEADLINE)
    numbers = range(20_000)
    half = read(store, *numbers)
    assert None in half  # the injector fired in the middle
    assert store.watermark(KINDS) is None
    assert keep(store, 20_000, step=1) == len(numbers)
    store.set_watermark(KINDS, NOON)
    assert read(store, *numbers) == [n + 1 for n in numbers]
    assert store.watermark(KINDS) == NOON


def test_sentinels_lead_to_the_new_master_when_the_old_one_is_killed(
    kind: str, tmp_path: Path
) -> None:
    with watched_redis(tmp_path) as watched:
        store = store_of(kind, _behind(watched.uri))
        keep(store, 10)
        assert read(store, 3) == [3]
        until(lambda: watched.replica.client().dbsize() > 0, "the replica has the rows")
        watched.master.kill()
        with fails_within(TIMEOUT, secret=watched.master.password):
            read(store, 3)
        until(lambda: watched.master_port() == watched.replica.port, "the replica is the master")
        until(_succeeds(lambda: keep(store, 10, step=1) == 10), "rows are written to it")
        assert read(store, 3) == [4]


def test_a_sentinel_that_hangs_leaves_time_to_ask_the_next(kind: str, tmp_path: Path) -> None:
    with watched_redis(tmp_path) as watched:
        watched.sentinels[0].freeze()
        try:
            store = store_of(kind, _behind(watched.uri))
            assert read(store, 3) == [None]
        finally:
            watched.sentinels[0].thaw()


def test_a_master_that_nobody_knows_is_an_error(kind: str, tmp_path: Path) -> None:
    with watched_redis(tmp_path) as watched:
        store = store_of(kind, replace(_behind(watched.uri), master_name="other"))
        with fails_within(TIMEOUT, secret=watched.master.password):
            read(store, 3)


def _behind(uri: str) -> RedisConnection:
    return RedisConnection(SecretStr(uri), mode="sentinel", master_name="shop", timeout=TIMEOUT)


def _succeeds(use: Callable[[], bool]) -> Callable[[], bool]:
    def reached() -> bool:
        try:
            return use()
        except ExternalError:
            return False

    return reached


def test_a_cluster_with_a_frozen_node_answers_for_the_others_and_in_time(
    kind: str, tmp_path: Path
) -> None:
    with redis_cluster(tmp_path) as nodes:
        for node in nodes:  # a Cluster that lost a node would refuse everything
            node.client().config_set("cluster-require-full-coverage", "no")
        places = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        uri = SecretStr(f"redis://:{nodes[0].password}@{places}")
        connection = RedisConnection(uri, mode="cluster", timeout=TIMEOUT)
        store = store_of(kind, connection)
        keep(store, 60)
        lost = {int(re.findall(rb"c(\d+)", key)[0]) for key in nodes[0].client().scan_iter()}
        others = [number for number in range(60) if number not in lost]
        assert lost
        assert others
        # Those of the node to be frozen come first: the others' answers will lie there unread.
        assert read(store, *lost, *others) == [*lost, *others]
        nodes[0].freeze()
        try:
            with fails_within(TIMEOUT, "did not answer within", secret=nodes[0].password):
                read(store, *lost, *others)
            assert all(_answered(store, number) for number in others)
            assert not _answered(store, min(lost))
        finally:
            nodes[0].thaw()
        until(_succeeds(lambda: read(store, *range(60)) == list(range(60))), "all answer again")


def _answered(store: OnlineStore, number: int) -> bool:
    began = time.monotonic()
    try:
        assert read(store, number) == [number]
    except ExternalError:
        assert time.monotonic() - began < TIMEOUT + GRACE
        return False
    return True


def test_a_slot_that_moved_to_another_node_is_found(kind: str, tmp_path: Path) -> None:
    with redis_cluster(tmp_path) as nodes:
        uri = SecretStr(f"redis://:{nodes[0].password}@127.0.0.1:{nodes[1].port}")
        store = store_of(kind, RedisConnection(uri, mode="cluster", timeout=5.0))
        keep(store, 60)
        source, target = nodes[0].client(), nodes[2].client()
        names = [client.execute_command("CLUSTER", "MYID").decode() for client in (source, target)]
        moved = 0
        for key in list(source.scan_iter(count=10_000)):
            slot = source.execute_command("CLUSTER", "KEYSLOT", key)
            target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[0])
            source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[1])
            for one in source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                login = ("AUTH", nodes[0].password)
                words = ("MIGRATE", "127.0.0.1", nodes[2].port, one, 0, 5_000, *login)
                source.execute_command(*words)
                moved += 1
            if moved > 20:
                break
        assert moved > 20
        assert read(store, *range(60)) == list(range(60))  # half moved: ASK
        for node in nodes:
            slots = source.execute_command("CLUSTER", "KEYSLOT", key)
            node.client().execute_command("CLUSTER", "SETSLOT", slots, "NODE", names[1])
        assert read(store, *range(60)) == list(range(60))  # moved: MOVED
        assert keep(store, 60, step=1) == 60
