"""A few threads for blocking calls that nobody has to wait for when they are late."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["DaemonThreads"]

T = TypeVar("T")


class DaemonThreads:
    """At most `size` calls at a time; a call that hangs keeps no process from ending.

    The standard library's pool waits for its threads when Python ends, however long that takes.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._waiting: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._started = 0

    def submit(self, call: Callable[[], T]) -> "Future[T]":
        """Have it called by a thread; one that is cancelled before its turn is not called."""
        future: Future[T] = Future()
        self._waiting.put((future, call))
        if not self._idle.acquire(blocking=False):
            self._start()
        return future

    def end(self) -> None:
        """Let each thread end after what it does now and what waits already."""
        with self._lock:
            for _ in range(self._started):
                self._waiting.put(None)

    def _start(self) -> None:
        with self._lock:
            if self._started == self._size:
                return
            self._started += 1
            name = f"{self._name}-{self._started}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            future, call = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # noqa: BLE001 -- it is raised where the result is awaited
                    future.set_exception(error)
            del item, future, call  # which may hold rows
            self._idle.release()
