"""How many requests are worked on at once, and how many more may wait for their turn."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["Admission", "FullError"]


class FullError(Exception):
    """All places are taken, and as many wait as may."""


class Admission:
    """Places for `concurrency` requests, and a queue for `queue` more, first come, first served.

    `watch` is told the queue's length whenever it changes.
    """

    def __init__(self, concurrency: int, queue: int, watch: Callable[[int], None]) -> None:
        self._free = concurrency
        self._queue = queue
        self._watch = watch
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def ask(self) -> "asyncio.Future[None] | None":
        """A place at once (None), or the turn to wait for.

        Whoever has got a place must `leave`; whoever does not wait to the end must `give_up`.

        Raises:
            FullError: neither is left.
        """
        if self._free:
            self._free -= 1
            return None
        if len(self._waiting) >= self._queue:
            raise FullError
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        self._watch(len(self._waiting))
        return turn

    def leave(self) -> None:
        """Pass a place on to the first that waits."""
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            self._watch(len(self._waiting))
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def give_up(self, turn: "asyncio.Future[None]") -> None:
        """No longer wait; a place that had just become this one's goes on to the next."""
        if turn in self._waiting:
            del self._waiting[turn]
            self._watch(len(self._waiting))
            turn.cancel()
        elif not turn.cancelled():
            self.leave()
