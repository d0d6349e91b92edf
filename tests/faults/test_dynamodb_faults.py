"""DynamoDB gone, frozen, slow, cut off, emptied while serving, or refusing: the store and its reader."""

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from pydantic import SecretStr
from tests.dynamodb_places import (
    KEY,
    REGION,
    SECRET,
    client_of,
    make_tables,
    one_dynamodb,
    refusal,
    scripted,
    section,
)
from tests.faults.injector.proxy import Proxy
from tests.redis_places import line_to, until
from tests.spoiled_stores import KINDS, NOON, SELECTION, ask, fails_in_time, keep, read

from lodestar.adapters.dynamodb.provider import DynamoDBOnlineStore
from lodestar.errors import ExternalError
from lodestar.interface.features import OnlineReader, SelectedFeatures
from lodestar.serving.breaker import Breaker
from lodestar.settings.serving import OnlineReads
from lodestar.testing.online import CONTRACT_VIEWS

pytestmark = pytest.mark.faults
TIMEOUT = 1.0  # moto answers slowly on a busy machine
# How much later than its deadline an answer may come on a busy machine.
GRACE = 0.7


@dataclass
class Place:
    """Tables of a test's own, and a line to them that can be spoiled."""

    url: str
    prefix: str
    line: Proxy

    def store(self, timeout: float = TIMEOUT, **values: Any) -> DynamoDBOnlineStore:  # noqa: ANN401 -- of the section
        url = f"http://127.0.0.1:{self.line.port}"
        return DynamoDBOnlineStore(
            section(url, table_prefix=self.prefix, timeout=timeout, write_timeout=timeout, **values)
        )

    def reader(self, timeout: float = TIMEOUT) -> OnlineReader:
        return self.store(timeout).reader([SelectedFeatures(KINDS, ("whole", "text"))])


@pytest.fixture
def place(dynamodb_url: str) -> Iterator[Place]:
    prefix = f"{uuid4().hex}."
    make_tables(client_of(dynamodb_url), prefix, CONTRACT_VIEWS)
    with Proxy("127.0.0.1", int(dynamodb_url.rpartition(":")[2])) as line:
        found = Place(dynamodb_url, prefix, line)
        keep(found.store(20.0, writes="batch"), 200)
        yield found


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as found:
        yield found


def fails_within(seconds: float, *words: str) -> AbstractContextManager[None]:
    return fails_in_time(seconds + GRACE, words, secrets=(SECRET, KEY))


def test_a_frozen_dynamodb_is_an_error_in_time_and_works_again_after(place: Place) -> None:
    warm, cold = place.store(), place.store()
    assert read(warm, 1) == [1]
    cold.reader([])  # which opens the client, and sends nothing
    place.line.frozen = True
    for store in (warm, cold, warm):
        with fails_within(TIMEOUT, "did not answer"):
            read(store, 1)
        with fails_within(TIMEOUT, "did not answer"):
            store.watermark(KINDS)
        with fails_within(TIMEOUT, "did not answer"):
            keep(store, 1)
    assert place.line.held
    place.line.frozen = False
    assert read(warm, 2) == [2]
    assert read(cold, 3) == [3]


def test_a_frozen_dynamodb_is_an_error_in_time_for_all_who_wait(
    place: Place, runner: asyncio.Runner
) -> None:
    reader = place.reader()
    assert runner.run(ask(reader, 1)) == [1]

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(ask(reader, n) for n in range(20)), return_exceptions=True)

    place.line.frozen = True
    for _ in range(2):
        began = time.monotonic()
        found = runner.run(all_at_once())
        assert time.monotonic() - began < TIMEOUT + GRACE
        for error in found:
            with fails_within(1, "did not answer"):
                raise error
    place.line.frozen = False
    assert runner.run(ask(reader, 2)) == [2]
    runner.run(reader.close())


def test_an_answer_that_trickles_in_is_late_as_a_whole(
    dynamodb_url: str, place: Place, runner: asyncio.Runner
) -> None:
    with line_to(int(dynamodb_url.rpartition(":")[2])) as line:
        config = section(
            f"http://127.0.0.1:{line.port}", table_prefix=place.prefix, timeout=TIMEOUT
        )
        store = DynamoDBOnlineStore(config)
        reader = store.reader(SELECTION)
        assert read(store, 1) == [1]
        line.trickle = 0.05
        with fails_within(TIMEOUT, "did not answer within 1 s"):
            read(store, *range(50))
        with fails_within(TIMEOUT, "did not answer within 1 s"):
            runner.run(reader.read([("c1",)]))
        assert line.fired.is_set()
        line.trickle = None
        assert read(store, 7) == [7]
        assert runner.run(reader.read([("c7",)]))[0][2] == 7
        runner.run(reader.close())


@pytest.mark.parametrize("count", [0, 1, 300, 9_000])
def test_an_answer_that_is_cut_off_is_an_error_and_never_fewer_values(
    place: Place, runner: asyncio.Runner, count: int
) -> None:
    store = place.store(20.0)
    numbers = range(200)
    assert read(store, *numbers) == list(numbers)
    place.line.cut_after = count
    with fails_within(20.0, "broke off in the middle"):
        read(store, *numbers)
    reader = store.reader([SelectedFeatures(KINDS, ("whole",))])
    with fails_within(20.0, "broke off in the middle"):
        runner.run(ask(reader, *numbers))
    assert place.line.cuts
    place.line.cut_after = None
    assert read(store, *numbers) == list(numbers)
    runner.run(reader.close())


def test_connections_that_were_closed_while_idle_are_replaced(place: Place) -> None:
    store = place.store(20.0)
    for turn in range(3):
        assert read(store, turn) == [turn]
        place.line.cut()
    assert read(store, 5) == [5]


def test_a_dynamodb_that_refuses_connections_is_said_and_back_at_once(place: Place) -> None:
    store = place.store()
    assert read(store, 1) == [1]
    place.line.refuse()
    with fails_within(TIMEOUT, "cannot be reached"):
        read(store, 1)
    place.line.listen()
    assert read(store, 1) == [1]


def test_a_slow_line_within_the_deadline_is_no_error(place: Place) -> None:
    store = place.store(20.0)
    place.line.delay = 0.2
    assert read(store, 1, 2) == [1, 2]


def test_endless_throttling_ends_a_write_in_time(place: Place) -> None:
    with scripted(place.url) as server:
        for writes in ("conditional", "batch"):
            config = section(
                server.url,
                table_prefix=place.prefix,
                timeout=TIMEOUT,
                write_timeout=1.0,
                writes=writes,
            )
            store = DynamoDBOnlineStore(config)
            server.script = lambda operation, request: (
                refusal("ProvisionedThroughputExceededException")
                if operation in {"PutItem", "BatchWriteItem"}
                else None
            )
            with fails_within(1.0 + TIMEOUT, "throttles", "every_kind"):
                keep(store, 5, step=1)


def test_an_item_that_dynamodb_keeps_leaving_undone_is_an_error_and_no_unknown_entity(
    place: Place, runner: asyncio.Runner
) -> None:
    with scripted(place.url) as server:
        config = section(server.url, table_prefix=place.prefix, timeout=TIMEOUT)
        store = DynamoDBOnlineStore(config)
        server.script = lambda operation, request: (
            200,
            {"Responses": {}, "UnprocessedKeys": request["RequestItems"]},
        )
        with fails_within(TIMEOUT, "throttles BatchGetItem", "undone"):
            read(store, 1)
        reader = store.reader([SelectedFeatures(KINDS, ("whole",))])
        with fails_within(TIMEOUT, "throttles BatchGetItem", "undone"):
            runner.run(ask(reader, 1))
        assert len(server.asked) > 2
        runner.run(reader.close())


def test_a_store_emptied_while_it_is_read_knows_nobody_from_then_on(
    place: Place, runner: asyncio.Runner
) -> None:
    reader = place.reader(20.0)
    assert runner.run(reader.read([("c1",)]))[0][1:] == (1, "t1")
    client = client_of(place.url)
    table = f"{place.prefix}every_kind"
    for n in range(200):
        client.delete_item(TableName=table, Key={"@entity": {"S": f"c{n}"}})
    assert runner.run(reader.read([("c1",)])) == [(None, None, None)]
    client.delete_table(TableName=table)
    with fails_within(20.0, "there is no table", table):
        runner.run(reader.read([("c1",)]))
    runner.run(reader.close())


def test_callers_that_go_away_while_it_is_frozen_leave_nothing_behind(
    place: Place, runner: asyncio.Runner
) -> None:
    before = set(threading.enumerate())
    reader = place.reader()
    assert runner.run(ask(reader, 1)) == [1]

    async def leave() -> None:
        reads = [asyncio.ensure_future(ask(reader, n)) for n in range(20)]
        await asyncio.sleep(0.1)
        for task in reads:
            task.cancel()
        found = await asyncio.gather(*reads, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in found)

    place.line.frozen = True
    runner.run(leave())
    place.line.frozen = False
    assert runner.run(ask(reader, 7)) == [7]
    runner.run(reader.close())
    until(
        lambda: not ours(before),
        "the threads have ended",
    )


def test_a_store_that_nobody_holds_any_more_leaves_no_thread(place: Place) -> None:
    before = set(threading.enumerate())
    store = place.store(20.0)
    assert read(store, 1) == [1]
    assert ours(before)
    del store
    gc.collect()
    until(lambda: not ours(before), "the threads have ended")


def ours(before: Collection[threading.Thread]) -> list[threading.Thread]:
    return [
        one
        for one in threading.enumerate()
        if one not in before and one.name.startswith("dynamodb")
    ]


@dataclass
class Watch:
    """What the breaker told."""

    told: list[bool]

    def breaker(self, *, is_open: bool) -> None:
        self.told.append(is_open)


def test_the_breaker_spares_a_frozen_dynamodb_and_closes_when_it_is_back(
    place: Place, runner: asyncio.Runner
) -> None:
    watch = Watch([])
    breaker = Breaker(place.reader(), OnlineReads(failures=3, pause_seconds=0.5), watch)

    async def one() -> bool:
        try:
            return await ask(breaker, 5) == [5]
        except ExternalError:
            return False

    async def until_it_is(wanted: bool) -> None:
        ends = time.monotonic() + 20
        while breaker.open is not wanted:
            assert time.monotonic() < ends
            await one()
            await asyncio.sleep(0.02)

    assert runner.run(one())
    place.line.frozen = True
    runner.run(until_it_is(True))
    place.line.frozen = False
    runner.run(until_it_is(False))
    assert runner.run(one())
    assert watch.told == [True, False]
    runner.run(breaker.close())


def test_a_process_that_is_forked_makes_connections_of_its_own(place: Place) -> None:
    code = (
        "import sys\n"
        "from tests.faults.test_dynamodb_faults import forked\n"
        "sys.exit(forked(*sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, place.url, place.prefix],
        cwd=Path(__file__).parents[2],
        timeout=60,
        check=False,
    )
    assert done.returncode == 0


def forked(url: str, prefix: str) -> int:
    store = DynamoDBOnlineStore(section(url, table_prefix=prefix))
    read(store, 1)
    child = os.fork()
    if child == 0:
        wrong = sum(read(store, n) != [n] for n in range(50))
        os._exit(min(wrong, 100))
    wrong = sum(read(store, 199 - n) != [199 - n] for n in range(50))
    _, status = os.waitpid(child, 0)
    return wrong + os.waitstatus_to_exitcode(status)


def test_a_process_ends_though_an_answer_still_trickles_in(place: Place) -> None:
    with line_to(int(place.url.rpartition(":")[2])) as line:
        line.trickle = 0.2
        code = (
            "import sys\n"
            "from tests.faults.test_dynamodb_faults import trickled\n"
            "sys.exit(trickled(*sys.argv[1:]))\n"
        )
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code, f"http://127.0.0.1:{line.port}", place.prefix],
            cwd=Path(__file__).parents[2],
            timeout=60,
            check=False,
        )
    assert done.returncode == 0
    assert time.monotonic() - began < 40  # the answer alone takes longer
    assert line.fired.is_set()


def trickled(url: str, prefix: str) -> int:
    store = DynamoDBOnlineStore(section(url, table_prefix=prefix, timeout=TIMEOUT))
    try:
        read(store, 1)
    except ExternalError:
        return 0
    return 1


def written(url: str, prefix: str) -> int:
    """Write 3,000 rows and then the watermark, as a process to be killed."""
    store = DynamoDBOnlineStore(section(url, table_prefix=prefix))
    keep(store, 3_000, step=1)
    store.set_watermark(KINDS, NOON)
    return 0


def test_a_materialisation_killed_half_way_is_done_again_to_the_same_state(place: Place) -> None:
    code = (
        "import sys\n"
        "from tests.faults.test_dynamodb_faults import written\n"
        "sys.exit(written(*sys.argv[1:]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, place.url, place.prefix], cwd=Path(__file__).parents[2]
    )
    store = place.store(20.0, writes="batch")
    until(lambda: read(store, 400) == [401], "some rows are written")
    process.kill()
    process.wait(20)
    numbers = range(3_000)
    assert None in read(store, *numbers)  # the injector fired in the middle
    assert store.watermark(KINDS) is None
    assert keep(store, 3_000, step=1) == len(numbers)
    store.set_watermark(KINDS, NOON)
    assert read(store, *numbers) == [n + 1 for n in numbers]
    assert store.watermark(KINDS) == NOON


POLICY = """{"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": ["dynamodb:BatchGetItem", "dynamodb:GetItem"], "Resource": "*"}]}"""


def test_keys_are_held_to_their_policy_and_wrong_ones_refused(tmp_path: Path) -> None:
    with one_dynamodb(tmp_path, INITIAL_NO_AUTH_ACTION_COUNT="4") as server:
        iam = boto3.client(
            "iam",
            endpoint_url=server.url,
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )
        make_tables(server.client(), "", [KINDS])
        iam.create_user(UserName="reader")
        iam.put_user_policy(UserName="reader", PolicyName="reads", PolicyDocument=POLICY)
        key = iam.create_access_key(UserName="reader")["AccessKey"]
        given = {
            "access_key_id": SecretStr(key["AccessKeyId"]),
            "secret_access_key": SecretStr(key["SecretAccessKey"]),
        }
        reads = DynamoDBOnlineStore(section(server.url, table_prefix="", **given))
        assert read(reads, 1) == [None]
        assert reads.watermark(KINDS) is None
        with fails_within(20, "does not allow DescribeTable", "every_kind", "role's policy"):
            keep(reads, 1)
        with fails_within(20, "does not allow PutItem"):
            reads.set_watermark(KINDS, NOON)
        wrong = {**given, "secret_access_key": SecretStr(SECRET)}
        # moto says both in the same way, without a code; AWS's codes: tests/integration/test_dynamodb.py
        with fails_within(20, "does not allow BatchGetItem"):
            read(DynamoDBOnlineStore(section(server.url, table_prefix="", **wrong)), 1)
        with fails_within(20, "does not allow BatchGetItem"):
            read(DynamoDBOnlineStore(section(server.url, table_prefix="")), 1)


def test_tls_asked_of_a_server_without_it_is_an_error_in_time(place: Place) -> None:
    config = section(place.url.replace("http:", "https:"), timeout=TIMEOUT)
    with fails_within(TIMEOUT, "TLS"):
        read(DynamoDBOnlineStore(config), 1)


def test_a_port_that_takes_connections_and_never_answers_is_late(runner: asyncio.Runner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        store = DynamoDBOnlineStore(section(url, timeout=TIMEOUT))
        reader = store.reader(SELECTION)
        uses: list[Callable[[], object]] = [
            lambda: read(store, 1),
            lambda: store.watermark(KINDS),
            lambda: runner.run(reader.read([("c1",)])),
        ]
        for use in uses:
            with fails_within(TIMEOUT, "did not answer"):
                use()
        runner.run(reader.close())
