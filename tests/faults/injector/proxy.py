"""A TCP proxy that fails on request: cuts after n bytes, freezes, delays, refuses; and says that it did.

```python
with Proxy("127.0.0.1", port) as proxy:
    proxy.cut_after = 10_000
    ...  # use proxy.host and proxy.port
    assert proxy.cuts == 1
```
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

__all__ = ["Proxy"]

CHUNK = 1 << 14
TICK = 0.02


class Proxy:
    """Forwards connections to one server until told otherwise; settings may change at any time.

    `cut_after`: each connection is cut when the server has sent so many bytes on it, from this setting
    on. `delay`: seconds that each piece waits, either way. `frozen`: nothing goes through, connections
    stay open. `cuts` and `held`: how many connections were cut, and how many pieces waited for a thaw.
    `most`: the bytes that the server has sent on the connection where these are most.
    """

    host = "127.0.0.1"

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._listener: socket.socket | None = socket.create_server((self.host, 0))
        self.port: int = self._listener.getsockname()[1]
        self._cut_after: int | None = None
        self._setting = 0
        self.delay = 0.0
        self.frozen = False
        self.cuts = 0
        self.held = 0
        self.most = 0
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()

    @property
    def cut_after(self) -> int | None:
        """Bytes, or None for no cut."""
        return self._cut_after

    @cut_after.setter
    def cut_after(self, size: int | None) -> None:
        self._cut_after = size
        self._setting += 1

    def __enter__(self) -> Self:
        assert self._listener is not None
        self._start(self._accept, self._listener)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.frozen = False
        self.refuse()

    def refuse(self) -> None:
        """Stop listening, and cut what is connected: further connections are refused."""
        if self._listener is not None:
            # An accept that waits in another thread wakes up only so.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.cut()

    def listen(self) -> None:
        """Listen again, at the same port."""
        self._listener = socket.create_server((self.host, self.port))
        self._start(self._accept, self._listener)

    def cut(self) -> None:
        """Cut every connection."""
        with self._lock:
            for one in self._sockets:
                _shut(one)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._upstream, timeout=20)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                if self._listener is not listener:  # refused meanwhile
                    client.close()
                    server.close()
                    return
                self._sockets |= {client, server}
            self._start(self._carry, client, server)

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        """Both ways, until both have ended.

        Closed only then: the number of a closed socket may be another connection's at once, and a
        thread that still had it would read what is not its own.
        """
        there = self._start(self._pump, client, server, False)
        self._pump(server, client, True)
        there.join()
        with self._lock:
            self._sockets -= {client, server}
        client.close()
        server.close()

    def _pump(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            self._forward(source, target, counted)
        _shut(source)
        _shut(target)

    def _forward(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        setting, since, passed = self._setting, 0, 0
        while piece := source.recv(CHUNK):
            self._wait()
            if setting != self._setting:
                setting, since = self._setting, passed
            limit = self._cut_after if counted else None
            if limit is not None and passed - since + len(piece) > limit:
                target.sendall(piece[: limit - passed + since])
                self.cuts += 1
                return
            target.sendall(piece)
            passed += len(piece)
            if counted:
                self.most = max(self.most, passed)

    def _wait(self) -> None:
        if self.delay:
            time.sleep(self.delay)
        if self.frozen:
            self.held += 1
        while self.frozen:
            time.sleep(TICK)

    @staticmethod
    def _start(target: Callable[..., object], *args: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        return thread


def _shut(one: socket.socket) -> None:
    """End it both ways; whoever waits for it wakes up."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
