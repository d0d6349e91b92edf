"""The bad line to a server, by which faults are injected, spoils no connection but its own."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.redis_places import Certificate, line_to

from lodestar.infra.endpoint import HOST

WITHIN = 30.0


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that says everything again, on one connection."""

    def answer() -> None:
        near, _ = listener.accept()
        with near:
            while data := near.recv(1024):
                near.sendall(data)

    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(WITHIN)


@contextmanager
def connected(port: int, certificate: Certificate) -> Iterator[None]:
    trusted = ssl.create_default_context(cafile=certificate.certificate)
    with (
        socket.create_connection((HOST, port), WITHIN) as raw,
        trusted.wrap_socket(raw, server_hostname=HOST) as line,
    ):
        line.sendall(b"x")
        assert line.recv(1) == b"x"
        yield


def test_a_closed_line_leaves_no_thread_behind(echo: int, tmp_path: Path) -> None:
    made = Certificate.made(tmp_path)
    before = set(threading.enumerate())
    with line_to(echo, tls=made) as line, connected(line.port, made):
        during = set(threading.enumerate()) - before
        line.close()
        assert not during & set(threading.enumerate())


@dataclass(frozen=True)
class Slow(Certificate):
    """The thread that reads a connection takes its time to see its end; `numbers`: the socket's then."""

    dropped: threading.Event = field(default_factory=threading.Event)
    numbers: list[int] = field(default_factory=list)

    def server(self) -> ssl.SSLContext:
        slow = self

        class Socket(ssl.SSLSocket):
            def recv(self, *args: Any) -> bytes:  # noqa: ANN401 -- as the socket's own
                data = b""
                try:
                    data = super().recv(*args)
                finally:
                    if not data:
                        slow.dropped.wait(WITHIN)
                        slow.numbers.append(self.fileno())
                return data

        context = super().server()
        context.sslsocket_class = Socket
        return context


def test_a_socket_of_a_dropped_line_keeps_its_number_while_a_thread_may_write_to_it(
    echo: int, tmp_path: Path
) -> None:
    made = Certificate.made(tmp_path)
    slow = Slow(made.certificate, made.key)
    with line_to(echo, tls=slow) as line, connected(line.port, made):
        line.drop()
        slow.dropped.set()
        line.close()
    (number,) = slow.numbers
    assert number != -1
