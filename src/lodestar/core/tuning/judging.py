"""The end of a search: looks at the best drafts, finalists, and what to expect of the model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import optuna

from lodestar.core.metrics import Metric
from lodestar.core.tuning.budget import TimeBudget
from lodestar.core.tuning.finalists import Finals
from lodestar.core.tuning.result import Expected, Finalist, SearchLimits, TrialRecord
from lodestar.core.tuning.row_gain import GAIN_SPLITS, SMALLER, row_gain
from lodestar.core.tuning.together import together
from lodestar.interface.execution import TrialExecutor, TrialTask

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

    study: optuna.Study
    best: list[TrialRecord]
    metric: Metric
    limits: SearchLimits
    executor: TrialExecutor
    hyperparameters: Callable[[Mapping[str, Any], int], Mapping[str, Any]]
    time: TimeBudget
    interrupted: Callable[[], bool]
    tell: Callable[[int, int], None]
    corrected: bool
    notes: list[str] = field(default_factory=list)

    def run(self) -> Judged:
        """Look, compare, and say what is to be expected of the winner.

        Raises:
            DataError: every finalist fails on the first common split.
        """
        finals, finalists = self._compared()
        expected = self._expected(finals, finalists[0])
        self.notes += dict.fromkeys(finals.notes)  # looks that went on said some of it twice
        return Judged(finalists, finals.look, expected)

    def _compared(self) -> tuple[Finals, tuple[Finalist, ...]]:
        """Those of all rows where the time allows, else those of the looks."""
        planned = None if self.interrupted() else self.time.looks(self.best)
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
        looks.splits = self.limits.splits
        return looks, looks.run()

    def _finals(self, trials: list[TrialRecord], *, look: float | None = None) -> Finals:
        wanted = min(self.limits.candidates, len(self.best))
        if look is None and len(trials) < wanted and not self.interrupted():
            self.notes.append(
                f"the time that was left is enough to compare {len(trials)} of {wanted} finalists"
            )
        kept = self.time.gain_seconds(trials, look)
        return Finals(
            study=self.study,
            trials=trials,
            metric=self.metric,
            splits=self.limits.splits if look is None else 1,
            validation_size=self.limits.validation_size,
            windows=self.limits.windows,
            look=look,
            corrected=self.corrected,
            executor=self.executor,
            hyperparameters=self.hyperparameters,
            seconds_left=lambda: max(self.time.left() - kept, 0.0),
            interrupted=self.interrupted,
            tell=self.tell,
            alone="which flatters it" if self.time.draft is None else "and of a draft",
        )

    def _expected(self, finals: Finals, winner: Finalist) -> Expected:
        record = next(one for one in finals.trials if one.number == winner.number)
        if winner.scores:
            rows = (1 - self.limits.validation_size) * (finals.look or 1.0)
            corrected = finals.less_offsets(winner.scores)
            ahead = self._ahead(self._smaller(finals, record, len(corrected)), corrected)
        else:
            rows = self.limits.train_size * (self.time.draft or 1.0)
            corrected = [winner.mean]  # a trial's own score is
            ahead = self._ahead(self._smaller_draft(record), corrected)
        offset = winner.mean - float(np.mean(corrected))
        gain = None if ahead is None else row_gain(SMALLER * rows, rows, ahead)
        return Expected(winner.mean, offset, gain, rows)

    def _smaller(self, finals: Finals, record: TrialRecord, judged: int) -> list[TrialTask]:
        """Its fits on a third of the rows, on common splits, each with a number below 0 of its own."""
        share = SMALLER * (finals.look or 1.0)
        splits = range(min(GAIN_SPLITS, judged))
        # Two threads are no faster at a draft's size than one.
        lent = 1 if finals.look else max(1, self.executor.capacity // len(splits))
        return [
            replace(finals.task(record, split, share=share, workers=lent), number=-1 - split)
            for split in splits
        ]

    def _smaller_draft(self, record: TrialRecord) -> list[TrialTask]:
        """Where there are no common splits: on the draft's own, whose rows judge again."""
        if self.time.draft is None:
            return []
        return [
            TrialTask(
                number=-1,
                hyperparameters=self.hyperparameters(record.params, 1),
                split_seed=record.number,
                watched=False,
                draft=self.time.draft * SMALLER,
                corrected=self.corrected,
            )
        ]

    def _ahead(self, smaller: list[TrialTask], scores: Sequence[float]) -> float | None:
        """By how much corrected scores are ahead of smaller fits'; None where nobody knows."""
        if not self.limits.gains or self.interrupted() or not smaller:
            return None
        ended = together(
            self.executor, smaller, seconds=self.time.left, interrupted=self.interrupted
        )
        ahead = [scores[-1 - one.number] - one.value for one in ended if one.value is not None]
        if not ahead:
            reason = next((one.error for one in ended if one.error), "the time was up")
            self.notes.append(f"what all rows bring to the score is not known: {reason}")
            return None
        return float(np.mean(ahead))
