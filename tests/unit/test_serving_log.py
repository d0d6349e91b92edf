"""The log is JSON lines, whatever is put in, and never keeps a request waiting."""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from lodestar.serving.access_log import Log, LogHandler

NASTY = 'a\r\n{"level":"fake"}\x1b[31m\x00\x7f\u2028\x9b"\\é\ud800'


@contextmanager
def piped(waiting: int = 100_000) -> Iterator[tuple[Log, IO[bytes]]]:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as end:
        yield Log(write, waiting=waiting), end
        os.close(write)


def written(log: Log, end: IO[bytes]) -> list[dict[str, Any]]:
    log.close()
    os.set_blocking(end.fileno(), False)
    return [json.loads(line) for line in (end.read() or b"").splitlines()]


def said(log: Log, number: int = 0) -> None:
    log.request(
        f"id-{number}",
        "POST",
        "/predict",
        200,
        0.0012345,
        bytes_in=1,
        bytes_out=2,
        client="127.0.0.1",
        versions=("run",),
    )


def test_a_request_is_one_line() -> None:
    with piped() as (log, end):
        said(log)
        (line,) = written(log, end)
    assert line.pop("time").endswith("Z")
    assert line == {
        "request_id": "id-0",
        "method": "POST",
        "route": "/predict",
        "status": 200,
        "ms": 1.234,
        "bytes_in": 1,
        "bytes_out": 2,
        "client": "127.0.0.1",
        "versions": ["run"],
    }


def test_lines_come_within_a_second_without_being_asked_for() -> None:
    with piped() as (log, end):
        said(log)
        began = time.monotonic()
        assert json.loads(end.readline())["request_id"] == "id-0"
        assert time.monotonic() - began < 15.0  # on a busy machine
        log.close()


def test_nothing_in_an_event_can_begin_a_line_or_reach_the_terminal() -> None:
    with piped() as (log, end):
        try:
            raise ValueError(NASTY)
        except ValueError as error:
            log.event(NASTY, error=error, what=NASTY, other=object())
        log.close()
        os.set_blocking(end.fileno(), False)
        raw = end.read()
    assert raw.count(b"\n") == 1
    assert all(32 <= byte < 127 for byte in raw.strip())
    assert NASTY in json.loads(raw)["event"]


def test_what_libraries_log_becomes_a_line() -> None:
    with piped() as (log, end):
        logger = logging.getLogger("test_serving_log")
        logger.propagate = False
        logger.addHandler(LogHandler(log))
        logger.info("too small")
        logger.warning("%s\nhappened", "it")
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            logger.exception("failed")
        logger.handlers.clear()
        first, second = written(log, end)
    assert (first["event"], first["logger"]) == ("it\nhappened", "test_serving_log")
    assert second["level"] == "error"
    assert "ZeroDivisionError" in second["trace"]


def test_a_reader_that_stops_costs_lines_but_no_time() -> None:
    with piped(waiting=2_000) as (log, end):
        began = time.monotonic()
        for number in range(20_000):
            said(log, number)
        assert time.monotonic() - began < 30  # if it waited, it would for ever
        log.close()  # nobody reads: it gives up
        lines: list[dict[str, Any]] = []
        while len(lines) < 100:
            lines.append(json.loads(end.readline()))
        assert [line["request_id"] for line in lines] == [f"id-{n}" for n in range(100)]
        while "event" not in (line := json.loads(end.readline())):
            continue
    assert line["event"] == "lines dropped"
    assert line["lines"] > 10_000


def test_a_reader_that_has_gone_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    log = Log(write)
    said(log)
    log.close()
    said(log)
    log.close()
    os.close(write)
