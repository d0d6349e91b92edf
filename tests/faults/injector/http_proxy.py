"""A proxy before an HTTP server that fails at one exact request: the n-th whose first line matches.

```python
with HttpProxy("127.0.0.1", port) as proxy:
    proxy.fail_at("PUT ", 3, "freeze")
    ...
    assert proxy.fired
```
"""

import socket
import threading
from typing import Literal

from tests.faults.injector.proxy import CHUNK, Proxy

__all__ = ["Failure", "HttpProxy"]

# freeze: nothing goes through any more, connections stay open. refuse: all are cut, and new ones
# refused. swallow: the server does as it is asked, and the answer is lost; once.
Failure = Literal["freeze", "refuse", "swallow"]


class HttpProxy(Proxy):
    """Forwards until the request at which it fails; `requests` are the first lines that came through."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.requests: list[str] = []
        self.fired = threading.Event()
        self._at: tuple[str, int, Failure] | None = None
        self._swallowing: set[socket.socket] = set()

    def fail_at(self, words: str, count: int, failure: Failure) -> None:
        """Fail at the `count`-th request from now whose first line has these words."""
        self.fired.clear()
        self._at = (words, count, failure)

    def mend(self) -> None:
        """Forward again."""
        self._at = None
        self.frozen = False
        if self._listener is None:
            self.listen()

    def _forward(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        while piece := source.recv(CHUNK):
            if not counted:
                self._look_at(piece, source)
            self._wait()
            if counted and target in self._swallowing:
                return
            target.sendall(piece)

    def _look_at(self, piece: bytes, client: socket.socket) -> None:
        line = piece.split(b"\r\n", 1)[0].decode("latin-1")
        if not line.endswith("HTTP/1.1"):
            return
        self.requests.append(line)
        if self._at is None or self._at[0] not in line:
            return
        words, count, failure = self._at
        self._at = (words, count - 1, failure)
        if count == 1:
            self._at = None
            self._fail(failure, client)

    def _fail(self, failure: Failure, client: socket.socket) -> None:
        """It has fired before its client can notice."""
        if failure == "freeze":
            self.frozen = True
        elif failure == "swallow":
            self._swallowing.add(client)
        self.fired.set()
        if failure == "refuse":
            self.refuse()
