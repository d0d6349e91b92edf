"""The edge under any ASGI server: the same rules, without sockets."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.serving_app import made_edge

from lodestar.serving.access_log import Log
from lodestar.serving.edge import Edge
from lodestar.serving.fallback import Message
from lodestar.settings.serving import Limits, Serving

JSON = {"content-type": "application/json"}


@pytest.fixture
def made() -> Iterator[Callable[..., Edge]]:
    sink = os.open(os.devnull, os.O_WRONLY)
    log = Log(sink)
    yield lambda **limits: made_edge(Serving(limits=Limits(**limits)), log)
    log.close()
    os.close(sink)


def asked(edge: Edge, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 -- httpx's
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=edge)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.request(method, path, **options)

    return asyncio.run(ask())


def test_the_hot_route_answers_with_the_headers_of_every_answer(made: Callable[..., Edge]) -> None:
    found = asked(made(), "POST", "/predict", json={}, headers={"x-request-id": "mine"})
    assert found.status_code == 200
    assert found.headers["x-request-id"] == "mine"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.json()["bytes"] == 2


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/items/3", 200),
        ("HEAD", "/health/live", 200),
        ("GET", "/items/x", 422),
        ("GET", "/nothing", 404),
        ("DELETE", "/predict", 405),
        ("OPTIONS", "/predict", 204),
        ("GET", "/metrics", 200),
        ("POST", "/admin/swap", 403),
        ("GET", "/health/ready", 503),
        ("GET", "/v2/health/ready", 503),
        ("GET", "/v2/health/live", 200),
        ("GET", "/ping", 503),
    ],
)
def test_every_other_way_in_is_answered(
    made: Callable[..., Edge], method: str, path: str, status: int
) -> None:
    found = asked(made(), method, path)
    assert found.status_code == status
    if status >= 400:
        assert found.headers["content-type"] == "application/problem+json"
        assert found.json()["status"] == status
        assert found.json()["request_id"] == found.headers["x-request-id"]


def test_a_body_is_counted_while_it_comes(made: Callable[..., Edge]) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 100

    found = asked(made(body_bytes=2048), "POST", "/predict", content=pieces(), headers=JSON)
    assert found.status_code == 413


def test_a_body_that_does_not_come_is_given_up(made: Callable[..., Edge]) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    found = asked(made(body_seconds=0.1), "POST", "/predict", content=pieces(), headers=JSON)
    assert found.status_code == 408


def test_an_answer_that_is_late_is_a_504(made: Callable[..., Edge]) -> None:
    edge = made(answer_seconds=0.1)
    found = asked(edge, "POST", "/predict", json={"do": "sleep", "seconds": 60})
    assert found.status_code == 504
    assert edge.in_flight == 0


def test_whoever_waits_too_long_for_a_turn_gets_a_504(made: Callable[..., Edge]) -> None:
    edge = made(answer_seconds=0.5, concurrency=1)

    async def ask_three() -> list[int]:
        transport = httpx.ASGITransport(app=edge)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            body = {"do": "sleep", "seconds": 60}
            found = await asyncio.gather(*[client.post("/predict", json=body) for _ in range(3)])
            found.append(await client.post("/predict", json={}))
            return [response.status_code for response in found]

    assert asyncio.run(ask_three()) == [504, 504, 504, 200]


def test_a_client_that_goes_away_in_the_middle_leaves_nothing_behind(
    made: Callable[..., Edge],
) -> None:
    edge, sent = made(), list[Message]()

    async def story() -> None:
        messages: list[Message] = [
            {"type": "http.request", "body": b"{", "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def receive() -> Message:
            return messages.pop(0)

        async def send(message: Message) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/predict",
            "query_string": b"",
            "headers": headers,
        }
        await edge(scope, receive, send)

    asyncio.run(story())
    assert sent == []
    assert (edge.in_flight, edge.held) == (0, 0)


def lived(edge: Edge) -> list[str]:
    """What the edge says over a whole lifespan."""
    said: list[str] = []

    async def story() -> None:
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> Message:
            return next(messages)

        async def send(message: Message) -> None:
            said.append(json.dumps(message))

        await edge({"type": "lifespan"}, receive, send)

    asyncio.run(story())
    return said


def test_it_is_ready_once_the_application_is(made: Callable[..., Edge]) -> None:
    edge = made()
    states = [edge.readiness.ready, len(lived(edge)), edge.readiness.ready]
    assert states == [False, 2, True]
    assert edge.failure is None


def test_what_keeps_the_application_from_starting_is_kept_and_not_told(
    made: Callable[..., Edge], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_SERVING_STARTS", "artifact")
    edge = made()
    assert lived(edge) == ['{"type": "lifespan.startup.failed", "message": ""}']
    assert "tampered" in str(edge.failure)
    assert not edge.readiness.ready
