"""A message tried again while there is time, with growing, random pauses."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from lodestar.interface.alerting import AlertChannel, Message, UndeliveredError

__all__ = ["Pace", "deliver"]

# So many seconds are left for an attempt at least, else it is not begun.
LEAST = 0.05


@dataclass(frozen=True)
class Pace:
    """How long one attempt may take, and the pauses between (seconds).

    They are `first`, twice that, …, `most` at most; each at random between half and all of it.
    """

    attempt_seconds: float = 5.0
    first: float = 0.5
    most: float = 10.0


def deliver(
    channel: AlertChannel,
    message: Message,
    *,
    until: float,
    pace: Pace,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    draw: Callable[[], float] = random.random,
) -> str:
    """Deliver it before `until` of the clock; returns what is odd about it, or nothing.

    Raises:
        UndeliveredError: it was refused for good, or the time is over; says how the last attempt ended.
    """
    attempt = 0
    while True:
        left = until - clock()
        if left < LEAST:
            raise UndeliveredError("there was no time left", again=True)
        try:
            return channel.send(message, seconds=min(pace.attempt_seconds, left))
        except UndeliveredError as error:
            if not error.again:
                raise
            pause = min(pace.first * 2**attempt, pace.most) * (1 + draw()) / 2
            pause = max(pause, error.after or 0.0)
            attempt += 1
            if clock() + pause + LEAST >= until:
                times = "once" if attempt == 1 else f"{attempt} times"
                raise UndeliveredError(f"{error.what} (tried {times})", again=True) from error
            sleep(pause)
