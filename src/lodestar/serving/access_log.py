"""One JSON line for each request, and for whatever else happens, on stderr; never what was asked."""

import contextlib
import json
import logging
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

__all__ = ["Log", "LogHandler"]

STDERR = 2
FLUSH_SECONDS = 0.5
WAITING_LINES = 100_000
# A pipe takes so much at once: workers that share one do not write into each other's lines.
AT_ONCE = 4096
CLOSE_SECONDS = 2.0


class RequestLine(msgspec.Struct, omit_defaults=True):
    """What is kept of a request; `route` is the template, `versions` the runs that answered.

    `trace_id` is only there where requests are traced.
    """

    time: datetime
    request_id: str
    method: str
    route: str
    status: int
    ms: float
    bytes_in: int
    bytes_out: int
    client: str
    versions: Sequence[str]
    trace_id: str | None = None


class Log:
    """Takes lines at once and writes them from a thread, within half a second.

    Whoever reads the other end may stop: then `waiting` lines wait, more are dropped and counted, and
    no request waits for its line. `close` writes what is left.
    """

    def __init__(self, descriptor: int = STDERR, *, waiting: int = WAITING_LINES) -> None:
        self._descriptor = descriptor
        self._waiting = waiting
        self._lines: deque[bytes] = deque()
        self._dropped = 0
        self._closing = threading.Event()
        self._encode = msgspec.json.Encoder().encode
        self._thread = threading.Thread(target=self._write_on, name="access-log", daemon=True)
        self._thread.start()

    def request(  # noqa: PLR0913 -- a line's columns, in its order
        self,
        request_id: str,
        method: str,
        route: str,
        status: int,
        seconds: float,
        *,
        bytes_in: int,
        bytes_out: int,
        client: str,
        versions: Sequence[str],
        trace_id: str | None = None,
    ) -> None:
        """Say that a request was answered."""
        line = RequestLine(
            datetime.now(UTC),
            request_id,
            method,
            route,
            status,
            round(seconds * 1000, 3),
            bytes_in,
            bytes_out,
            client,
            versions,
            trace_id,
        )
        self._put(self._encode(line))

    def event(
        self,
        event: str,
        *,
        level: str = "warning",
        error: BaseException | None = None,
        **fields: object,
    ) -> None:
        """Say anything else. All but ASCII is escaped: texts may come from anywhere."""
        said = {"time": datetime.now(UTC).isoformat(), "level": level, "event": event, **fields}
        if error is not None:
            said["trace"] = "".join(traceback.format_exception(error))
        self._put(json.dumps(said, default=str).encode())

    def close(self) -> None:
        """Write what is left, unless nobody reads it. What comes later is written at the next close."""
        self._closing.set()
        self._thread.join(CLOSE_SECONDS)
        if not self._thread.is_alive():
            with contextlib.suppress(OSError):
                self._flush()

    def _put(self, line: bytes) -> None:
        if len(self._lines) < self._waiting:
            self._lines.append(line)
        else:
            self._dropped += 1

    def _write_on(self) -> None:
        ending = False
        while not ending:
            ending = self._closing.wait(FLUSH_SECONDS)
            try:
                self._flush()
            except OSError:  # nobody reads it any more
                return

    def _flush(self) -> None:
        block = bytearray()
        while self._lines:
            line = self._lines.popleft()
            if block and len(block) + len(line) >= AT_ONCE:
                self._write(block)
                block.clear()
            block += line
            block += b"\n"
        if block:
            self._write(block)
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self.event("lines dropped", lines=dropped)
            self._flush()

    def _write(self, block: bytearray) -> None:
        rest = memoryview(block)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                time.sleep(FLUSH_SECONDS / 10)


class LogHandler(logging.Handler):
    """Brings what libraries log into the same lines."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        error = record.exc_info[1] if record.exc_info else None
        self._log.event(
            record.getMessage().strip(),
            level=record.levelname.lower(),
            error=error,
            logger=record.name,
        )
