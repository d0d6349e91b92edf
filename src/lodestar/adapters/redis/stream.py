"""Talks to one Redis from an event loop: many questions in flight on one connection, answered in order.

A question has one deadline, connecting, TLS, AUTH and SELECT included. Whoever asks may be cancelled:
the answer to it is still awaited in its place, and thrown away, so that nobody gets another's. When a
deadline passes, the connection is dropped with all that wait on it, and the next question opens a new
one. Nothing is repeated but what met a connection that broke off and was not just opened: once.
"""

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass, field
from typing import Any, cast

import hiredis
import redis
from redis.connection import DefaultParser
from redis.exceptions import InvalidResponse

from lodestar.adapters.redis.connection import RedisAddress, RedisConnection
from lodestar.adapters.redis.wire import said, shown

__all__ = ["RedisStream"]

NOT_YET = object()


class RedisStream:
    """One server, spoken to over one connection that is opened when it is needed."""

    def __init__(self, connection: RedisConnection) -> None:
        self._address = connection.address()
        self._timeout = connection.timeout
        self._ca_file = connection.ca_file
        self._tls: ssl.SSLContext | None = None
        self._conversation: _Conversation | None = None
        self._opening: asyncio.Task[_Conversation] | None = None
        self._closed = False

    async def ask(self, packed: bytes, count: int) -> list[Any]:
        """Send `count` packed commands; their answers, in order.

        Raises:
            ExternalError: no answer in time, or Redis refuses one of the commands.
        """
        if not count:
            return []
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        try:
            answers = await self._answers(loop, packed, count, deadline)
            for answer in answers:
                if isinstance(answer, redis.RedisError):
                    raise answer
        except (redis.RedisError, TimeoutError) as error:
            raise said(error, self._address, self._timeout) from shown(error, self._address)
        return answers

    async def close(self) -> None:
        """Close for good; those that still wait get an error."""
        self._closed = True
        opening, self._opening = self._opening, None
        if opening is not None and opening.get_loop() is asyncio.get_running_loop():
            opening.cancel()
            await asyncio.wait((opening,))
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            conversation.end(redis.ConnectionError("closed"))

    async def _answers(
        self, loop: asyncio.AbstractEventLoop, packed: bytes, count: int, deadline: float
    ) -> list[Any]:
        conversation = self._conversation
        if conversation is not None and conversation.goes_on(loop):
            try:
                return await conversation.ask(packed, count, deadline)
            except redis.ConnectionError:
                pass  # the server had closed it, or broke off: once more, over a new one
        conversation = await self._opened(loop, deadline)
        return await conversation.ask(packed, count, deadline)

    async def _opened(self, loop: asyncio.AbstractEventLoop, deadline: float) -> "_Conversation":
        """Open a connection, one for all that wait for one; who goes away does not end the attempt."""
        if self._closed:
            raise redis.ConnectionError("closed")
        current = self._conversation
        if current is not None and current.goes_on(loop):
            return current
        opening = self._opening
        if opening is None or opening.done() or opening.get_loop() is not loop:
            opening = self._opening = loop.create_task(self._open(loop, deadline))
            opening.add_done_callback(_noticed)
        await asyncio.wait((opening,), timeout=max(0.0, deadline - loop.time()))
        if not opening.done():
            raise TimeoutError
        if opening.cancelled():
            raise redis.ConnectionError("closed")
        return opening.result()

    async def _open(self, loop: asyncio.AbstractEventLoop, deadline: float) -> "_Conversation":
        host, port = self._address.nodes[0]
        login = _login(self._address)
        try:
            async with asyncio.timeout_at(deadline):
                _, conversation = await loop.create_connection(
                    lambda: _Conversation(loop), host, port, ssl=self._context()
                )
                try:
                    await conversation.greet(login, deadline)
                except BaseException:
                    conversation.end(redis.ConnectionError("no login"))
                    raise
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            raise redis.ConnectionError(type(error).__name__) from error
        self._conversation = conversation
        return conversation

    def _context(self) -> ssl.SSLContext | None:
        if self._address.tls and self._tls is None:
            self._tls = ssl.create_default_context(cafile=self._ca_file)
        return self._tls


def _login(address: RedisAddress) -> list[tuple[str | int, ...]]:
    words: list[tuple[str | int, ...]] = []
    if address.password is not None:
        user = (address.user,) if address.user else ()
        words.append(("AUTH", *user, address.password.get_secret_value()))
    if address.database:
        words.append(("SELECT", address.database))
    return words


def _noticed(opening: "asyncio.Task[_Conversation]") -> None:
    """Take note of how it ended, although those that asked for it may have gone."""
    if not opening.cancelled():
        opening.exception()


@dataclass(slots=True)
class _Question:
    count: int
    deadline: float
    answered: "asyncio.Future[list[Any]]"
    answers: list[Any] = field(default_factory=list)


class _Conversation(asyncio.Protocol):
    """One connection, and the questions that wait for their answers in the order they were asked."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=DefaultParser.parse_error,
            notEnoughData=NOT_YET,
        )
        self._waiting: deque[_Question] = deque()
        self._transport: asyncio.Transport | None = None
        self._ended: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None

    def goes_on(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether something can still be asked, from this loop."""
        transport = self._transport
        if self._ended is not None or self._loop is not loop or transport is None:
            return False
        return not transport.is_closing()

    def ask(self, packed: bytes, count: int, deadline: float) -> "asyncio.Future[list[Any]]":
        """Send commands; the future has as many answers."""
        answered: asyncio.Future[list[Any]] = self._loop.create_future()
        if self._ended is not None or self._transport is None:
            answered.set_exception(self._ended or redis.ConnectionError("never opened"))
            return answered
        self._waiting.append(_Question(count, deadline, answered))
        self._transport.write(packed)
        timer = self._timer
        if timer is None or deadline < timer.when():
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(deadline, self._look)
        return answered

    async def greet(self, login: list[tuple[str | int, ...]], deadline: float) -> None:
        """Say who we are; an error of Redis is raised."""
        if login:
            packed = b"".join([hiredis.pack_command(words) for words in login])  # type: ignore[arg-type]  # its stub says a tuple of one
            for answer in await self.ask(packed, len(login), deadline):
                if isinstance(answer, redis.RedisError):
                    raise answer

    def end(self, reason: Exception) -> None:
        """Close at once; whoever waits gets the reason."""
        if self._ended is not None:
            return
        self._ended = reason
        if self._loop.is_closed():
            return
        if self._transport is not None:
            self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, deque()
        for question in waiting:
            if not question.answered.done():
                question.answered.set_exception(reason)
                question.answered.exception()  # who asked may go away before it looks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio calls it."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio calls it, also after an orderly end."""
        del exc
        self.end(redis.ConnectionError("broke off"))

    def data_received(self, data: bytes) -> None:
        """As asyncio calls it."""
        reader, waiting = self._reader, self._waiting
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not NOT_YET:
                if not waiting:
                    raise InvalidResponse("an answer to nothing that was asked")
                question = waiting[0]
                question.answers.append(answer)
                if len(question.answers) == question.count:
                    waiting.popleft()
                    if not question.answered.done():
                        question.answered.set_result(question.answers)
        except InvalidResponse as error:
            self.end(error)

    def _look(self) -> None:
        """Give up if an answer is late."""
        self._timer = None
        if not self._waiting:
            return
        left = min(question.deadline for question in self._waiting) - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self.end(TimeoutError())
