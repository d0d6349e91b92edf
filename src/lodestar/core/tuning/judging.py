"""The end of a search: looks at the best drafts, finalists, and what to expect of the model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from lodestar.core.tuning.budget import TimeBudget
from lodestar.core.tuning.finalists import Finals
from lodestar.core.tuning.gains import Gains
from lodestar.core.tuning.ground import SearchGround
from lodestar.core.tuning.result import Expected, Finalist, TrialRecord

__all__ = ["Judged", "Judging"]


@dataclass(frozen=True)
class Judged:
    """The finalists, the winner first; `share` of their train rows they were fitted on, None: all."""

    finalists: tuple[Finalist, ...]
    share: float | None
    expected: Expected


@dataclass
class Judging:
    """Compares the best trials in the time that is left.

    `best` are the complete trials, the best first.
    """

    ground: SearchGround
    best: list[TrialRecord]
    time: TimeBudget
    tell: Callable[[int, int], None]
    correction: float | None
    notes: list[str] = field(default_factory=list)

    def run(self) -> Judged:
        """Look, compare, and say what is to be expected of the winner.

        Raises:
            DataError: every finalist fails on the first common split.
        """
        finals, finalists = self._compared()
        gains = Gains(self.ground, self.time, finals, self.correction)
        found = gains.of(finalists)
        expected = {
            one.number: _expected(finals, one, found.get(one.number), gains.rows(one))
            for one in finalists
        }
        if finals.look is not None:
            finalists = self._ranked(finalists, expected)
        self.notes += dict.fromkeys(finals.notes)  # looks that went on said some of it twice
        self.notes += gains.notes
        return Judged(finalists, finals.look, expected[finalists[0].number])

    def _ranked(
        self, finalists: tuple[Finalist, ...], expected: Mapping[int, Expected]
    ) -> tuple[Finalist, ...]:
        """By what is to be expected where that is known: few rows flatter shallow trees."""

        def place(one: Finalist) -> tuple[bool, float]:
            unknown = expected[one.number].gain is None
            return unknown, 0.0 if unknown else -self.ground.sign * expected[one.number].value

        return tuple(sorted(finalists, key=place))

    def _compared(self) -> tuple[Finals, tuple[Finalist, ...]]:
        """Those of all rows where the time allows, else those of the looks."""
        planned = None if self.ground.interrupted() else self.time.looks(self.best)
        if planned is None:
            whole = self._finals(self.time.affordable(self.best))
            return whole, whole.run()
        looks = self._finals(self.best[: planned.count], look=planned.share)
        by_number = {record.number: record for record in looks.trials}
        ranked = [by_number[one.number] for one in looks.run() if one.scores and not one.dropped]
        fitting = self.time.affordable_after(ranked, looks.seconds, planned.share)
        if fitting:
            whole = self._finals(fitting)
            finalists = whole.run()
            if finalists[0].scores:
                self.notes += looks.notes
                return whole, finalists
        self.notes.append(
            "no whole fit would end in the time that was left: the finalists were fitted on "
            f"{planned.share:.0%} of their rows, and what all rows will bring is estimated"
        )
        looks.splits = self.ground.limits.splits
        return looks, looks.run()

    def _finals(self, trials: list[TrialRecord], *, look: float | None = None) -> Finals:
        limits = self.ground.limits
        wanted = min(limits.candidates, len(self.best))
        if look is None and len(trials) < wanted and not self.ground.interrupted():
            self.notes.append(
                f"the time that was left is enough to compare {len(trials)} of {wanted} finalists"
            )
        as_trials = look is not None or self.time.split_as_trials
        kept = self.time.gain_seconds(trials, look)
        return Finals(
            ground=self.ground,
            trials=trials,
            splits=limits.splits if look is None else 1,
            validation_size=1 - limits.train_size if as_trials else limits.validation_size,
            windows=limits.windows,
            look=look,
            shortened=look is not None and self.time.shortened,
            correction=self.correction,
            seconds_left=lambda: max(self.time.left() - kept, 0.0),
            tell=self.tell,
            alone="which flatters it" if self.time.draft is None else "and of a draft",
        )


def _expected(finals: Finals, one: Finalist, gain: float | None, rows: float) -> Expected:
    corrected = finals.less_offsets(one.scores) if one.scores else [one.mean]
    return Expected(one.mean, one.mean - float(np.mean(corrected)), gain, rows)
