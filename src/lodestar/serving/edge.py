"""The edge as an ASGI application: for uvicorn its lifespan alone, for any other server all of it."""

import asyncio
from time import monotonic

from lodestar.serving.desk import Desk
from lodestar.serving.exchange import Exchange
from lodestar.serving.fallback import Message, Receive, Scope, Send
from lodestar.serving.http import Answer
from lodestar.serving.limits import too_large, too_slow
from lodestar.serving.wire import header_list

__all__ = ["Edge"]

OK = 200


class Edge(Desk):
    """What the server runs: hot routes, their rules, and an application for everything else.

    Under uvicorn, `EdgeProtocol` brings it requests directly. Called as an ASGI application by another
    server it keeps the same rules, but for those on connections and headers, which are that server's,
    and it does not notice clients that go away.

    `failure` is what ended the application's lifespan, if something did.
    """

    failure: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be an ASGI application; the lifespan is the fallback's."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] == "http":
            await self._exchange(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.state = scope.setdefault("state", {})
        phase = "startup"

        async def tell(message: Message) -> None:
            nonlocal phase
            if message["type"].endswith(".failed"):  # its text is a trace, and the error follows
                self.failure = RuntimeError(
                    message.get("message", "the application gave no reason")
                )
                return
            if message["type"] == "lifespan.startup.complete":
                self.readiness.begin()
                phase = "shutdown"
            await send(message)

        try:
            await self.fallback(scope, receive, tell)
        except Exception as error:  # noqa: BLE001 -- an edge: `serve` raises it where it can be said
            self.failure = error
        if self.failure is not None:
            await send({"type": f"lifespan.{phase}.failed", "message": ""})

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope["client"][0] if scope.get("client") else "-"
        exchange = self.open(
            scope["method"], scope["path"], scope["query_string"], scope["headers"], client
        )
        if exchange.answer is None and not await self._read(exchange, receive):
            self.finish(exchange, Answer(b""), None)
            return
        answer = exchange.answer or self.begin(exchange) or await self._answer_in_time(exchange)
        body = b"" if scope["method"] == "HEAD" else answer.body
        headers = header_list(
            answer, exchange.request.request_id, page=exchange.route.page and answer.status == OK
        )
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self.finish(exchange, answer, len(body))

    async def _read(self, exchange: Exchange, receive: Receive) -> bool:
        """Read the body within the limits; False if the client went away."""
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return False
                    part, more = message.get("body", b""), message.get("more_body", False)
                    exchange.size += len(part)
                    self.held += len(part)
                    if exchange.size > self.limits.body_bytes:
                        self.refuse(exchange, too_large(self.limits.body_bytes))
                        return True
                    parts.append(part)
        except TimeoutError:
            self.refuse(exchange, too_slow())
        exchange.request.body = b"".join(parts)
        return True

    async def _answer_in_time(self, exchange: Exchange) -> Answer:
        exchange.task = asyncio.current_task()
        late = asyncio.get_running_loop().call_later(
            exchange.due - monotonic(), self.cut, exchange, "late"
        )
        try:
            return await self.answer(exchange)
        finally:
            late.cancel()
