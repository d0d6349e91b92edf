"""Reads ahead and writes behind: while one batch is computed, the next is read and the last written."""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["ahead", "behind"]

T = TypeVar("T")
DEPTH = 2


@contextmanager
def ahead(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """Iterate in a thread of its own, at most two items ahead; its errors are raised here."""
    waiting: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(maxsize=DEPTH)
    stopped = threading.Event()

    def put(kind: str, value: T | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                waiting.put((kind, value), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def run() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:  # noqa: BLE001 -- carried to the reading thread and raised there
            put("error", error)

    def drain() -> Iterator[T]:
        while True:
            kind, value = waiting.get()
            if kind == "end":
                return
            if kind == "error":
                raise value  # type: ignore[misc] -- an error by its kind
            yield value  # type: ignore[misc] -- an item by its kind

    thread = threading.Thread(target=run, name="read-ahead", daemon=True)
    thread.start()
    try:
        yield drain()
    finally:
        stopped.set()
        thread.join()


@contextmanager
def behind(write: Callable[[T], None]) -> Iterator[Callable[[T], None]]:
    """Write in a thread of its own, one item at a time; an error is raised at the next call or end."""
    with ThreadPoolExecutor(1, thread_name_prefix="write-behind") as executor:
        last: list[Future[None]] = []

        def submit(item: T) -> None:
            if last:
                last.pop().result()
            last.append(executor.submit(write, item))

        yield submit
        if last:
            last.pop().result()
