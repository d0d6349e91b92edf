"""How a search divides its time between trials, looks at the best of them, and finalists."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lodestar.core.tuning.drafts import (
    look_seconds,
    look_shares,
    seconds_of_looked,
    whole_seconds,
)
from lodestar.core.tuning.finalists import FEWEST_PAIRS
from lodestar.core.tuning.result import SearchLimits, TrialRecord
from lodestar.core.tuning.row_gain import GAIN_SPLITS, SMALLER
from lodestar.interface.execution import TrialExecutor

__all__ = ["FINALISTS_SHARE", "TimeBudget"]

# The share of the time that may be kept for the finalists, and the one that may be for the first of
# their common splits, looks included.
FINALISTS_SHARE, FIRST_SPLIT_SHARE = 0.2, 0.5
# What looks may take of the time, and what they may if they are no more than the workers.
LOOKS_SHARE, FEWEST_LOOKS_SHARE = 0.25, 0.33
# The share of that time which a fit with all threads may be expected to take, to be worth a try: two
# threads are not twice as fast as one, and a fit that is cut off has told nothing.
SURE_SHARE = 0.6
# A look without the smaller fit is worth little, so that one has some time more than it should need.
GAIN_MARGIN = 1.25


@dataclass(frozen=True)
class Looks:
    """How many of the best drafts are looked at again, fitted on which share of their rows.

    `seconds` is what all of it takes, the fit included that says how far the score has to go.
    """

    count: int
    share: float
    seconds: float


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
        """Keep what looks and finalists need, by what the best trials so far took."""
        looks = self.looks(best)
        taken = looks.seconds if looks else 0.0
        taken += self._finals_seconds(best, FIRST_SPLIT_SHARE * self._all - taken)
        self._reserved = taken or self._alone_seconds(best)

    def looks(self, best: Sequence[TrialRecord]) -> Looks | None:
        """Looks at as many rows as there is time for, in whole rounds of the workers; None: at none."""
        workers = self.executor.capacity
        for share in look_shares(self.draft) if best else ():
            first = max(one.seconds for one in best[:workers])
            each = look_seconds(first, self._times_rows(share))
            gain = self._smaller_seconds(first, self._times_rows(share))
            if each + gain <= FEWEST_LOOKS_SHARE * self._all:
                rounds = max(int(LOOKS_SHARE * self._all / each), 1)
                count = min(rounds * workers, self.limits.candidates, len(best))
                return Looks(count, share, -(-count // workers) * each + gain)
        return None

    def affordable(self, best: Sequence[TrialRecord]) -> list[TrialRecord]:
        """As many of the best as can be judged once in half of the time that is left; one at least."""
        wanted = list(best[: self.limits.candidates])
        fits = self.left() / max(self._seconds_each(wanted), 1e-9)
        return wanted[: max(1, int(fits * FIRST_SPLIT_SHARE))]

    def affordable_after(
        self, looked: Sequence[TrialRecord], seconds: Mapping[int, float], share: float
    ) -> list[TrialRecord]:
        """As many of those that were looked at; none where not even the first would end for sure.

        `seconds` are those of the looks by trial, for one worker's threads.
        """
        if not looked:
            return []
        each = seconds_of_looked(seconds[looked[0].number], share) / self.executor.capacity
        left = self.left() - each * SMALLER
        if each > SURE_SHARE * left:
            return []
        return list(looked[: max(1, int(left / max(each, 1e-9) * FIRST_SPLIT_SHARE))])

    def gain_seconds(self, trials: Sequence[TrialRecord], look: float | None) -> float:
        """What the fits take that say what all rows bring: after looks at most, else about."""
        if not self.limits.gains:
            return 0.0
        if look is not None:
            return self._smaller_seconds(max(one.seconds for one in trials), self._times_rows(look))
        each = whole_seconds(_mean_seconds(trials), self.draft) * self.limits.finalist_rows
        each /= self.executor.capacity
        splits = min(max(int(self.left() / max(each, 1e-9)), 1), GAIN_SPLITS)
        return each * splits * SMALLER

    @property
    def _all(self) -> float:
        return self.limits.seconds

    def _alone_seconds(self, best: Sequence[TrialRecord]) -> float:
        """What the fit takes that says how far the score of a draft alone has to go."""
        return self._smaller_seconds(best[0].seconds, 1.0) if best and self.draft else 0.0

    def _times_rows(self, look: float) -> float:
        """How many times a draft's rows a look at this share has, on a common split."""
        return look / (self.draft or 1.0) * self.limits.finalist_rows

    def _smaller_seconds(self, draft_seconds: float, times_rows: float) -> float:
        """At most what a fit takes on a third of so many times a draft's rows, if any is wanted."""
        if not self.limits.gains:
            return 0.0
        return GAIN_MARGIN * look_seconds(draft_seconds, times_rows * SMALLER)

    def _finals_seconds(self, best: Sequence[TrialRecord], most: float) -> float:
        """Nothing where not even the best could be fitted in the most for the first common split.

        The time is worth more to the exploration then.
        """
        if not best or self._seconds_each(best[:1]) > SURE_SHARE * most:
            return 0.0
        count, splits = self.limits.candidates, self.limits.splits
        each = self._seconds_each(best[:count])
        sure = min(splits, FEWEST_PAIRS)
        # By then the test has dropped half of them, or so.
        wanted = count * each * (sure + (splits - sure) / 2)
        wanted += GAIN_SPLITS * SMALLER * each if self.limits.gains else 0.0
        first = min(count * each, most)
        return min(wanted, max(min(FINALISTS_SHARE * self._all, most), first))

    def _seconds_each(self, best: Sequence[TrialRecord]) -> float:
        """What a whole fit of one of these costs in wall time, with all workers busy."""
        whole = whole_seconds(_mean_seconds(best), self.draft) * self.limits.finalist_rows
        return whole / self.executor.capacity


def _mean_seconds(best: Sequence[TrialRecord]) -> float:
    return sum(item.seconds for item in best) / len(best)
