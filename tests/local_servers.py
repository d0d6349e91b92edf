"""Servers of the tests' own, which answer from a thread while a block lasts."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["answering"]


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
