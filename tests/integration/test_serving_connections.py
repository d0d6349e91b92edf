"""Connections byte by byte: what is slow, malformed, half sent or too much at once."""

import json
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.serving_places import STATUS, Line, Served, head, served, until

BODY = b'{"a": 1}'
WHOLE = head(length=len(BODY)) + BODY
HEALTH = head("GET", "/health/live")
PATIENCE = 10.0  # seconds that no answer to nonsense may take
# A busy machine's, and less than these deadlines are where nobody sets them.
HEADERS_WITHIN, BODY_WITHIN, IDLE_WITHIN = 4.5, 9.0, 20.0


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """Deadlines that are long enough for what is only odd."""
    with served(body_bytes=4_096, header_bytes=2_048) as found:
        yield found
        assert not [line for line in found.log() if "trace" in line]


@pytest.fixture(scope="module")
def hasty() -> Iterator[Served]:
    """Deadlines that are short enough to wait for."""
    with served(header_seconds=0.5, body_seconds=0.5, idle_seconds=0.5, body_bytes=4_096) as found:
        yield found


def closed_after(line: Line, began: float) -> float:
    """How long it took until the server closed."""
    line.rest()
    return time.monotonic() - began


def test_headers_that_never_end_are_given_up(hasty: Served) -> None:
    began = time.monotonic()
    with hasty.line(b"GET /health/live HTTP/1.1\r\nHost: x\r\n") as line:
        assert line.statuses() == [408]
    assert 0.4 < time.monotonic() - began < HEADERS_WITHIN


@pytest.mark.parametrize("drip", [b"X-A: b\r\n", b"x", b"\r\n"])
def test_a_drip_of_headers_does_not_buy_time(hasty: Served, drip: bytes) -> None:
    began = time.monotonic()
    with hasty.line(b"" if drip == b"\r\n" else b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ") as line:
        line.timeout(0.1)
        while not line.has_ended():
            line.say(drip)
            assert time.monotonic() - began < HEADERS_WITHIN
    assert time.monotonic() - began > 0.4


def test_a_body_that_drips_is_given_up(hasty: Served) -> None:
    began = time.monotonic()
    with hasty.line(head(length=100)) as line:
        line.timeout(0.1)
        while not line.has_ended():
            line.say(b" ")
            assert time.monotonic() - began < BODY_WITHIN
        assert STATUS.findall(line.heard) == [b"408"]
    assert time.monotonic() - began > 0.4


def test_connections_that_say_nothing_are_closed(hasty: Served) -> None:
    began = time.monotonic()
    with hasty.line() as line:
        assert line.rest() == b""
    with hasty.line(WHOLE) as line:
        assert line.response()[0] == 200
        assert line.rest() == b""
    assert 0.8 < time.monotonic() - began < IDLE_WITHIN


def test_slow_clients_do_not_slow_the_others(hasty: Served) -> None:
    with hasty.client() as client:
        stuck = [
            socket.create_connection(("127.0.0.1", hasty.port), timeout=PATIENCE)
            for _ in range(200)
        ]
        for at, one in enumerate(stuck):
            one.sendall((b"GET / HTTP/1.1\r\nHo", head(length=50), b"")[at % 3])
        took = []
        for _ in range(20):
            began = time.monotonic()
            assert client.post("/predict", json={}).status_code == 200
            took.append(time.monotonic() - began)
        for one in stuck:
            one.close()
    assert sorted(took)[10] < 0.5


def test_a_client_that_comes_back_in_time_keeps_its_connection() -> None:
    with served(header_seconds=4, idle_seconds=4) as server, server.line() as line:
        for _ in range(7):
            line.say(WHOLE)
            assert line.response()[0] == 200
            time.sleep(0.7)  # less than it may, and more together


def test_connections_are_bounded() -> None:
    with served(connections=3) as server:
        lines = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        for one in lines:
            one.sendall(HEALTH)
            assert one.recv(12) == b"HTTP/1.1 200"
        with server.line() as line:
            status, said = line.response()
            assert (status, b"retry-after: 1" in said) == (503, True)
            assert line.rest() == b""
        for one in lines:
            one.close()
        until(lambda: server.get("/health/live").status_code == 200)
        assert server.metric('lodestar_shed_total{reason="connections"}') >= 1


def test_a_client_that_does_not_read_is_cut_off() -> None:
    with served(idle_seconds=0.5, header_seconds=0.5) as server:
        big = json.dumps({"do": "big", "seconds": 3_000_000}).encode()
        with server.line() as line:
            line.say((head(length=len(big)) + big) * 20)
            until(lambda: any(entry.get("status") == 499 for entry in server.log()))
            answered = [entry for entry in server.log() if entry.get("status") == 200]
            assert 1 <= len(answered) < 20


def test_too_many_bytes_of_headers_are_431(server: Served) -> None:
    for lines in (["X-A: " + "b" * 3_000], [f"X-{n}: {n}" for n in range(400)]):
        with server.line(head("GET", "/health/live", *lines)) as line:
            assert line.statuses() == [431]
    with server.line(head("GET", "/" + "a" * 3_000)) as line:
        assert line.statuses() == [431]
    with server.line(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ") as line:  # and it never ends
        line.say(b"b" * 3_000)
        assert line.statuses() == [431]
    with server.line(head("GET", "/health/live", "X-A: " + "b" * 1_900)) as line:
        assert line.response()[0] == 200


def test_headers_are_counted_from_their_own_begin(server: Served) -> None:
    long = head("GET", "/health/live", "X-A: " + "b" * 1_500)
    with server.line(long * 40) as line:
        for _ in range(40):
            assert line.response()[0] == 200
    with server.line(long * 3 + long[:99]) as line:
        time.sleep(0.2)
        line.say(long[99:])
        for _ in range(4):
            assert line.response()[0] == 200
    with server.line(long * 3 + head("GET", "/health/live", "X-A: " + "b" * 3_000)) as line:
        assert line.statuses() == [200, 200, 200, 431]


def test_requests_in_one_piece_are_answered_in_order(server: Served) -> None:
    slow = json.dumps({"do": "sleep", "seconds": 0.3}).encode()
    ids = [f"X-Request-ID: n{n}" for n in range(4)]
    with server.line() as line:
        line.say(
            head("POST", "/predict", ids[0], length=len(slow))
            + slow
            + head("GET", "/health/live", ids[1])
            + head("POST", "/predict", ids[2], length=len(BODY))
            + BODY
            + head("GET", "/nothing", ids[3], "Connection: close")
            + HEALTH  # which comes after the end
        )
        said = line.rest()
    assert [int(found) for found in STATUS.findall(said)] == [200, 200, 200, 404]
    assert [said.index(f"n{n}\r\n".encode()) for n in range(4)] == sorted(
        said.index(f"n{n}\r\n".encode()) for n in range(4)
    )


def test_a_request_in_pieces_of_one_byte_is_a_request(server: Served) -> None:
    with server.line() as line:
        for at in range(len(WHOLE)):
            line.say(WHOLE[at : at + 1])
        assert line.response()[0] == 200


def test_whoever_asks_before_sending_is_told_to_go_on(server: Served) -> None:
    with server.line(head("POST", "/predict", "Expect: 100-continue", length=len(BODY))) as line:
        assert line.hear() == b"HTTP/1.1 100 Continue\r\n\r\n"
        line.say(BODY)
        assert line.response()[0] == 200
    with server.line(head("POST", "/predict", "Expect: 100-continue", length=9_999)) as line:
        assert line.statuses() == [413]


def test_trailers_are_read_and_mean_nothing(server: Served) -> None:
    chunked = head(
        "POST", "/predict", "Content-Type: application/json", "Transfer-Encoding: chunked"
    )
    with server.line(chunked + b"8\r\n" + BODY + b"\r\n0\r\nX-Evil: evil\r\n\r\n") as line:
        status, said = line.response()
    assert status == 200
    assert b'"host", "content-type", "transfer-encoding"]' in said
    with server.line(chunked + b"8\r\n" + BODY + b"\r\n0\r\n") as line:
        line.say(b"X-A: " + b"b" * 60_000)
        assert line.statuses() == [413]


def test_what_is_still_being_sent_does_not_take_a_refusal_back(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as raw:
        raw.sendall(head(length=60_000_000))
        for _ in range(5):  # a client that does not look at the answer before it has sent all
            raw.sendall(b" " * 100_000)
            time.sleep(0.1)
        assert raw.recv(12) == b"HTTP/1.1 413"


def test_padding_between_chunks_is_bounded(server: Served) -> None:
    chunked = head(
        "POST", "/predict", "Content-Type: application/json", "Transfer-Encoding: chunked"
    )
    with server.line(chunked) as line:
        line.say(b"1;" + b"x" * 60_000 + b"\r\n")
        assert line.statuses() == [413]


def test_another_protocol_is_not_spoken(server: Served) -> None:
    for name in ("websocket", "h2c"):
        lines = ("Connection: Upgrade", f"Upgrade: {name}")
        with server.line(head("GET", "/health/live", *lines) + b"\x81\x05hello") as line:
            assert line.statuses() == [200]


def test_a_request_says_which_host_it_means_once(server: Served) -> None:
    for hosts, status in ((b"", 400), (b"Host: x\r\nHost: x\r\n", 400), (b"Host: x\r\n", 200)):
        with server.line(b"GET /health/live HTTP/1.1\r\n" + hosts + b"\r\n") as line:
            assert line.response()[0] == status


def test_an_old_client_gets_its_answer_and_the_end(server: Served) -> None:
    for more in (b"", b"Connection: keep-alive\r\n"):
        with server.line(b"GET /health/live HTTP/1.0\r\n" + more + b"\r\n") as line:
            assert line.statuses() == [200]


CHUNKED = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CORPUS = [
    b"\r\n\r\n\r\n",
    b"\x00" * 100,
    b"\xff\xfe\xfd",
    b"hello\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://x/nothing HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET x HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET //nothing HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /%zz%00%ff%c0%ae HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /%ed%a0%80 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /items/%31%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /items/1?%00=%ff&&&==;# HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /a\x00b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /#a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET ?a=b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX A: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX-A\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n folded: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    b"GET / HTTP/1.1\nHost: x\n\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: \xff\xfe\r\n\r\n",
    CHUNKED + b"Content-Length: -1\r\n\r\n",
    CHUNKED + b"Content-Length: 1e3\r\n\r\n",
    CHUNKED + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    CHUNKED + b"Content-Length: 99999999999999999999999\r\n\r\n",
    CHUNKED + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    CHUNKED + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    CHUNKED + b"Transfer-Encoding: gzip\r\n\r\n",
    CHUNKED + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    CHUNKED + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    CHUNKED + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
    CHUNKED + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}{}\r\n0\r\n\r\n",
    CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n",
    CHUNKED + b"Expect: something\r\nContent-Length: 0\r\n\r\n",
    CHUNKED + b"Content-Length: 8\r\n\r\n" + "{}".encode("utf-16-le") * 2,
    CHUNKED + b"Content-Length: 2\r\n\r\n{}GARBAGE AFTER IT\r\n\r\n",
    b"GET /docs HTTP/1.1\r\nHost: \x80\xff\r\n\r\n",
    b"GET /docs HTTP/1.1\r\nHost: " + b"a" * 1_000 + b"\r\n\r\n",
    b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: \x80\r\n\r\n",
]


def answered(server: Served, sent: bytes) -> list[int]:
    """The statuses that come back, until the server closes: not later than its deadlines say."""
    with server.line(sent) as line:
        line.timeout(PATIENCE)
        return line.statuses()


def test_nonsense_is_refused_or_answered_but_never_a_failure(hasty: Served) -> None:
    with ThreadPoolExecutor(len(CORPUS)) as pool:
        found = list(pool.map(lambda sent: answered(hasty, sent), CORPUS))
    for sent, statuses in zip(CORPUS, found, strict=True):
        assert not [status for status in statuses if status >= 500], (sent, statuses)
    assert sum(statuses[:1] == [400] for statuses in found) > len(CORPUS) / 2
    assert hasty.get("/health/live").status_code == 200


def test_random_bytes_and_mutations_never_fail_nor_hang(hasty: Served) -> None:
    seed = time.time_ns()
    dice = random.Random(seed)  # noqa: S311 -- noise
    mutants = []
    for _ in range(300):
        mutant = bytearray(dice.choice([*CORPUS, *[WHOLE] * 20]))
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(mutant) + 1)
            mutant[at : at + dice.randint(0, 3)] = dice.randbytes(dice.randint(0, 3))
        mutants.append(bytes(mutant))
    with ThreadPoolExecutor(60) as pool:
        found = list(pool.map(lambda sent: answered(hasty, sent), mutants))
    for sent, statuses in zip(mutants, found, strict=True):
        assert not [status for status in statuses if status >= 500], (seed, sent, statuses)
    assert hasty.get("/health/live").status_code == 200


def test_after_all_of_this_nothing_is_held(server: Served) -> None:
    for _ in range(20):
        with server.line(head(length=4_000) + b"x" * 3_000):
            continue
    until(lambda: sum(line.get("status") == 499 for line in server.log()) >= 20)
    assert server.post({}).status_code == 200
