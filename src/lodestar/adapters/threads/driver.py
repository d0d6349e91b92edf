"""A thread for a driver that blocks in C: who waits for a call waits no longer than asked."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from lodestar.errors import ExternalError

__all__ = ["DriverThread"]

T = TypeVar("T")


class DriverThread:
    """Runs one call after another. One that hangs is left behind, and all later ones are refused.

    `server` is who is waited for; `grace` seconds are what ending waits for what is still to do.
    """

    def __init__(self, server: str, grace: float) -> None:
        self._server = server
        self._grace = grace
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=server, daemon=True)
        self._hangs = False
        self._thread.start()

    def call(self, work: Callable[[], T], seconds: float) -> T:
        """Do it, and raise what it raises.

        Raises:
            ExternalError: no answer within the time.
        """
        if self._hangs:
            raise self._no_answer(seconds)
        answer: Future[T] = Future()
        self._calls.put((work, answer))
        try:
            return answer.result(seconds)
        except TimeoutError:
            if answer.done():  # the call's own
                raise
            raise self._no_answer(seconds) from None
        finally:
            # Also when the user has interrupted: nobody waits for this one any more.
            self._hangs = not answer.done()

    def call_later(self, work: Callable[[], Any]) -> None:
        """Do it without anybody's waiting."""
        self._calls.put((work, Future()))

    def end(self) -> None:
        """Take no more calls, and wait a little for those that were taken."""
        self._calls.put(None)
        self._thread.join(0 if self._hangs else self._grace)

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            work, answer = item
            try:
                answer.set_result(work())
            except BaseException as error:  # noqa: BLE001 -- it is raised where it is waited for
                answer.set_exception(error)
            del item, work, answer

    def _no_answer(self, seconds: float) -> ExternalError:
        return ExternalError(
            f"{self._server} has not answered within {seconds:.0f} s",
            hint="the server or the network hangs; see that it runs, then try again",
        )
