"""Asks DynamoDB within a deadline: what it leaves undone, throttles or breaks off is asked for again.

boto3's own timeouts are minutes, and count from one piece of an answer to the next; so every call is
made by a thread that is given up when it is late.
"""

import asyncio
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from itertools import count
from typing import Any, TypeVar

from lodestar.adapters.dynamodb.client import PARALLEL, OpenedClient, open_client
from lodestar.adapters.dynamodb.errors import (
    NO_DYNAMODB,
    is_broken_off,
    is_throttled,
    their_errors,
    translated,
)
from lodestar.adapters.threads.daemon import DaemonThreads
from lodestar.errors import ExternalError
from lodestar.settings.dynamodb import DynamoDBStore

__all__ = ["DynamoDBCalls", "Item", "Requests"]

T = TypeVar("T")
# An item's attributes, as DynamoDB's protocol has them: {"age": {"N": "34"}}.
Item = Mapping[str, Mapping[str, Any]]
# Per table what is asked of it by one batch.
Requests = Mapping[str, Any]
# Seconds before something is tried again: doubled each time, and by chance less.
SHORTEST, LONGEST = 0.025, 1.0


class DynamoDBCalls:
    """One client and its threads, for as many callers as like; both are made when first needed."""

    def __init__(self, store: DynamoDBStore) -> None:
        self.timeout = store.timeout
        self._store = store
        self._lock = threading.Lock()
        self._opened: OpenedClient | None = None
        self._threads: DaemonThreads | None = None
        self._end: weakref.finalize[..., DynamoDBCalls] | None = None
        self._process = os.getpid()

    @property
    def opened(self) -> OpenedClient:
        """The client; a forked process makes its own, as connections have one owner."""
        with self._lock:
            if self._opened is None or self._process != os.getpid():
                self._opened, self._threads = open_client(self._store), None
                self._process = os.getpid()
            return self._opened

    def ask(self, operation: str, request: Mapping[str, Any], ends: float) -> dict[str, Any]:
        """Call once; again where it is throttled, until `ends` (`time.monotonic`), or was broken off.

        Raises:
            ExternalError: it is unreachable, late or refuses.
        """
        opened = self.opened
        call = getattr(opened.client, operation)
        broken = False
        for pause in _pauses():
            try:
                answer: dict[str, Any] = call(**request)
            except their_errors() as error:
                ours = translated(error, opened, _name_of(operation), request)
                again = time.monotonic() + pause < ends
                if is_throttled(error) and again:
                    time.sleep(pause)
                elif is_broken_off(error) and again and not broken:
                    broken = True  # most likely it lay idle for too long
                else:
                    raise ours from (error if _harmless(error, opened.secrets) else None)
            else:
                if not answer.get("ResponseMetadata", {}).get("RequestId"):
                    raise ExternalError(NO_DYNAMODB.format(place=opened.place))
                return answer
        raise AssertionError("there is always another pause")

    def within(self, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Call once, within the timeout."""
        ends = time.monotonic() + self.timeout
        (answer,) = self.all([partial(self.ask, operation, request, ends)], self.timeout)
        return answer

    def items(self, requests: Requests, ends: float) -> list[tuple[str, Item]]:
        """All items that there are of those asked for, with their tables."""
        found: list[tuple[str, Item]] = []
        for pause in _pauses():
            answer = self.ask("batch_get_item", {"RequestItems": requests}, ends)
            if "Responses" not in answer:
                raise ExternalError(NO_DYNAMODB.format(place=self.opened.place))
            for table, items in answer["Responses"].items():
                found += [(table, item) for item in items]
            requests = answer.get("UnprocessedKeys") or {}
            if not requests:
                return found
            self._wait(pause, ends, "BatchGetItem", requests)
        raise AssertionError("there is always another pause")

    def put(self, requests: Requests, ends: float) -> None:
        """Write up to 25 items, whatever is there."""
        for pause in _pauses():
            answer = self.ask("batch_write_item", {"RequestItems": requests}, ends)
            requests = answer.get("UnprocessedItems") or {}
            if not requests:
                return
            self._wait(pause, ends, "BatchWriteItem", requests)

    def all(
        self, calls: Sequence[Callable[[], T]], seconds: float, *, each: bool = False
    ) -> list[T]:
        """The results of several calls, a few at a time: all within `seconds`, or `each` after another.

        Raises:
            ExternalError: one is late or fails; those that were not begun are not made any more.
        """
        futures, threads = self._submitted(calls)
        waiting: set[Future[T]] = set(futures)
        ends = time.monotonic() + seconds
        try:
            while waiting:
                left = seconds if each else max(0.0, ends - time.monotonic())
                done, waiting = wait(waiting, left, FIRST_COMPLETED)
                if not done:
                    raise self.late(threads, seconds)
                for future in done:
                    future.result()
        finally:
            for future in waiting:
                future.cancel()
        return [future.result() for future in futures]

    async def all_from_loop(self, calls: Sequence[Callable[[], T]], seconds: float) -> list[T]:
        """The same for an event loop, and all of them within `seconds`."""
        futures, threads = self._submitted(calls)
        waiting = [asyncio.wrap_future(future) for future in futures]
        try:
            _, pending = await asyncio.wait(waiting, timeout=seconds)
            if pending:
                raise self.late(threads, seconds)
            errors = [error for one in waiting if (error := one.exception()) is not None]
            if errors:
                raise errors[0]
            return [one.result() for one in waiting]
        finally:
            for one in waiting:
                one.cancel()

    def late(self, threads: DaemonThreads, seconds: float) -> ExternalError:
        """The error of an answer that did not come; its thread is left to itself, others take over."""
        with self._lock:
            if self._threads is threads:
                self._let_go()
        return ExternalError(
            f"{self.opened.place} did not answer within {seconds:g} s",
            hint="is it overloaded, stopped or behind a firewall?",
        )

    def close(self) -> None:
        """Close idle connections and end the threads; both are made again when something is asked."""
        with self._lock:
            opened, self._opened = self._opened, None
            self._let_go()
        if opened is not None:
            opened.client.close()

    def _submitted(
        self, calls: Sequence[Callable[[], T]]
    ) -> "tuple[list[Future[T]], DaemonThreads]":
        self.opened  # noqa: B018 -- importing boto3 and finding credentials counts for no deadline
        with self._lock:
            threads = self._threads
            if threads is None:
                threads = self._threads = DaemonThreads(PARALLEL, "dynamodb")
                self._end = weakref.finalize(self, threads.end)
            # Before anybody may end them: what comes after that is not done.
            return [threads.submit(call) for call in calls], threads

    def _let_go(self) -> None:
        """Let the threads end when they have done what waits already."""
        self._threads = None
        if self._end is not None:
            self._end()  # at most once, also where nobody holds this object any more

    def _wait(self, pause: float, ends: float, operation: str, requests: Requests) -> None:
        """Before what was left undone is asked for again."""
        if time.monotonic() + pause >= ends:
            raise ExternalError(
                f"{self.opened.place} throttles {operation} of {', '.join(sorted(requests))}: it "
                "leaves a part of it undone",
                hint="give the tables more capacity, or ask less at once",
            )
        time.sleep(pause)


def _pauses() -> Iterator[float]:
    """Half of it by chance, so that those who were refused together do not come back together."""
    for attempt in count():
        longest = min(LONGEST, SHORTEST * 2 ** min(attempt, 10))
        yield longest / 2 + random.uniform(0, longest / 2)  # noqa: S311 -- no secret


def _harmless(error: BaseException, secrets: Sequence[str]) -> bool:
    """Whether their error may stand below ours: what a server says may repeat what was signed."""
    said = f"{error} {error!r}"
    return not any(secret in said for secret in secrets)


def _name_of(operation: str) -> str:
    """DynamoDB's name of a method of boto3: `put_item` is PutItem."""
    return "".join(word.capitalize() for word in operation.split("_"))
