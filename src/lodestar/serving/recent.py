"""What a version has answered lately, kept so that the one that takes its place can be compared."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from lodestar.serving.scoring import Row

__all__ = ["Recent", "Window"]

KEPT = 2_000
KEPT_FAILED = 50


@dataclass(frozen=True)
class Window:
    """Some time of answering: `answers` includes `failures` and `unread`.

    Failures are refusals by features or model, and answers that did not come; `failed` are some of their
    rows. Of the `unread` rows the online store told nothing; `not_read` are some of them. `values` (what
    is watched of the predictions) and `seconds` (per request) are the last 2,000.
    """

    answers: int
    failures: int
    values: Sequence[float]
    seconds: Sequence[float]
    failed: Sequence[Row] = ()
    unread: int = 0
    not_read: Sequence[Row] = ()


class Recent:
    """Takes what was answered, at little cost; a window lasts from one `begin` to the next."""

    __slots__ = (
        "_answers",
        "_failed",
        "_failures",
        "_not_read",
        "_seconds",
        "_timed",
        "_unread",
        "_values",
        "_watched",
    )

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=KEPT)
        self._seconds: deque[float] = deque(maxlen=KEPT)
        self._failed: deque[Row] = deque(maxlen=KEPT_FAILED)
        self._not_read: deque[Row] = deque(maxlen=KEPT_FAILED)
        self.begin()

    def begin(self) -> None:
        """A window begins; what was answered before stays known to `all`."""
        self._answers = self._failures = self._unread = self._watched = self._timed = 0
        self._failed.clear()
        self._not_read.clear()

    def answered(self, value: float) -> None:
        """A row was answered with this."""
        self._answers += 1
        self._watched += 1
        self._values.append(value)

    def failed(self, row: Row) -> None:
        """A row was refused by features or model, or not answered in time."""
        self._answers += 1
        self._failures += 1
        self._failed.append(row)

    def unread(self, row: Row) -> None:
        """The online store told nothing of a row."""
        self._answers += 1
        self._unread += 1
        self._not_read.append(row)

    def took(self, seconds: float) -> None:
        """A request took so long, whatever became of it."""
        self._timed += 1
        self._seconds.append(seconds)

    def window(self) -> Window:
        """What there was since `begin`."""
        return Window(
            self._answers,
            self._failures,
            _last(self._values, self._watched),
            _last(self._seconds, self._timed),
            tuple(self._failed),
            self._unread,
            tuple(self._not_read),
        )

    def all(self) -> Window:
        """As far back as values and seconds are kept; counts are the window's."""
        return Window(self._answers, self._failures, list(self._values), list(self._seconds))


def _last(kept: "deque[float]", count: int) -> list[float]:
    return list(islice(kept, max(len(kept) - count, 0), None))
