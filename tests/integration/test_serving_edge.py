"""The edge in front of a real server, asked with a real client."""

import asyncio
import gzip
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.serving_app import SECRET
from tests.serving_places import DEADLINE, Served, head, served, until

JSON = {"content-type": "application/json"}
SECURITY = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def problem(found: httpx.Response, status: int) -> dict[str, object]:
    """The problem document of a refusal, which every refusal has to be."""
    assert found.status_code == status, found.text
    assert found.headers["content-type"] == "application/problem+json"
    assert SECURITY.items() <= found.headers.items()
    assert SECRET not in found.text
    said = found.json()
    assert said["status"] == status
    assert said["request_id"] == found.headers["x-request-id"]
    return dict(said)


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(body_bytes=65_536, depth=8) as found:
        yield found


@pytest.fixture(scope="module")
def locked() -> Iterator[Served]:
    keys = {"api_keys": [digest("one")], "admin_keys": [digest("boss")]}
    with served({"authentication": keys}) as found:
        yield found


def test_an_answer_has_the_headers_that_every_answer_has(server: Served) -> None:
    found = server.post({})
    assert found.status_code == 200
    assert SECURITY.items() <= found.headers.items()
    assert found.headers["content-type"] == "application/json"
    assert "date" in found.headers
    assert "server" not in found.headers
    assert not any(name.startswith("access-control") for name in found.headers)


def test_a_request_id_comes_back_and_a_bad_one_is_replaced(server: Served) -> None:
    for good in ("a", "A.b_c-9", "x" * 64):
        assert server.post({}, headers={"x-request-id": good}).headers["x-request-id"] == good
    fresh = set()
    for bad in (b"", b"a b", b"x" * 65, b"\xe4", b"a/../b", b"a\tb", b"{}"):
        found = server.post({}, headers={"x-request-id": bad}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{20}", found)
        fresh.add(found)
    assert len(fresh) == 7


def test_the_log_says_what_happened_and_nothing_of_what_was_asked(server: Served) -> None:
    name = "log-me"
    body = {"name": "Ada Lovelace"}
    server.post(body, headers={"x-request-id": name}, params={"card": "no-4111"})
    line = server.logged(request_id=name)
    assert set(line) == {
        *("time", "request_id", "method", "route", "status", "ms"),
        *("bytes_in", "bytes_out", "client", "versions"),
    }
    assert (line["method"], line["route"], line["status"]) == ("POST", "/predict", 200)
    assert (line["client"], line["versions"]) == ("127.0.0.1", ["run-1"])
    assert (line["bytes_in"], line["bytes_out"] > 100) == (len(json.dumps(body)) - 1, True)
    server.get("/secret-path/of-mine?x=no-4111", headers={"x-request-id": "log-2"})
    assert server.logged(request_id="log-2")["route"] == "(unknown)"
    server.get("/items/77", headers={"x-request-id": "log-3"})
    assert server.logged(request_id="log-3")["route"] == "/items/{number}"
    for value in ("Lovelace", "no-4111", "secret-path"):
        assert value not in server.says()


def test_what_would_break_lines_cannot_get_into_the_log(server: Served) -> None:
    before = len(server.log())
    with server.line() as line:
        line.say(b"GET /\x1b[31m HTTP/1.1\r\nHost: x\r\n\r\n")
        line.rest()
    with server.line(head("GET", "/%0d%0a%1b[31m", "X-Request-ID: a%0d%0ab")) as line:
        assert line.response()[0] == 404
    until(lambda: len(server.log()) >= before + 2)
    assert "\x1b" not in server.says()


@pytest.mark.parametrize(
    ("does", "status", "kind"),
    [
        ("problem", 422, "invalid"),
        ("data", 422, "unusable-data"),
        ("external", 503, "dependency-unavailable"),
        ("lodestar", 500, "failed"),
        ("bug", 500, "internal-error"),
        ("recursion", 500, "internal-error"),
        ("cancelled", 500, "internal-error"),
        ("inject", 500, "internal-error"),
    ],
)
def test_a_failure_is_a_problem_and_its_trace_is_in_the_log_once(
    server: Served, does: str, status: int, kind: str
) -> None:
    name = f"fails-{does}"
    found = server.post({"do": does}, headers={"x-request-id": name})
    said = problem(found, status)
    assert said["type"] == f"urn:lodestar:problem:{kind}"
    assert ("retry-after" in found.headers) == (status == 503)
    assert "set-cookie" not in found.headers
    server.logged(request_id=name, status=status)
    events = [line for line in server.log() if line.get("request_id") == name and "event" in line]
    assert len(events) == (1 if status >= 500 else 0)
    if events:
        assert "Error" in events[0]["trace"]


def test_a_problem_names_the_fields(server: Served) -> None:
    said = problem(server.post({"do": "problem"}), 422)
    assert said["errors"] == [{"field": "age", "reason": "must be a number", "row": 3}]


def test_who_asks_for_a_path_that_there_is_not_is_shown_to_the_docs(server: Served) -> None:
    assert "/docs" in str(problem(server.get("/"), 404)["detail"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/nothing", 404),
        ("GET", "/items/3/", 404),
        ("GET", "/predict", 405),
        ("PROPFIND", "/predict", 405),
        ("DELETE", "/items/3", 405),
        ("GET", "/items/three", 422),
        ("GET", "/fails/data", 422),
        ("GET", "/fails/external", 503),
        ("GET", "/fails/bug", 500),
        ("POST", "/admin/swap", 403),
        ("GET", "/admin", 403),
        ("GET", "/admin/%2e%2e/metadata", 403),
    ],
)
def test_every_refusal_is_a_problem_whoever_made_it(
    server: Served, method: str, path: str, status: int
) -> None:
    with server.client() as client:
        found = client.request(method, path)
    said = problem(found, status)
    assert "three" not in str(said)
    if status == 405:
        assert found.headers["allow"] == ("POST, OPTIONS" if path == "/predict" else "GET")


def test_head_and_options_answer_without_a_body(server: Served) -> None:
    with server.client() as client:
        for _ in range(2):  # the connection lives on
            got = client.head("/health/live")
            assert (got.status_code, got.content) == (200, b"")
            assert got.headers["content-length"] == "17"
            options = client.options("/predict")
            assert (options.status_code, options.content) == (204, b"")
            assert options.headers["allow"] == "POST, OPTIONS"
            assert "content-length" not in options.headers


def test_the_fallbacks_answers_get_our_headers_instead_of_its_own(server: Served) -> None:
    found = server.get("/text")
    assert found.text == "é"
    assert found.headers["x-own"] == "1"
    assert "server" not in found.headers
    assert SECURITY.items() <= found.headers.items()
    assert server.get("/items/3?word=a%20b").json()["word"] == "a b"


def test_the_docs_page_may_start_its_own_script_and_nothing_else_may(server: Served) -> None:
    page = server.get("/docs")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http" not in policy
    assert server.get("/openapi.json").headers["content-security-policy"].endswith("'none'")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({}, 415),
        ({"content-type": "application/json; charset=utf-16"}, 415),
        ({**JSON, "content-encoding": "gzip"}, 415),
        ({"content-type": "application/vnd.mine+json; charset=utf-8"}, 200),
    ],
)
def test_only_json_is_taken(server: Served, headers: dict[str, str], status: int) -> None:
    with server.client() as client:
        found = client.post("/predict", content=b"{}", headers=headers)
    if status != 200:
        problem(found, status)
    assert found.status_code == status


def test_a_compressed_bomb_is_not_opened(server: Served) -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    with server.client() as client:
        headers = {**JSON, "content-encoding": "gzip"}
        found = client.post("/predict", content=bomb, headers=headers)
    problem(found, 415)
    assert found.headers["accept-encoding"] == "identity"


def test_a_body_of_60_mb_is_refused_before_it_is_read(server: Served) -> None:
    with server.line(head(length=60_000_000)) as line:
        assert line.response()[0] == 413  # and nothing of the body was sent
    with server.client() as client:
        began = time.monotonic()
        found = client.post("/predict", content=b" " * 60_000_000, headers=JSON)
        problem(found, 413)
        assert time.monotonic() - began < 15


def test_chunks_are_counted_while_they_come(server: Served) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(80):
            yield b" " * 1_000

    with server.client() as client:
        problem(client.post("/predict", content=pieces(), headers=JSON), 413)
        fits = client.post("/predict", content=iter([b"{", b"}"]), headers=JSON)
        assert fits.json()["bytes"] == 2


def test_what_is_nested_too_deeply_is_not_parsed(server: Served) -> None:
    with server.client() as client:
        for bomb in (b"[" * 9 + b"]" * 9, b"[" * 60_000, b'{"a":' * 10_000):
            problem(client.post("/predict", content=bomb, headers=JSON), 422)
        flat = json.dumps({"a": [{"b": "[["} for _ in range(500)]})
        assert client.post("/predict", content=flat, headers=JSON).status_code == 200


def test_bodies_that_are_no_json_are_the_clients_fault(server: Served) -> None:
    corpus = [
        b"",
        b"{",
        b"nul",
        b"\x00",
        b"\xff\xfe{\x00}\x00",
        "{}".encode("utf-16"),
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\\ud800"}',
        b'{"a": %s}' % (b"9" * 5_000),
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": "\x01"}',
        b"[1, 2]",
        b'{"a": 1e999999}',
        b"{}{}",
    ]
    with server.client() as client:
        for body in corpus:
            found = client.post("/predict", content=body, headers=JSON)
            assert found.status_code in {200, 400, 422}, (body[:50], found.text)


def test_excess_requests_are_turned_away_at_once_and_counted(tmp_path: Path) -> None:
    over = tmp_path / "over"
    with (
        served(concurrency=2, queue=2, answer_seconds=60) as server,
        ThreadPoolExecutor(10) as pool,
    ):
        body = {"do": "wait", "until": str(over)}
        asked = [pool.submit(server.post, body) for _ in range(10)]
        until(lambda: server.metric('lodestar_shed_total{reason="queue"}') == 6)
        assert server.metric("lodestar_queue") == 2
        assert server.get("/health/ready").status_code == 200  # which takes no place
        until(lambda: sum(one.done() for one in asked) == 6)
        over.touch()
        found = [one.result() for one in asked]
        assert sorted(one.status_code for one in found) == [200] * 4 + [503] * 6
        for one in found:
            if one.status_code == 503:
                assert problem(one, 503)["type"] == "urn:lodestar:problem:overloaded"
                assert one.headers["retry-after"] == "1"
        assert server.metric("lodestar_queue") == 0
        assert server.post({}).status_code == 200


def test_whoever_leaves_the_queue_makes_room_in_it(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    long = json.dumps({"do": "sleep", "seconds": 60, "begun": str(begun)}).encode()
    short = head(length=2) + b"{}"
    with (
        served(concurrency=1, queue=1, answer_seconds=60) as server,
        server.line(head(length=len(long)) + long),
    ):
        until(begun.exists)
        with server.line(short):
            until(lambda: server.metric("lodestar_queue") == 1)
            assert server.post({}).status_code == 503
        until(lambda: server.metric("lodestar_queue") == 0)
        assert server.logged(status=499)["route"] == "/predict"
        with server.line(short):
            until(lambda: server.metric("lodestar_queue") == 1)


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    with served(answer_seconds=1, concurrency=1, queue=5) as server:
        with ThreadPoolExecutor(3) as pool:
            body = {"do": "sleep", "seconds": 30}
            found = [one.result() for one in [pool.submit(server.post, body) for _ in range(3)]]
        for one in found:
            problem(one, 504)
            assert 0.9 < one.elapsed.total_seconds() < 10
        assert server.post({}).status_code == 200  # the place is free again


def test_bodies_held_at_once_are_bounded() -> None:
    with served(body_bytes=1_024, body_seconds=3) as server:
        half = head(length=1_024) + b" " * 1_000
        statuses = []
        lock = threading.Lock()

        def send() -> None:
            with server.line(half) as line:
                status = line.response()[0]
            with lock:
                statuses.append(status)

        with ThreadPoolExecutor(80) as pool:
            for _ in range(80):
                pool.submit(send)
        assert statuses.count(503) >= 10
        assert statuses.count(408) >= 60
        assert server.metric('lodestar_shed_total{reason="bodies"}') == statuses.count(503)
        assert server.post({}).status_code == 200


@pytest.mark.parametrize("path", ["/predict", "/nothing", "/metrics", "/docs", "/openapi.json"])
def test_without_a_key_nothing_is_told(locked: Served, path: str) -> None:
    name = f"audit{path.replace('/', '-')}"
    headers = {"x-request-id": name, "authorization": "Bearer hunter2-wrong"}
    found = locked.get(path, headers=headers)
    problem(found, 401)
    assert found.headers["www-authenticate"] == "Bearer"
    line = locked.logged(request_id=name, event="refused")
    assert (line["client"], line["status"]) == ("127.0.0.1", 401)
    assert "hunter2" not in locked.says()


def test_with_a_key_everything_is_but_administration(locked: Served) -> None:
    key, boss = {"x-api-key": "one"}, {"authorization": "Bearer boss"}
    assert locked.post({}, headers=key).json()["admin"] is False
    assert locked.post({}, headers=boss).json()["admin"] is True
    assert locked.get("/metrics", headers=key).status_code == 200
    with locked.client() as client:
        problem(client.post("/admin/swap", headers=key), 403)
        problem(client.post("/admin/swap"), 401)
        problem(client.post("/%61dmin/swap", headers=key), 403)
        swapped = client.post("/admin/swap", headers=boss, json={"a": 1})
    assert swapped.json() == {"admin": True, "body": '{"a":1}'}


def test_health_is_told_to_everyone_by_each_of_its_names(locked: Served) -> None:
    assert locked.get("/health/live").json() == {"status": "live"}
    assert locked.get("/health/ready").json() == {"status": "ready"}
    assert locked.get("/v2/health/live").json() == {"live": True}
    assert locked.get("/v2/health/ready").json() == {"ready": True}
    assert locked.get("/ping").text == "\n"
    assert locked.get("/ping").headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    "path", ["/version", "/v2", "/v2/models/any", "/v2/models/any/ready", "/v2/health", "/ping/"]
)
def test_nothing_beside_health_is_told_without_a_key(locked: Served, path: str) -> None:
    problem(locked.get(path), 401)


def test_metrics_count_every_answer(server: Served) -> None:
    name = 'lodestar_requests_total{method="POST",route="/predict/batch",status="200"}'
    before = server.metric(name)
    with server.client() as client:
        for _ in range(3):
            client.post("/predict/batch", json={})
    assert server.metric(name) == before + 3


def test_many_clients_at_once_get_each_their_own_answer(server: Served) -> None:
    async def ask() -> None:
        limits = httpx.Limits(max_connections=40)
        async with httpx.AsyncClient(
            base_url=server.address, limits=limits, timeout=DEADLINE
        ) as client:

            async def one(number: int) -> None:
                name = f"many-{number}"
                body = {"pad": "x" * number, "do": "sleep", "seconds": (number % 5) / 100}
                found = await client.post("/predict", json=body, headers={"x-request-id": name})
                assert found.headers["x-request-id"] == name
                sent = json.dumps(body, separators=(",", ":"))
                assert found.json()["bytes"] == len(sent)

            await asyncio.gather(*map(one, range(200)))

    asyncio.run(ask())
