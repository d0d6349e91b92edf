"""Connections to one Redis server whose every wait ends at the calling thread's deadline.

The driver's own timeouts count from one packet to the next, and its retries multiply them.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import redis
from redis.connection import Connection, SSLConnection

__all__ = ["CLOCK", "Node", "Timed", "TimedTLS", "Words", "converse", "within"]

Words = tuple[str | bytes | int, ...]


class _Clock(threading.local):
    deadline: float | None = None

    def left(self, otherwise: float) -> float:
        if self.deadline is None:
            return otherwise
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


CLOCK = _Clock()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Everything that this thread sends or reads meanwhile ends by then."""
    before, ends = CLOCK.deadline, time.monotonic() + seconds
    CLOCK.deadline = ends if before is None else min(before, ends)
    try:
        yield
    finally:
        CLOCK.deadline = before


class _Socket:
    """A socket whose every wait ends at the thread's deadline."""

    def __init__(self, sock: Any, otherwise: float) -> None:  # noqa: ANN401 -- plain or TLS
        self._sock = sock
        self._otherwise = otherwise
        self._waits = True

    def settimeout(self, value: float | None) -> None:
        self._waits = value != 0

    def recv_into(self, *args: Any) -> int:  # noqa: ANN401 -- as the socket's own
        self._sock.settimeout(self._left())
        return int(self._sock.recv_into(*args))

    def recv(self, *args: Any) -> bytes:  # noqa: ANN401 -- as the socket's own
        self._sock.settimeout(self._left())
        return bytes(self._sock.recv(*args))

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(CLOCK.left(self._otherwise))
        self._sock.sendall(data)

    def shutdown(self, how: int) -> None:
        self._sock.shutdown(how)

    def close(self) -> None:
        self._sock.close()

    def _left(self) -> float:
        return CLOCK.left(self._otherwise) if self._waits else 0.0


class _Connection(Protocol):
    """What we use of the driver's connections, most of which is not annotated there."""

    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def pack_commands(self, commands: Sequence[Words]) -> Any: ...  # noqa: ANN401 -- the driver's
    def send_packed_command(self, command: Any) -> None: ...  # noqa: ANN401 -- the driver's
    def read_response(self, *, disable_decoding: bool) -> Any: ...  # noqa: ANN401 -- whatever Redis says


class Timed(Connection):
    """A plain connection."""

    def _connect(self) -> _Socket:
        otherwise = float(self.socket_timeout or 0)
        self.socket_connect_timeout = CLOCK.left(otherwise)
        return _Socket(super()._connect(), otherwise)  # type: ignore[no-untyped-call]  # not annotated there


class TimedTLS(SSLConnection):
    """A connection over TLS."""

    def _connect(self) -> _Socket:
        otherwise = float(self.socket_timeout or 0)
        self.socket_connect_timeout = self.socket_timeout = CLOCK.left(otherwise)
        try:
            return _Socket(super()._connect(), otherwise)  # type: ignore[no-untyped-call]  # not annotated there
        finally:
            self.socket_timeout = otherwise


class Node:
    """One server, and the connections to it that nobody is using."""

    def __init__(self, make: Callable[[], _Connection]) -> None:
        self._make = make
        self._idle: deque[_Connection] = deque()
        self._owner = os.getpid()

    def take(self) -> tuple[_Connection, bool]:
        """A connection, and whether it is a new one."""
        if self._owner != os.getpid():  # a forked process must not talk on its parent's sockets
            self._idle, self._owner = deque(), os.getpid()
        try:
            return self._idle.pop(), False
        except IndexError:
            connection = self._make()
            connection.connect()
            return connection, True

    def give(self, connection: _Connection) -> None:
        """Take back a connection whose answers were all read."""
        self._idle.append(connection)

    def drain(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().disconnect()


def converse(asked: Sequence[tuple[Node, Sequence[Words]]]) -> list[list[Any]]:
    """Send everything to every server, then read every answer; an error of Redis is an answer.

    A server that was started again has closed idle connections: then once more, over new ones.
    """
    new: list[bool] = []
    try:
        return _once(asked, new)
    except redis.ConnectionError:
        if all(new):
            raise
    for node, _ in asked:
        node.drain()
    return _once(asked, [])


def _once(asked: Sequence[tuple[Node, Sequence[Words]]], new: list[bool]) -> list[list[Any]]:
    taken: list[_Connection] = []
    try:
        for node, commands in asked:
            connection, is_new = node.take()
            taken.append(connection)
            new.append(is_new)
            packed = connection.pack_commands(commands)
            connection.send_packed_command(packed)
        answers = [
            [_answer(connection) for _ in commands]
            for connection, (_, commands) in zip(taken, asked, strict=True)
        ]
    except BaseException:
        for connection in taken:
            connection.disconnect()
        raise
    for connection, (node, _) in zip(taken, asked, strict=True):
        node.give(connection)
    return answers


def _answer(connection: _Connection) -> Any:  # noqa: ANN401 -- whatever Redis says
    try:
        return connection.read_response(disable_decoding=True)
    except redis.ResponseError as error:
        return error
