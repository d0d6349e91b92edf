"""Servers of the tests' own, which answer from a thread while a block lasts."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["answering", "shut"]


@contextmanager
def answering(server: socketserver.BaseServer) -> Iterator[None]:
    """Serve until the block ends; then the socket is closed and the thread gone."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def shut(one: socket.socket) -> None:
    """End a connection that other threads are using: they see its end, and close it.

    Were it closed under them, they could still read or write at its number, which may be another
    connection's by then: OpenSSL answers an end of file with an alert. TLS is not taken off, as
    `SSLSocket.shutdown` would.
    """
    with suppress(OSError):
        socket.socket.shutdown(one, socket.SHUT_RDWR)
