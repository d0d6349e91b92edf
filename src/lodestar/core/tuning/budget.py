"""How a search divides its time between trials, looks at the best of them, and finalists."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lodestar.core.tuning.drafts import (
    growth,
    most_times,
    rounds_of,
    seconds_of_looked,
    times_for,
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
# The same where drafts are not looked at before: they rank less well, so that more are to be compared.
DRAFTED_SHARE = 1 / 3
# What looks may take of the time, and what they may if they are no more than the workers.
LOOKS_SHARE, FEWEST_LOOKS_SHARE = 0.25, 0.33
# The share of that time which a fit with all threads may be expected to take, to be worth a try: two
# threads are not twice as fast as one, and a fit that is cut off has told nothing.
SURE_SHARE = 0.6
# A look without the smaller fit is worth little, so that one has some time more than it should need.
GAIN_MARGIN = 1.25
# A look that is watched need not come to its end: its draft says what the last rounds bring. More rows
# are worth more than the rounds after that share of them.
REACH = 0.7


@dataclass(frozen=True)
class Looks:
    """How many of the best drafts are looked at again, fitted on which share of their rows.

    `seconds` is what all of it takes, the fit included that says how far the score has to go.
    """

    count: int
    share: float
    seconds: float


@dataclass(frozen=True)
class _FitParts:
    """By which power of its rows a fit's seconds grow, and how much of its rounds is enough."""

    power: float
    reach: float


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
    def unlooked(self) -> bool:
        """Whether trials are drafts and the next fits of the best of them are whole ones."""
        return self.draft is not None and most_times(self.draft) is None

    @property
    def strided(self) -> bool:
        """Whether trials take larger steps: where nothing but ranking hangs on their values."""
        return self.unlooked and self.limits.boosts

    @property
    def shortened(self) -> bool:
        """Whether drafts and looks have fewer rounds, as they have fewer rows."""
        return self.rounds is not None

    @property
    def rounds(self) -> float | None:
        """The share of its rounds that a trial has, with its steps as they are; None: all of them."""
        if self.draft is None or self.unlooked or not self.limits.boosts:
            return None
        return rounds_of(self.draft)

    @property
    def split_as_trials(self) -> bool:
        """Whether as many rows judge whole finalists as judge trials.

        Drafts say little, so that the first splits must say much.
        """
        return self.unlooked and self.limits.windows is None

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
        workers, most = self.executor.capacity, most_times(self.draft)
        if not best or self.draft is None or most is None:
            return None
        part = self._fit_parts(best[:workers])
        first = max(one.seconds for one in best[:workers])
        smaller = self._smaller_part(best[:workers])
        allowed = FEWEST_LOOKS_SHARE * self._all
        times = min(times_for(allowed / (part.reach + smaller), first, part.power), most)
        if times < 1:
            return None
        whole = first * times**part.power
        each, gain = part.reach * whole, smaller * whole
        rounds = max(int(LOOKS_SHARE * self._all / each), 1)
        count = min(rounds * workers, self.limits.candidates, len(best))
        return Looks(count, self.draft * times, -(-count // workers) * each + gain)

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
        power = self._fit_parts(looked).power
        each = seconds_of_looked(seconds[looked[0].number], share, power) / self.executor.capacity
        left = self.left() - each * SMALLER
        if each > SURE_SHARE * left:
            return []
        return list(looked[: max(1, int(left / max(each, 1e-9) * FIRST_SPLIT_SHARE))])

    def gain_seconds(self, trials: Sequence[TrialRecord], look: float | None) -> float:
        """What the fits take that say what all rows bring: after looks at most, else about."""
        if not self.limits.gains:
            return 0.0
        if look is not None and self.draft is not None:
            whole = max(one.seconds for one in trials)
            whole *= float((look / self.draft) ** self._fit_parts(trials).power)
            return self._smaller_part(trials) * whole
        each = self._seconds_each(trials)
        splits = min(max(int(self.left() / max(each, 1e-9)), 1), GAIN_SPLITS)
        return each * splits * SMALLER

    @property
    def _all(self) -> float:
        return self.limits.seconds

    def _alone_seconds(self, best: Sequence[TrialRecord]) -> float:
        """What the fit takes that says how far the score of a draft alone has to go."""
        if not best or self.draft is None:
            return 0.0
        return best[0].seconds * self._smaller_part(best[:1])

    def _smaller_part(self, best: Sequence[TrialRecord]) -> float:
        """What a fit on a third of the rows takes at most, of one on all of them, if any is wanted."""
        part = self._fit_parts(best)
        return float(GAIN_MARGIN * part.reach * SMALLER**part.power) if self.limits.gains else 0.0

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
        share = DRAFTED_SHARE if self.unlooked else FINALISTS_SHARE
        return min(wanted, max(min(share * self._all, most), first))

    def _seconds_each(self, best: Sequence[TrialRecord]) -> float:
        """What a whole fit of one of these costs in wall time, with all workers busy."""
        whole = whole_seconds(
            _mean_seconds(best), self.draft, strided=self.strided, shortened=self.shortened
        )
        whole *= 1.0 if self.split_as_trials else self.limits.finalist_rows
        return whole / self.executor.capacity

    def _fit_parts(self, best: Sequence[TrialRecord]) -> _FitParts:
        by_rounds = all(one.by_rounds for one in best)
        power = growth(by_rounds=by_rounds, shortened=self.shortened)
        return _FitParts(power, REACH if by_rounds else 1.0)


def _mean_seconds(best: Sequence[TrialRecord]) -> float:
    return sum(item.seconds for item in best) / len(best)
