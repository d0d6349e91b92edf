"""The test application served by a process of its own, and raw lines to it."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

__all__ = ["DEADLINE", "Line", "Served", "head", "served", "until"]

ROOT = Path(__file__).resolve().parents[1]
DEADLINE = 60.0
Found = TypeVar("Found")
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@dataclass
class Served:
    """A server that runs."""

    process: "subprocess.Popen[str]"
    errors: Path
    address: str = ""

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def client(self, **options: Any) -> httpx.Client:  # noqa: ANN401 -- httpx's own options
        # To load certificates would take most of a test's time.
        return httpx.Client(base_url=self.address, timeout=DEADLINE, verify=False, **options)  # noqa: S501 -- plain HTTP

    def post(self, body: object, **options: Any) -> httpx.Response:  # noqa: ANN401 -- as above
        with self.client() as client:
            return client.post("/predict", json=body, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 -- as above
        with self.client() as client:
            return client.get(path, **options)

    def metric(self, name: str) -> float:
        """The value of a line of /metrics, given up to its space; 0 where there is none."""
        for line in self.get("/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    @contextmanager
    def line(self, sent: bytes = b"") -> "Iterator[Line]":
        """A connection of our own, and what it says first."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as raw:
            line = Line(raw)
            line.say(sent)
            yield line

    def says(self) -> str:
        """All that is on stderr, read by a descriptor of our own: its position is not the server's."""
        return self.errors.read_text("utf-8")

    def log(self) -> list[dict[str, Any]]:
        """The log, every line of which is one JSON object; what is half written is not read yet."""
        return [json.loads(line) for line in self.says().rpartition("\n")[0].splitlines()]

    def logged(self, **wanted: object) -> dict[str, Any]:
        """Wait for the line with these values."""
        return until(
            lambda: next(
                (line for line in self.log() if wanted.items() <= line.items()),
                None,
            )
        )

    def end(self, by: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Signal it; exit code, and how long it took."""
        began = time.monotonic()
        self.process.send_signal(by)
        return self.process.wait(DEADLINE), time.monotonic() - began


class Line:
    """A socket, spoken to byte by byte."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self.heard = b""

    def say(self, sent: bytes) -> None:
        """Send; a server that has closed already is no error."""
        try:
            self._raw.sendall(sent)
        except (BrokenPipeError, ConnectionResetError):
            return

    def hear(self, size: int = 65536) -> bytes:
        """Whatever comes next; nothing once the server has closed."""
        try:
            return self._raw.recv(size)
        except ConnectionResetError:
            return b""

    def timeout(self, seconds: float) -> None:
        """How long to wait for anything."""
        self._raw.settimeout(seconds)

    def has_ended(self) -> bool:
        """Whether the server has closed; what it says meanwhile is kept in `heard`."""
        try:
            more = self.hear()
        except TimeoutError:
            return False
        self.heard += more
        return not more

    def end_sending(self) -> None:
        """Say no more, and listen on."""
        with contextlib.suppress(OSError):
            self._raw.shutdown(socket.SHUT_WR)

    def response(self) -> tuple[int, bytes]:
        """One whole response: its status, and all of its bytes."""
        found = b""
        while b"\r\n\r\n" not in found:
            found += self._more()
        heads, _, body = found.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", heads)
        while length and len(body) < int(length[1]):
            body += self._more()
        status = STATUS.match(heads)
        assert status, found
        return int(status[1]), heads + b"\r\n\r\n" + body

    def rest(self) -> bytes:
        """All until the server closes, which it must within the deadline."""
        found = b""
        while more := self.hear():
            found += more
        return found

    def statuses(self) -> list[int]:
        """The statuses of all responses until the server closes."""
        return [int(status) for status in STATUS.findall(self.rest())]

    def _more(self) -> bytes:
        more = self.hear(1)
        assert more, "the server closed the connection"
        return more


def head(
    method: str = "POST", path: str = "/predict", *lines: str, length: int | None = None
) -> bytes:
    """A request's head, with a JSON body's headers if it has a length."""
    body = () if length is None else ("Content-Type: application/json", f"Content-Length: {length}")
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: x", *lines, *body, "", "")).encode()


@contextmanager
def served(
    settings: Mapping[str, object] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    waits: bool = True,
    **limits: float,
) -> Iterator[Served]:
    """Serve with these settings and limits; `waits` until it has said its address."""
    wanted = {"port": 0, **(settings or {}), "limits": limits}
    with tempfile.NamedTemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.serving_app", json.dumps(wanted)],
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdout is not None
        found = Served(process, Path(errors.name))
        try:
            if waits:
                found.address = process.stdout.readline().strip()
                assert found.address, found.says()
            yield found
        finally:
            process.kill()
            process.wait(DEADLINE)
            process.stdout.close()


def until(look: Callable[[], Found | None]) -> Found:
    """Look until there is something, within the deadline."""
    end = time.monotonic() + DEADLINE
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, "not found in time"
        time.sleep(0.02)
