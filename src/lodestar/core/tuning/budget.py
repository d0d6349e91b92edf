"""How a search divides its time between trials and finalists."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from lodestar.core.tuning.drafts import whole_seconds
from lodestar.core.tuning.finalists import FEWEST_PAIRS
from lodestar.core.tuning.result import SearchLimits, TrialRecord
from lodestar.interface.execution import TrialExecutor

__all__ = ["FINALISTS_SHARE", "TimeBudget"]

# The share of the time that may be kept for the finalists, and the one that may be for the first of
# their common splits.
FINALISTS_SHARE, FIRST_SPLIT_SHARE = 0.2, 0.5
# The share of that time which a fit with all threads may be expected to take, to be worth a try: two
# threads are not twice as fast as one, and a fit that is cut off has told nothing.
SURE_SHARE = 0.6


@dataclass
class TimeBudget:
    """The seconds of one search, from now on; `draft` is the share of rows that trials are fitted on.

    `until` is when the exploration ends, on the monotonic clock.
    """

    limits: SearchLimits
    executor: TrialExecutor
    draft: float | None = None
    _began: float = field(default_factory=time.monotonic)
    _reserved: float = 0.0

    @property
    def until(self) -> float:
        """What comes after is the finalists'."""
        return self._began + self.limits.seconds - self._reserved

    def spent(self) -> float:
        """Seconds since the search began."""
        return time.monotonic() - self._began

    def left(self) -> float:
        """Seconds, finalists included."""
        return max(self.limits.seconds - self.spent(), 0.0)

    def reserve(self, best: Sequence[TrialRecord]) -> None:
        """Keep what the finalists need, by what the best trials so far took.

        Nothing where not even the best could be fitted in the time for the first common split: the
        time is worth more to the exploration.
        """
        most = FIRST_SPLIT_SHARE * self.limits.seconds
        if not best or self._seconds_each(best[:1]) > SURE_SHARE * most:
            self._reserved = 0.0
            return
        count, splits = self.limits.candidates, self.limits.splits
        each = self._seconds_each(best[:count])
        sure = min(splits, FEWEST_PAIRS)
        # By then the test has dropped half of them, or so.
        wanted = count * each * (sure + (splits - sure) / 2)
        first = min(count * each, most)
        self._reserved = min(wanted, max(FINALISTS_SHARE * self.limits.seconds, first))

    def affordable(self, best: Sequence[TrialRecord]) -> list[TrialRecord]:
        """As many of the best as can be judged once in half of the time that is left; one at least."""
        wanted = best[: self.limits.candidates]
        fits = self.left() / max(self._seconds_each(wanted), 1e-9)
        return list(wanted[: max(1, int(fits * FIRST_SPLIT_SHARE))])

    def _seconds_each(self, best: Sequence[TrialRecord]) -> float:
        """What a whole fit of one of these costs in wall time, with all workers busy."""
        found = sum(item.seconds for item in best) / len(best)
        whole = whole_seconds(found, self.draft) * self.limits.finalist_rows
        return whole / self.executor.capacity
