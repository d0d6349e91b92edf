"""Reading ahead and writing behind: nothing lost, nothing reordered, no error swallowed, no hang."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from lodestar.pipelines.stream import ahead, behind

pytestmark = pytest.mark.timeout(20)


def failing(after: int) -> Iterator[int]:
    yield from range(after)
    raise OSError("the disk is gone")


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()} - {"MainThread"}


def test_items_come_in_order_and_completely() -> None:
    with ahead(iter(range(1_000))) as items:
        assert list(items) == list(range(1_000))


def test_no_items_end_at_once() -> None:
    with ahead(iter(())) as items:
        assert list(items) == []


def test_an_error_of_the_reader_arrives_after_the_items_before_it() -> None:
    with ahead(failing(5)) as items:
        assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(OSError, match="the disk is gone"):
            next(items)


def test_the_reader_is_only_a_few_items_ahead() -> None:
    taken = []

    def counted() -> Iterator[int]:
        for item in range(1_000):
            taken.append(item)
            yield item

    with ahead(counted()) as items:
        next(items)
        time.sleep(0.3)
        assert len(taken) <= 5


def test_reading_goes_on_while_the_consumer_works() -> None:
    went_on = threading.Event()

    def numbers() -> Iterator[int]:
        yield 0
        went_on.set()
        yield 1

    with ahead(numbers()) as items:
        assert next(items) == 0
        assert went_on.wait(10)
        assert list(items) == [1]


def test_leaving_early_stops_the_reader_and_does_not_hang() -> None:
    before = threads()
    with ahead(iter(range(1_000_000))) as items:
        assert next(items) == 0
    assert threads() == before


def test_an_error_of_the_consumer_stops_the_reader_and_is_raised_as_it_is() -> None:
    before = threads()
    with pytest.raises(ZeroDivisionError):
        _read_and_fail()
    assert threads() == before


def test_writes_are_done_in_order_before_the_end() -> None:
    written: list[int] = []

    def write(item: int) -> None:
        time.sleep(0.001)
        written.append(item)

    with behind(write) as submit:
        for item in range(100):
            submit(item)
    assert written == list(range(100))


def test_writing_goes_on_while_the_producer_works() -> None:
    written, produced = threading.Event(), threading.Event()
    seen: list[bool] = []

    def write(item: int) -> None:
        seen.append(produced.wait(10))
        written.set()

    with behind(write) as submit:
        submit(0)
        produced.set()
        assert written.wait(10)
    assert seen == [True]


@pytest.mark.parametrize("fails_at", [0, 3, 9])
def test_an_error_of_the_writer_is_raised_and_nothing_is_written_after_it(fails_at: int) -> None:
    written: list[int] = []

    def write(item: int) -> None:
        if item == fails_at:
            raise OSError("no space left")
        written.append(item)

    with pytest.raises(OSError, match="no space left"):
        _write_ten(write)
    assert written == list(range(fails_at))


def test_an_error_of_the_producer_is_raised_as_it_is_and_leaves_no_thread() -> None:
    before = threads()
    with pytest.raises(ZeroDivisionError):
        _write_and_fail()
    assert threads() == before


def _read_and_fail() -> None:
    with ahead(iter(range(1_000_000))) as items:
        next(items)
        raise ZeroDivisionError


def _write_and_fail() -> None:
    with behind(_ignore) as submit:
        submit(1)
        raise ZeroDivisionError


def _write_ten(write: Callable[[int], None]) -> None:
    with behind(write) as submit:
        for item in range(10):
            submit(item)


def _ignore(item: int) -> None:
    del item
