"""What the rows bring that finalists were not fitted on, by fits of the same on a third of theirs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lodestar.core.tuning.budget import TimeBudget
from lodestar.core.tuning.drafts import rounds_of
from lodestar.core.tuning.finalists import Finals
from lodestar.core.tuning.ground import SearchGround
from lodestar.core.tuning.result import Finalist, TrialRecord
from lodestar.core.tuning.row_gain import GAIN_SPLITS, SMALLER, row_gain
from lodestar.core.tuning.together import Fit, together
from lodestar.interface.execution import TrialTask

__all__ = ["Gains"]


@dataclass
class Gains:
    """Extrapolates the scores of finalists, or of the best trial where there was no common split."""

    ground: SearchGround
    time: TimeBudget
    finals: Finals
    correction: float | None
    notes: list[str] = field(default_factory=list)

    def of(self, finalists: Sequence[Finalist]) -> dict[int, float]:
        """By trial, where it can be known: of the winner, the first of them.

        Of looks, of as many of the best as there are workers.
        """
        if not self.ground.limits.gains or self.ground.interrupted():
            return {}
        tasks = self._tasks(finalists)
        if not tasks:
            return {}
        fits = together(
            self.ground.executor,
            [task for each in tasks.values() for task in each],
            seconds=self.time.left,
            interrupted=self.ground.interrupted,
        )
        gains = self._extrapolated(finalists, tasks, {fit.outcome.number: fit for fit in fits})
        if not gains:
            reason = next(
                (fit.outcome.error for fit in fits if fit.outcome.error), "the time was up"
            )
            self.notes.append(f"what all rows bring to the score is not known: {reason}")
        return gains

    def rows(self, one: Finalist) -> float:
        """The share of the training rows that it was fitted on, on a common split or as a trial."""
        if one.scores:
            return (1 - self.finals.validation_size) * (self.finals.look or 1.0)
        return self.ground.limits.train_size * (self.time.draft or 1.0)

    def _tasks(self, finalists: Sequence[Finalist]) -> dict[int, list[TrialTask]]:
        """Smaller fits by trial, each with a number below 0 of its own."""
        winner = finalists[0]
        if not winner.scores:
            return self._of_draft(winner)
        if self.finals.look is None:
            splits = range(min(GAIN_SPLITS, len(winner.scores)))
            lent = max(1, self.ground.executor.capacity // len(splits))
            smaller = [self._smaller(winner, split, -1 - split, lent) for split in splits]
            return {winner.number: smaller}
        compared = [one for one in finalists if one.scores and not one.dropped]
        # Two threads are no faster at a draft's size than one.
        return {
            one.number: [self._smaller(one, 0, -1 - at, 1)]
            for at, one in enumerate(compared[: self.ground.executor.capacity])
        }

    def _smaller(self, one: Finalist, split: int, number: int, workers: int) -> TrialTask:
        share = SMALLER * (self.finals.look or 1.0)
        task = self.finals.task(self._record(one), split, share=share, workers=workers)
        return replace(task, number=number)

    def _of_draft(self, winner: Finalist) -> dict[int, list[TrialTask]]:
        """Where there are no common splits: on the draft's own, whose rows judge again."""
        if self.time.draft is None:
            return {}
        share = self.time.draft * SMALLER
        smaller = TrialTask(
            number=-1,
            hyperparameters=self.ground.hyperparameters(winner.params, 1),
            split_seed=winner.number,
            watched=False,
            draft=share,
            strided=self.time.strided,
            rounds=rounds_of(share) if self.time.shortened else None,
            correction=self.correction,
        )
        return {winner.number: [smaller]}

    def _extrapolated(
        self,
        finalists: Sequence[Finalist],
        tasks: Mapping[int, list[TrialTask]],
        fits: Mapping[int, Fit],
    ) -> dict[int, float]:
        gains: dict[int, float] = {}
        for one in finalists:
            ahead = [
                self._ahead(one, split, fits[task.number])
                for split, task in enumerate(tasks.get(one.number, []))
                if task.number in fits
            ]
            known = [step for step in ahead if step is not None]
            if known:
                rows = self.rows(one)
                gains[one.number] = row_gain(SMALLER * rows, rows, float(np.mean(known)))
        return gains

    def _ahead(self, one: Finalist, split: int, smaller: Fit) -> float | None:
        """By how much its score is ahead of its smaller fit's on the same rows; None where nobody knows.

        Looks that were cut off are compared at the last share of their rounds that both came to.
        """
        if curve := self.finals.curves.get(one.number):
            both = curve.keys() & smaller.to_its_end.keys()
            return curve[max(both)] - smaller.to_its_end[max(both)] if both else None
        seen = one.scores[split] if one.scores else self._record(one).seen
        outcome = smaller.outcome
        if outcome.value is None or seen is None:
            return None
        return seen - (outcome.value + outcome.offset)

    def _record(self, one: Finalist) -> TrialRecord:
        return next(record for record in self.finals.trials if record.number == one.number)
