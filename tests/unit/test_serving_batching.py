"""Concurrent questions are answered together; each gets its reply, and one that leaves harms none."""

import asyncio
from collections.abc import Sequence

import pytest

from lodestar.serving.batching import MicroBatcher


class Doubling:
    """Answers twice the number, when it is let; remembers what was asked together."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        await self.open.wait()
        if 13 in numbers:
            raise ValueError("thirteen")
        return [2 * number for number in numbers]


def test_what_comes_in_one_tick_is_asked_together() -> None:
    async def run() -> None:
        doubling = Doubling()
        batcher = MicroBatcher(doubling, most=100)
        found = await asyncio.gather(*[batcher.ask(number) for number in range(7)])
        assert found == [0, 2, 4, 6, 8, 10, 12]
        assert doubling.batches == [list(range(7))]

    asyncio.run(run())


def test_a_batch_has_at_most_so_many() -> None:
    async def run() -> None:
        doubling = Doubling()
        batcher = MicroBatcher(doubling, most=3)
        assert await asyncio.gather(*[batcher.ask(n) for n in range(8)]) == list(range(0, 16, 2))
        assert [len(batch) for batch in doubling.batches] == [3, 3, 2]
        assert await batcher.ask_all(range(4)) == [0, 2, 4, 6]

    asyncio.run(run())


def test_while_two_batches_are_under_way_the_rest_gathers() -> None:
    async def run() -> None:
        doubling = Doubling()
        doubling.open.clear()
        batcher = MicroBatcher(doubling, most=100)
        asked = []
        for number in range(6):
            asked.append(asyncio.ensure_future(batcher.ask(number)))
            for _ in range(5):
                await asyncio.sleep(0)
        assert doubling.batches == [[0], [1]]
        assert batcher.waiting == 4
        doubling.open.set()
        assert await asyncio.gather(*asked) == [0, 2, 4, 6, 8, 10]
        assert doubling.batches == [[0], [1], [2, 3, 4, 5]]

    asyncio.run(run())


def test_a_batch_that_fails_fails_its_own_callers_alone() -> None:
    async def run() -> None:
        batcher = MicroBatcher(Doubling(), most=100)
        with pytest.raises(ValueError, match="thirteen"):
            await batcher.ask(13)
        assert await batcher.ask(4) == 8

    asyncio.run(run())


def test_a_caller_that_leaves_is_not_asked_for_and_others_are_answered() -> None:
    async def run() -> None:
        doubling = Doubling()
        batcher = MicroBatcher(doubling, most=100)
        leaving, staying = (asyncio.ensure_future(batcher.ask(number)) for number in (1, 2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying == 4
        assert doubling.batches == [[2]]

    asyncio.run(run())


def test_a_caller_that_leaves_while_it_is_asked_for_disturbs_no_reply() -> None:
    async def run() -> None:
        doubling = Doubling()
        doubling.open.clear()
        batcher = MicroBatcher(doubling, most=100)
        leaving, staying = (asyncio.ensure_future(batcher.ask(number)) for number in (1, 2))
        for _ in range(5):
            await asyncio.sleep(0)
        leaving.cancel()
        doubling.open.set()
        assert await staying == 4
        assert leaving.cancelled()

    asyncio.run(run())
