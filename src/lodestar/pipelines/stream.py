"""Reads ahead and writes behind: while one batch is computed, the next is read and the last written."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["ahead", "behind"]

T = TypeVar("T")


@contextmanager
def ahead(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """Iterate in a thread of its own, one item ahead; its errors are raised here.

    One is enough, since reading is quicker than what is done with the rows; each more is memory.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as executor:

        def drain() -> Iterator[T]:
            coming = executor.submit(next, items, None)
            while (item := coming.result()) is not None:
                coming = executor.submit(next, items, None)
                yield item

        yield drain()


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
