"""Asks a server over and over: a closed loop of HTTP/1.1 requests on kept-alive connections.

A process of its own, on a processor of its own. Requests are bytes made beforehand, answers are looked
at as bytes: status 200, whole, and with a marker in it. It prints one JSON object: what `Load` holds.
"""

import asyncio
import gc
import itertools
import json
import os
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import cast

import numpy as np
import uvloop

__all__ = ["Asked", "Load", "ask_once"]

HOST = "127.0.0.1"
HEAD_END, LENGTH = b"\r\n\r\n", b"content-length:"
SHOWN = 300  # bytes of an answer that is none


@dataclass(frozen=True)
class Asked:
    """What is asked: a file with one JSON body per line, and what a good answer holds."""

    port: int
    path: str
    bodies: str
    marker: str


@dataclass(frozen=True)
class Load:
    """What came of it: good answers per second, latencies in ms, all requests with those to warm up.

    `busy` is the load generator's own share of its processor: near 1 it is the limit, not the server.
    """

    rate: float
    p50: float
    p99: float
    answers: int
    failures: int
    requests: int
    busy: float
    first_failure: str = ""


class _Client(asyncio.Protocol):
    """One connection: sends a request, waits for its answer, sends the next."""

    def __init__(
        self, requests: Iterator[tuple[int, bytes]], said: Callable[[int, bytes, float], None]
    ) -> None:
        self._requests = requests
        self._said = said
        self._buffer = b""
        self._at = -1
        self._began = 0.0
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's do not inherit from it
        self._send()

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        try:
            size = _answer_size(data)
            if size is None or len(data) < size:
                self._buffer = data
                return
            self._said(self._at, data, time.perf_counter() - self._began)
        except RuntimeError as error:
            self.done.set_exception(error)
            return
        self._buffer = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            reason = f"the server closed the connection: {exc}"
            self.done.set_exception(ConnectionError(reason))

    def _send(self) -> None:
        assert self._transport is not None  # noqa: S101 -- it is connected
        try:
            self._at, request = next(self._requests)
        except StopIteration:
            self.done.set_result(None)
            self._transport.close()
            return
        self._began = time.perf_counter()
        self._transport.write(request)


def measure(asked: Asked, concurrency: int, seconds: float) -> Load:
    """Ask for so many seconds, after a quarter of that to warm up."""
    requests = _requests(asked)
    marker = asked.marker.encode()
    times, failed = array("d"), [0]
    first = [b""]

    def said(_: int, answer: bytes, took: float) -> None:
        if answer.startswith(b"HTTP/1.1 200 ") and marker in answer:
            times.append(took)
            return
        failed[0] += 1
        first[0] = first[0] or answer[:SHOWN]

    _drive(asked.port, _until(requests, seconds / 4), said, concurrency)
    warmed = len(times) + failed[0]
    del times[:]
    failed[0] = 0
    gc.collect()
    gc.disable()
    began, busy = time.perf_counter(), time.process_time()
    _drive(asked.port, _until(requests, seconds), said, concurrency)
    took, busy = time.perf_counter() - began, time.process_time() - busy
    p50, p99 = np.quantile(np.array(times), [0.5, 0.99]) * 1e3 if times else (np.nan, np.nan)
    return Load(
        rate=len(times) / took,
        p50=float(p50),
        p99=float(p99),
        answers=len(times),
        failures=failed[0],
        requests=warmed + len(times) + failed[0],
        busy=busy / took,
        first_failure=first[0].decode(errors="replace"),
    )


def fetch(asked: Asked, concurrency: int, out: Path) -> None:
    """Ask each body once; the answers' bodies are written line by line, in the order of the bodies.

    Raises:
        RuntimeError: one of them is not answered with 200.
    """
    requests = _requests(asked)
    answers: list[bytes] = [b""] * len(requests)

    def said(at: int, answer: bytes, took: float) -> None:
        del took
        head, _, body = answer.partition(HEAD_END)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"body {at} was answered with {answer[:SHOWN]!r}")
        answers[at] = body.replace(b"\n", b" ")

    _drive(asked.port, iter(enumerate(requests)), said, concurrency)
    out.write_bytes(b"\n".join(answers) + b"\n")


def ask_once(port: int, path: str, body: str) -> tuple[int, str]:
    """One request, posted where it has a body: the answer's status and text; 0 where nobody listens."""
    import http.client

    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        method = "POST" if body else "GET"
        connection.request(method, path, body or None, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, repr(error)
    finally:
        connection.close()


def _drive(
    port: int,
    requests: Iterator[tuple[int, bytes]],
    said: Callable[[int, bytes, float], None],
    concurrency: int,
) -> None:
    async def all_clients() -> None:
        loop = asyncio.get_running_loop()
        clients = []
        for _ in range(concurrency):
            _, client = await loop.create_connection(lambda: _Client(requests, said), HOST, port)
            clients.append(client.done)
        await asyncio.gather(*clients)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(all_clients())


def _until(requests: Sequence[bytes], seconds: float) -> Iterator[tuple[int, bytes]]:
    """Requests in turn, until the time is over."""
    end = time.perf_counter() + seconds
    for numbered in itertools.cycle(enumerate(requests)):
        if time.perf_counter() >= end:
            return
        yield numbered


def _requests(asked: Asked) -> list[bytes]:
    bodies = Path(asked.bodies).read_bytes().splitlines()
    head = (
        f"POST {asked.path} HTTP/1.1\r\nHost: {HOST}:{asked.port}\r\n"
        "Content-Type: application/json\r\nAccept: */*\r\nContent-Length: "
    )
    return [head.encode() + str(len(body)).encode() + HEAD_END + body for body in bodies]


def _answer_size(data: bytes) -> int | None:
    """How long the answer is, head included; None while its head is not whole."""
    end = data.find(HEAD_END)
    if end < 0:
        return None
    head = data[:end].lower()
    at = head.find(LENGTH)
    if at < 0:
        raise RuntimeError(f"an answer without a length: {data[:SHOWN]!r}")
    at += len(LENGTH)
    stop = head.find(b"\r", at)
    return end + len(HEAD_END) + int(head[at:] if stop < 0 else head[at:stop])


def main() -> None:
    """Read one JSON object from standard input, and do what it says."""
    order = json.load(sys.stdin)
    os.sched_setaffinity(0, {order["core"]})
    asked = Asked(**{field.name: order[field.name] for field in fields(Asked)})
    if "out" in order:
        fetch(asked, order["concurrency"], Path(order["out"]))
        return
    print(json.dumps(asdict(measure(asked, order["concurrency"], order["seconds"]))))


if __name__ == "__main__":
    main()
