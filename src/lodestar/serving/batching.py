"""Scores concurrent requests together: one online read and one model call for all that wait."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["MicroBatcher"]

Question = TypeVar("Question")
Reply = TypeVar("Reply")
# While one batch waits for the online store, the next is gathered; a third would only split them.
IN_FLIGHT = 2


class MicroBatcher(Generic[Question, Reply]):
    """Gathers what comes within one tick of the event loop; nobody waits for others to come.

    `answer` gets at most `most` questions and returns as many replies, in order. Where a batch fails as
    a whole, all of its callers get that exception.
    """

    def __init__(
        self, answer: Callable[[Sequence[Question]], Awaitable[Sequence[Reply]]], *, most: int
    ) -> None:
        self._answer = answer
        self._most = most
        self._waiting: deque[tuple[Question, asyncio.Future[Reply]]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._called = False

    async def ask(self, question: Question) -> Reply:
        """One question, answered in some batch."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        self._waiting.append((question, future))
        if not self._called and len(self._running) < IN_FLIGHT:
            self._called = True
            loop.call_soon(self._flush)
        return await future

    async def ask_all(self, questions: Sequence[Question]) -> list[Reply]:
        """Many questions at once, answered in order, in batches of their own."""
        replies: list[Reply] = []
        for start in range(0, len(questions), self._most):
            replies += await self._answer(questions[start : start + self._most])
        return replies

    @property
    def waiting(self) -> int:
        """How many questions wait for a batch."""
        return len(self._waiting)

    def _flush(self) -> None:
        self._called = False
        while self._waiting and len(self._running) < IN_FLIGHT:
            count = min(self._most, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            # A caller that has gone away needs no answer.
            batch = [item for item in batch if not item[1].done()]
            if not batch:
                continue
            task = asyncio.ensure_future(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._ended)

    async def _run(self, batch: list[tuple[Question, asyncio.Future[Reply]]]) -> None:
        try:
            replies = await self._answer([question for question, _ in batch])
        except Exception as error:  # noqa: BLE001 -- an edge: whatever it is, the callers get it
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), reply in zip(batch, replies, strict=True):
            if not future.done():
                future.set_result(reply)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if self._waiting:
            self._flush()
