"""The breaker: when an online store is left alone, and when it is asked again."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from lodestar.errors import DataError, ExternalError
from lodestar.serving.breaker import Breaker
from lodestar.settings.serving import OnlineReads

SETTINGS = OnlineReads(failures=3, pause_seconds=10.0)
ROWS = [("a",)]


class Store:
    """Answers, fails, or hangs, as told; counts how often it was asked."""

    keys: tuple[str, ...] = ("code",)

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.go: asyncio.Event | None = None
        self.asked = 0
        self.closed = False

    async def read(self, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        self.asked += 1
        if self.go is not None:
            await self.go.wait()
        if self.error is not None:
            raise self.error
        return [(1,)] * len(rows)

    async def close(self) -> None:
        self.closed = True


@dataclass
class Watch:
    """Who is told."""

    told: list[bool]

    def breaker(self, *, is_open: bool) -> None:
        self.told.append(is_open)


class World:
    """A breaker, the store behind it, a clock that is moved by hand, and what was told."""

    def __init__(self) -> None:
        self.store = Store()
        self.now = 100.0
        self.told: list[bool] = []
        self.breaker = Breaker(self.store, SETTINGS, Watch(self.told), clock=lambda: self.now)

    async def fail(self, times: int) -> None:
        self.store.error = ExternalError("Redis does not answer")
        for _ in range(times):
            with pytest.raises(ExternalError, match="Redis does not answer"):
                await self.breaker.read(ROWS)
        self.store.error = None

    async def refused(self) -> None:
        asked = self.store.asked
        with pytest.raises(ExternalError, match="is not asked, as it did not answer lately"):
            await self.breaker.read(ROWS)
        assert self.store.asked == asked

    async def answered(self) -> None:
        assert await self.breaker.read(ROWS) == [(1,)]


@pytest.fixture
def world() -> World:
    return World()


def test_it_opens_after_so_many_failures_in_a_row_and_a_success_begins_anew(world: World) -> None:
    async def story() -> None:
        await world.fail(2)
        await world.answered()
        await world.fail(2)
        assert world.told == []
        await world.fail(1)
        assert world.told == [True]
        assert world.breaker.open
        await world.refused()

    asyncio.run(story())


def test_after_the_pause_a_single_read_goes_through_and_its_answer_closes_it(world: World) -> None:
    async def story() -> None:
        await world.fail(3)
        world.now += 9.999
        await world.refused()
        world.now += 0.001
        world.store.go = asyncio.Event()
        probe = asyncio.ensure_future(world.breaker.read(ROWS))
        await asyncio.sleep(0)
        await world.refused()
        world.store.go.set()
        assert await probe == [(1,)]
        assert not world.breaker.open
        await world.answered()
        assert world.told == [True, False]

    asyncio.run(story())


def test_a_failed_probe_begins_the_next_pause(world: World) -> None:
    async def story() -> None:
        await world.fail(3)
        world.now += 10
        await world.fail(1)
        await world.refused()
        world.now += 9.9
        await world.refused()
        world.now += 0.1
        await world.answered()
        assert world.told == [True, False]

    asyncio.run(story())


def test_a_probe_that_goes_away_leaves_its_turn_to_the_next(world: World) -> None:
    async def story() -> None:
        await world.fail(3)
        world.now += 10
        world.store.go = asyncio.Event()
        probe = asyncio.ensure_future(world.breaker.read(ROWS))
        await asyncio.sleep(0)
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        world.store.go = None
        await world.answered()
        assert not world.breaker.open

    asyncio.run(story())


def test_reads_that_were_under_way_when_it_opened_do_not_prolong_the_pause(world: World) -> None:
    async def story() -> None:
        world.store.go = asyncio.Event()
        late = [asyncio.ensure_future(world.breaker.read(ROWS)) for _ in range(5)]
        await asyncio.sleep(0)
        under_way, world.store.go = world.store.go, None
        await world.fail(3)
        world.now += 9
        world.store.error = ExternalError("Redis does not answer")
        under_way.set()
        found = await asyncio.gather(*late, return_exceptions=True)
        assert all(isinstance(error, ExternalError) for error in found)
        assert world.told == [True]
        world.store.error = None
        world.now += 1
        await world.answered()

    asyncio.run(story())


def test_data_that_cannot_be_read_is_no_failure_of_the_store(world: World) -> None:
    async def story() -> None:
        world.store.error = DataError("not of the declared type")
        for _ in range(5):
            with pytest.raises(DataError):
                await world.breaker.read(ROWS)
        assert not world.breaker.open

    asyncio.run(story())


def test_it_asks_by_the_same_keys_and_closes_what_it_asks(world: World) -> None:
    assert world.breaker.keys == ("code",)
    asyncio.run(world.breaker.close())
    assert world.store.closed
