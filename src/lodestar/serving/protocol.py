"""One client's connection: HTTP/1.1 from httptools, with deadlines and limits that uvicorn has not.

uvicorn runs the event loop, the sockets and the lifespan; this takes the place of its HTTP protocol
and brings requests to the desk without ASGI in between, which would cost more than the edge does.
"""

import asyncio
import urllib.parse
from collections import deque
from math import inf
from time import monotonic
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.server import ServerState

from lodestar.serving.desk import Desk
from lodestar.serving.exchange import Exchange
from lodestar.serving.failures import overloaded
from lodestar.serving.http import Answer
from lodestar.serving.limits import too_large, too_slow
from lodestar.serving.problems import ProblemError
from lodestar.serving.wire import response

__all__ = ["EdgeProtocol"]

# What a client still sends after a refusal is not looked at, so long; then the connection goes.
LINGER_SECONDS = 2.0
# A request that is half sent when the server ends may still come, so long.
HALF_SENT_SECONDS = 1.0
NOT_BEGUN_SECONDS = 0.05
MOST_PIPELINED = 128
# One byte to a chunk takes six on the line; more is padding.
CHUNKED_FACTOR = 8
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
NOBODY = Answer(b"")
OK = 200


class EdgeProtocol(asyncio.Protocol):
    """Reads requests one after the other, and answers them in their order.

    At any time one request may be coming (`_coming`: its headers are there), some may wait
    (`_pipelined`), and one be worked on (`_current`). `due` is the deadline of what comes next.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        del app_state  # the edge has the lifespan's state
        self._desk = desk = cast("Desk", config.loaded_app)
        self._limits = desk.limits
        self._server = server_state
        self._loop = _loop or asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        # Else what follows a `Connection: close` would spoil the answer to what came before it.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._transport = cast("asyncio.Transport", None)  # until connection_made
        self._client = "-"
        self._dates: list[tuple[bytes, bytes]] = []
        self._date = b""

        self.due = inf
        self._idle = False  # nothing has come since the last answer
        self._deaf = False  # what still comes is not read
        self._unread = False  # and it is still to come
        self._closed = False
        self._paused = False
        self._writable = True

        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []
        self._in_head = False
        self._continued = False  # whoever waits to be asked for the body was asked
        self._chunk = 0
        self._chunk_is_shared = False  # with the end of an earlier request
        self._received = 0  # bytes since the request's begin, and what shares its first chunk
        self._shared = 0
        self._coming: Exchange | None = None
        self._pipelined: deque[Exchange] = deque()
        self._current: Exchange | None = None

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there; it has `header_seconds` to say what it wants."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self._client = str(peer[0])
        self.due = monotonic() + self._limits.header_seconds
        self._desk.deadlines.watch(self)
        if len(self._server.connections) < self._limits.connections:
            self._server.connections.add(cast("Any", self))
        else:
            self._turn_away()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or was sent away."""
        del exc
        self._closed = self._deaf = True
        self._server.connections.discard(cast("Any", self))
        self._desk.deadlines.forget(self)
        self._drop_unanswered()
        if self._current is not None:
            self._desk.cut(self._current, "gone")

    def pause_writing(self) -> None:
        """The client does not read its answers: it gets no more of them until it does."""
        self._writable = False

    def resume_writing(self) -> None:
        """It reads again."""
        self._writable = True
        self._advance()

    def data_received(self, data: bytes) -> None:
        """Some bytes came."""
        if self._deaf:
            return
        if self._idle:
            self._idle = False
            self.due = monotonic() + self._limits.header_seconds
        self._chunk = len(data)
        self._chunk_is_shared = self._in_head or self._coming is not None
        if self._chunk_is_shared:
            self._received += self._chunk
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._read_no_more()
        except httptools.HttpParserError as error:
            self._refuse(_problem_in(error))
        else:
            if self._in_head or self._coming is not None:
                self._look_at_unfinished()

    # What the parser tells.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._url = b""
        self._headers = []
        self._in_head = True
        self._received = self._chunk
        self._shared = self._chunk if self._chunk_is_shared else 0
        self._chunk_is_shared = True

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; those behind a chunked body mean nothing to us."""
        if self._in_head:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """All headers are there, and nothing of the body was looked at yet."""
        self._in_head = False
        if self._deaf:
            return
        headers = self._headers
        if self._received > self._limits.header_bytes:
            size = len(self._url) + sum(len(name) + len(value) + 4 for name, value in headers)
            if size > self._limits.header_bytes:
                raise _headers_too_large(self._limits.header_bytes)
        parser = self._parser
        is_current_version = parser.get_http_version() == "1.1"
        if is_current_version and not any(name == b"host" for name, _ in headers):
            raise ProblemError(400, "no-host", "HTTP/1.1 needs a Host header.")
        path, query = _target(self._url)
        method = parser.get_method().decode()
        self._coming = exchange = self._desk.open(method, path, query, headers, self._client)
        self._parts = []
        self._continued = False
        if self._current is None:
            self.due = exchange.began + self._limits.body_seconds
        if not is_current_version or not parser.should_keep_alive():
            exchange.last = True

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        exchange, desk = self._coming, self._desk
        if exchange is None or exchange.answer is not None:
            return
        exchange.size += len(body)
        desk.held += len(body)
        if exchange.size > self._limits.body_bytes:
            desk.refuse(exchange, too_large(self._limits.body_bytes))
        elif desk.held > desk.most_held:
            desk.telemetry.shed("bodies")
            desk.refuse(exchange, overloaded("Too many large bodies at once; try again."))
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        exchange = self._coming
        if exchange is None:
            return
        self._coming = None
        parts = self._parts
        exchange.request.body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._deaf = exchange.last
        self._pipelined.append(exchange)
        if len(self._pipelined) > MOST_PIPELINED:
            self._refuse(overloaded("Too many requests without waiting for an answer."))
        else:
            self._advance()

    # What the server and the clock tell.

    def shutdown(self) -> None:
        """The server ends: finish what is worked on, wait a moment for what is half sent."""
        if self._current is not None or self._pipelined:
            return  # the answer will be the last
        if self._coming is not None:
            self.due = min(self.due, monotonic() + HALF_SENT_SECONDS)
        else:
            self._deaf = True
            self._transport.close()

    def overdue(self) -> None:
        """Whatever was to come has not come in time."""
        if self._current is not None:
            cut = self._desk.cut(self._current, "late")
            self.due = inf if cut else monotonic() + NOT_BEGUN_SECONDS
        elif self._deaf or not self._writable:
            self._transport.abort()
        elif self._in_head or self._coming is not None:
            self._refuse(too_slow())
        elif self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._deaf = True
            self._transport.close()

    # What follows from it.

    def _turn_away(self) -> None:
        """There are as many connections as may be; this one does not stay for what it would ask."""
        self._desk.telemetry.shed("connections")
        problem = overloaded("More clients are connected than may be; try again.")
        exchange = self._desk.unreadable(problem, self._client)
        exchange.last = True
        self._send(exchange, exchange.answer or NOBODY)

    def _look_at_unfinished(self) -> None:
        """A request is not whole yet: see whether it is worth waiting for."""
        coming = self._coming
        received = self._received - self._shared
        if coming is None:
            if received > self._limits.header_bytes:
                self._refuse(_headers_too_large(self._limits.header_bytes))
            return
        if coming.answer is not None:
            self._end_with(coming)
            return
        if received > self._limits.header_bytes + CHUNKED_FACTOR * self._limits.body_bytes:
            self._refuse(too_large(self._limits.body_bytes))
            return
        if self._current is None and not self._continued:
            self._continued = True
            if any(name == b"expect" for name, _ in coming.request.headers):
                self._transport.write(CONTINUE)

    def _refuse(self, problem: ProblemError) -> None:
        """Answer what is coming with a problem, and read no more."""
        if self._deaf:
            return
        coming = self._coming
        if coming is None:
            coming = self._desk.unreadable(problem, self._client)
        else:
            self._desk.refuse(coming, problem)
        self._end_with(coming)

    def _end_with(self, exchange: Exchange) -> None:
        """Its answer is the last, and the rest of it is not read."""
        self._coming = None
        self._deaf = self._unread = exchange.last = True
        self._pipelined.append(exchange)
        self._advance()

    def _read_no_more(self) -> None:
        """A client wants to speak another protocol: it gets this answer, and its connection ends."""
        self._deaf = self._unread = True
        newest = self._pipelined[-1] if self._pipelined else self._current
        if newest is None:
            self._end()
        else:
            newest.last = True

    def _advance(self) -> None:
        """Answer what can be answered, in order, and begin to work on what cannot."""
        while self._current is None and self._pipelined and self._writable and not self._closed:
            exchange = self._pipelined.popleft()
            answer = exchange.answer or self._desk.begin(exchange)
            if answer is not None:
                self._send(exchange, answer)
                continue
            self._current = exchange
            self.due = exchange.due
            exchange.task = task = self._loop.create_task(self._work(exchange))
            self._server.tasks.add(task)
            task.add_done_callback(self._server.tasks.discard)
        if self._paused is not bool(self._pipelined) and not self._transport.is_closing():
            self._paused = not self._paused
            if self._paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    async def _work(self, exchange: Exchange) -> None:
        answer = await self._desk.answer(exchange)
        self._current = None
        self._send(exchange, answer)
        self._advance()

    def _send(self, exchange: Exchange, answer: Answer) -> None:
        if self._closed:
            self._desk.finish(exchange, answer, None)
            return
        request = exchange.request
        last = exchange.last or self._desk.readiness.draining
        whole = response(
            answer,
            request.request_id,
            self._date_line(),
            page=exchange.route.page and answer.status == OK,
            last=last,
            head=request.method == "HEAD",
        )
        self._transport.write(whole)
        self._desk.finish(exchange, answer, len(whole))
        if last:
            self._end()
        elif self._in_head or self._coming is not None:
            self.due = monotonic() + self._limits.body_seconds
        else:
            self._idle = True
            self.due = monotonic() + self._limits.idle_seconds

    def _end(self) -> None:
        """Close behind the last answer. Closing on unread bytes would take the answer back."""
        self._deaf = True
        self._drop_unanswered()
        self.due = monotonic() + LINGER_SECONDS
        if self._unread and self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _drop_unanswered(self) -> None:
        for exchange in self._pipelined:
            self._desk.finish(exchange, exchange.answer or NOBODY, None)
        self._pipelined.clear()
        if self._coming is not None:
            self._desk.finish(self._coming, self._coming.answer or NOBODY, None)
            self._coming = None

    def _date_line(self) -> bytes:
        dates = self._server.default_headers
        if dates is not self._dates:
            self._dates = dates
            self._date = b"".join(b"%b: %b\r\n" % date for date in dates)
        return self._date


def _target(url: bytes) -> tuple[str, bytes]:
    """Path, decoded, and query of a request's target."""
    if url[:1] == b"/":
        raw, _, query = url.partition(b"?")
    elif url == b"*":
        raw, query = url, b""
    else:
        parsed = httptools.parse_url(url)
        raw, query = parsed.path or b"/", parsed.query or b""
    path = raw.decode("ascii")
    return (urllib.parse.unquote(path) if "%" in path else path), query


def _problem_in(error: httptools.HttpParserError) -> ProblemError:
    """What a callback raised, or that the parser could not go on."""
    cause = error.__context__
    if isinstance(cause, ProblemError):
        return cause
    return ProblemError(400, "bad-request", "The request is not well-formed HTTP/1.1.")


def _headers_too_large(most: int) -> ProblemError:
    return ProblemError(431, "headers-too-large", f"The headers may have {most} bytes.")
