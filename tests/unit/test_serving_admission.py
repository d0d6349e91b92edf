"""Places and the queue for them: bounded, in order, and never lost."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar.serving.admission import Admission, FullError


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


def test_places_are_given_at_once_then_turns_then_nothing() -> None:
    async def story() -> None:
        lengths: list[int] = []
        admission = Admission(2, 1, lengths.append)
        assert admission.ask() is None
        assert admission.ask() is None
        turn = admission.ask()
        assert turn is not None
        with pytest.raises(FullError):
            admission.ask()
        admission.leave()
        assert turn.done()
        assert lengths == [1, 0]

    run(story)


def test_whoever_waits_first_goes_in_first() -> None:
    async def story() -> None:
        admission = Admission(1, 3, lambda _: None)
        admission.ask()
        turns = [admission.ask() for _ in range(3)]
        for at in range(3):
            admission.leave()
            assert [bool(turn and turn.done()) for turn in turns] == [n <= at for n in range(3)]

    run(story)


def test_a_queue_of_none_turns_away_at_once() -> None:
    async def story() -> None:
        admission = Admission(1, 0, lambda _: None)
        admission.ask()
        with pytest.raises(FullError):
            admission.ask()

    run(story)


def test_whoever_gives_up_makes_room_at_once() -> None:
    async def story() -> None:
        admission = Admission(1, 1, lambda _: None)
        admission.ask()
        turn = admission.ask()
        assert turn is not None
        admission.give_up(turn)
        assert turn.cancelled()
        assert admission.waiting == 0
        assert admission.ask() is not None

    run(story)


def test_a_place_given_to_one_who_has_gone_goes_on_to_the_next() -> None:
    async def story() -> None:
        admission = Admission(1, 2, lambda _: None)
        admission.ask()
        first, second = admission.ask(), admission.ask()
        assert first is not None
        assert second is not None
        admission.leave()
        admission.give_up(first)
        assert second.done()

    run(story)


@given(st.lists(st.sampled_from(["ask", "leave", "give up"]), max_size=60), st.integers(1, 3))
def test_no_place_is_lost_and_none_is_given_twice(steps: list[str], places: int) -> None:
    async def story() -> None:
        admission = Admission(places, 3, lambda _: None)
        inside = 0
        turns: list[asyncio.Future[None]] = []
        for step in steps:
            if step == "ask":
                try:
                    turn = admission.ask()
                except FullError:
                    assert inside + sum(turn.done() for turn in turns) == places
                    continue
                if turn is None:
                    inside += 1
                else:
                    turns.append(turn)
            elif step == "leave" and inside:
                admission.leave()
                inside -= 1
            elif step == "give up" and turns:
                admission.give_up(turns.pop())
            inside += sum(turn.done() for turn in turns)
            turns = [turn for turn in turns if not turn.done()]
            assert inside <= places
            assert admission.waiting == len(turns)
            assert not turns or inside == places

    run(story)
