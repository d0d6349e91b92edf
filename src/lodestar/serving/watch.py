"""Judges a model that was swapped in by what it does: whether the one before it should come back."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from lodestar.core.stability import StabilityIndex
from lodestar.serving.recent import Recent, Window
from lodestar.serving.scoring import Row
from lodestar.settings.serving import Rollback

__all__ = ["Breach", "Figures", "Judge", "Watch"]

# How many of some rows a model can answer.
Answers: TypeAlias = Callable[[Sequence[Row]], Awaitable[int]]
Reason = Literal["errors", "latency", "predictions"]
# A former model that broke the limit on latency itself is no measure; the new one may be as slow.
NO_WORSE = 1.5


@dataclass(frozen=True)
class Breach:
    """A limit that was broken, and by how much, in words."""

    reason: Reason
    words: str


@dataclass(frozen=True)
class Figures:
    """What was found in a window; None where there was nothing to compare with."""

    answers: int
    error_rate: float
    latency_p99_seconds: float | None
    prediction_psi: float | None


class Judge:
    """Compares windows with the config's limits, and with what the former model had done till then."""

    def __init__(self, limits: Rollback, former: Window) -> None:
        self._limits = limits
        finite = [value for value in former.values if value == value]  # noqa: PLR0124 -- NaN is not itself
        self._index = StabilityIndex(finite) if len(finite) >= limits.requests else None
        before = _p99(former.seconds) or 0.0
        limit = limits.latency_p99_seconds
        self._latency = limit if before <= limit else before * NO_WORSE

    def figures(self, window: Window) -> Figures:
        """Measure a window."""
        enough = self._index is not None and len(window.values) >= self._limits.requests
        return Figures(
            window.answers,
            (window.failures + window.unread) / max(window.answers, 1),
            _p99(window.seconds),
            self._index.of(window.values) if self._index and enough else None,
        )

    def breach(self, found: Figures) -> Breach | None:
        """The first limit that the figures break; None where they keep all."""
        limits = self._limits
        if found.error_rate > limits.error_rate:
            return Breach(
                "errors",
                f"{found.error_rate:.1%} of {found.answers} answers failed; at most "
                f"{limits.error_rate:.1%} may",
            )
        latency = found.latency_p99_seconds
        if latency is not None and latency > self._latency:
            return Breach(
                "latency",
                f"the 99th percentile of the time to answer is {latency:.3g} s; it may be "
                f"{self._latency:.3g} s",
            )
        index = found.prediction_psi
        if index is not None and index > limits.prediction_psi:
            return Breach(
                "predictions",
                f"the predictions' stability index against the former model is {index:.2f}; it may "
                f"be {limits.prediction_psi:g}",
            )
        return None


class Watch:
    """Looks at what a new model answers, window by window.

    A window ends after `window_seconds` (or with the watch), but not before `requests` answers.
    `former` and `new` ask the one and the other model rows, and tell how many of them it can answer:
    what the former one would have refused too is not held against the new one, nor a store that fails
    both of them. `now` is in seconds, from one clock.
    """

    def __init__(
        self,
        limits: Rollback,
        before: Window,
        recent: Recent,
        *,
        former: Answers,
        new: Answers,
        now: float,
    ) -> None:
        self._limits = limits
        self._judge = Judge(limits, before)
        self._recent = recent
        self._former = former
        self._new = new
        self._window_ends = now + limits.window_seconds
        self.ends = now + limits.watch_seconds
        self.windows = 0
        self.last: Figures | None = None

    async def look(self, now: float) -> Breach | None:
        """Judge the window if it is over; a breach is why the former model should come back."""
        window = self._recent.window()
        if now < min(self._window_ends, self.ends) or window.answers < self._limits.requests:
            return None
        self._recent.begin()
        self._window_ends = now + self._limits.window_seconds
        found = self._judge.figures(window)
        breach = self._judge.breach(found)
        if breach is not None and breach.reason == "errors":
            found = await self._compared(window, found)
            breach = self._judge.breach(found)
        self.last, self.windows = found, self.windows + 1
        return breach

    async def _compared(self, window: Window, found: Figures) -> Figures:
        """The figures with those errors alone that the former model does not make."""
        failed, unread = window.failed, window.not_read
        more = 0.0
        if failed:
            more += window.failures * await self._former(failed) / len(failed)
        if unread:
            better = await self._former(unread) - await self._new(unread)
            more += window.unread * max(better, 0) / len(unread)
        return replace(found, error_rate=more / found.answers)


def _p99(seconds: Sequence[float]) -> float | None:
    return float(np.quantile(seconds, 0.99)) if seconds else None
