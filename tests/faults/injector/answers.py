"""A proxy before an HTTP server that answers some requests itself: the next n whose first line matches.

```python
with Answers("127.0.0.1", port) as proxy:
    proxy.answer("GET /bucket", 503, b"<Error>…</Error>", times=2)
    ...
    assert proxy.answered == 2
```
"""

import contextlib
import socket
from dataclasses import dataclass

from tests.faults.injector.http_proxy import HttpProxy
from tests.faults.injector.proxy import CHUNK

__all__ = ["Answers"]


PATIENCE = 5.0  # seconds for a client to have sent all


@dataclass
class _Answer:
    words: str
    content: bytes
    left: int


class Answers(HttpProxy):
    """Forwards what it does not answer; `answered` counts."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.answered = 0
        self._answers: list[_Answer] = []

    def answer(
        self, words: str, status: int, body: bytes = b"", *headers: str, times: int = 1_000
    ) -> None:
        """Answer the next requests whose first line has these words."""
        head = (
            f"HTTP/1.1 {status} As Told\r\nContent-Length: {len(body)}\r\n"
            "Content-Type: application/xml\r\nConnection: close\r\n"
            + "".join(f"{header}\r\n" for header in headers)
            + "\r\n"
        )
        self._answers.append(_Answer(words, head.encode() + body, times))

    def _look_at(self, piece: bytes, client: socket.socket) -> None:
        line = piece.split(b"\r\n", 1)[0].decode("latin-1")
        for one in self._answers:
            if line.endswith("HTTP/1.1") and one.words in line and one.left:
                one.left -= 1
                self.requests.append(line)
                self.answered += 1
                # To a HEAD there is no body.
                head, _, _ = one.content.partition(b"\r\n\r\n")
                whole = head + b"\r\n\r\n" if line.startswith("HEAD") else one.content
                with contextlib.suppress(OSError):
                    client.sendall(whole)
                    _read_to_the_end(client)
                raise ConnectionAbortedError
        super()._look_at(piece, client)


def _read_to_the_end(client: socket.socket) -> None:
    """What a client still sends would else take its answer back."""
    client.shutdown(socket.SHUT_WR)
    client.settimeout(PATIENCE)
    while client.recv(CHUNK):
        pass
