"""Lets an ASGI application, whose routes need no hurry, answer a request whose body is there."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

from starlette.routing import Route as StarletteRoute

from lodestar.serving.exchange import Exchange
from lodestar.serving.http import Answer, Request
from lodestar.serving.wire import SECURITY

__all__ = ["App", "Message", "Receive", "Scope", "Send", "replay"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# The edge writes these itself.
OURS = frozenset(name for name, _ in SECURITY) | {
    b"connection",
    b"content-length",
    b"content-type",
    b"date",
    b"server",
    b"transfer-encoding",
    b"x-request-id",
}


async def replay(app: App, exchange: Exchange, state: Mapping[str, Any]) -> Answer:
    """Ask the application; what it streams is gathered. The exchange learns its route's template.

    `request.state` has `request_id` and `admin`, besides what the lifespan gave (`state`).
    """
    scope = _scope_of(exchange, state)
    gathered = _Gathered(exchange.request.body)
    try:
        await app(scope, gathered.receive, gathered.send)
    finally:
        route = scope.get("route")
        if isinstance(route, StarletteRoute):
            exchange.template = route.path
    return gathered.answer()


def _scope_of(exchange: Exchange, state: Mapping[str, Any]) -> Scope:
    request = exchange.request
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "http",
        "method": request.method,
        "path": request.path,
        "raw_path": request.path.encode(),
        "query_string": request.query,
        "root_path": "",
        "headers": _headers_of(request),
        "client": (exchange.client, 0),
        "server": None,
        "state": {**state, "request_id": request.request_id, "admin": request.admin},
    }


def _headers_of(request: Request) -> list[tuple[bytes, bytes]]:
    """Those of the client; a trace goes on from our span."""
    span = request.span
    if span is None:
        return list(request.headers)
    others = [header for header in request.headers if header[0] != b"traceparent"]
    return [*others, (b"traceparent", span.traceparent.encode())]


class _Gathered:
    """Both ends of an ASGI call."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._status: int | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []

    async def receive(self) -> Message:
        """The body, once; then nothing ever comes."""
        if self._body is None:
            await asyncio.get_running_loop().create_future()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """Keep a piece of the answer."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = [(name.lower(), value) for name, value in message.get("headers", ())]
        else:
            self._parts.append(message.get("body", b""))

    def answer(self) -> Answer:
        """All of it."""
        if self._status is None:
            raise RuntimeError("the application ended without an answer")
        media = dict(self._headers).get(b"content-type", b"application/octet-stream")
        extra = [header for header in self._headers if header[0] not in OURS]
        return Answer(b"".join(self._parts), self._status, media, extra)
