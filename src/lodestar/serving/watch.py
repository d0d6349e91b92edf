"""Judges a model that was swapped in by what it does: whether the one before it should come back."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lodestar.core.stability import StabilityIndex
from lodestar.serving.recent import Recent, Window
from lodestar.serving.scoring import Row
from lodestar.settings.serving import Rollback

__all__ = ["Breach", "Figures", "Judge", "Watch"]

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
            window.failures / window.answers if window.answers else 0.0,
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
    `former_answers` asks the former model rows, and tells how many of them it can answer: what it would
    have refused too is not held against the new one. `now` is in seconds, from one clock.
    """

    def __init__(
        self,
        limits: Rollback,
        former: Window,
        recent: Recent,
        former_answers: Callable[[Sequence[Row]], Awaitable[int]],
        *,
        now: float,
    ) -> None:
        self._limits = limits
        self._judge = Judge(limits, former)
        self._recent = recent
        self._former_answers = former_answers
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
        self.windows += 1
        self.last = found = self._judge.figures(window)
        breach = self._judge.breach(found)
        if breach is None or breach.reason != "errors":
            return breach
        return await self._unless_the_former_fails_too(window, found)

    async def _unless_the_former_fails_too(self, window: Window, found: Figures) -> Breach | None:
        could = await self._former_answers(window.failed)
        rate = found.error_rate * could / max(len(window.failed), 1)
        self.last = counted = Figures(
            found.answers, rate, found.latency_p99_seconds, found.prediction_psi
        )
        return self._judge.breach(counted)


def _p99(seconds: Sequence[float]) -> float | None:
    return float(np.quantile(seconds, 0.99)) if seconds else None
