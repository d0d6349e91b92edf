"""Trials on different splits cannot be compared: the best few are judged again on common splits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lodestar.core.models.watching import WHOLE
from lodestar.core.tuning.common_splits import common_split_seed
from lodestar.core.tuning.drafts import rounds_of
from lodestar.core.tuning.ground import SearchGround
from lodestar.core.tuning.result import Finalist, TrialRecord
from lodestar.core.tuning.together import Fit, together
from lodestar.errors import DataError
from lodestar.interface.execution import TrialTask

__all__ = ["FEWEST_PAIRS", "Finals"]

# Wilcoxon's one-sided test cannot reach its level with fewer pairs.
FEWEST_PAIRS = 5
# Looked at after every split from there on: gentle enough for the best to stay.
LEVEL = 0.05
# What the last rounds bring a look, of what they brought its draft, where both have fewer: seen with
# XGBoost, 0.5 to 1.1 (ADR 30). Else a draft would be chosen for its steep curve.
RISEN = 0.85
# What a study keeps of them: whole fits and looks apart.
FINAL_SCORES, LOOK_SCORES = "finalist_scores", "look_scores"


@dataclass
class Finals:
    """A paired comparison, split by split, of trials that the exploration ranked highest.

    `validation_size` is the share of the rows that judges on each. `windows`: how many windows of time
    were asked for, whose first `splits` are the splits. `look`: the share of their train rows that they
    are fitted on, with coarse histograms, where whole fits would take too long; None: all. `shortened`:
    those have fewer rounds, too. `correction`:
    how much of what a reference says of the rows of a split is taken off at first; None: there is
    none. `alone`: what is to be said of the best trial's own score.
    """

    ground: SearchGround
    trials: Sequence[TrialRecord]
    splits: int
    validation_size: float
    seconds_left: Callable[[], float]
    tell: Callable[[int, int], None]
    windows: int | None = None
    look: float | None = None
    shortened: bool = False
    correction: float | None = None
    alone: str = "which flatters it"
    notes: list[str] = field(default_factory=list)
    # By trial: the seconds of its last fit, for one worker's threads.
    seconds: dict[int, float] = field(default_factory=dict)
    _scores: dict[int, list[float]] = field(default_factory=dict)
    # By trial: the metric at shares of the rounds of its first look, in percent; 100 is the end.
    curves: dict[int, dict[int, float]] = field(default_factory=dict)
    # By split: what was taken off there, as the reference says how hard its rows are; and how much of
    # what it says would best be, by each fit that says so.
    _offsets: dict[int, float] = field(default_factory=dict)
    _slopes: list[float] = field(default_factory=list)
    _dropped: set[int] = field(default_factory=set)
    _left_out: set[int] = field(default_factory=set)
    _errors: list[str] = field(default_factory=list)

    def run(self) -> tuple[Finalist, ...]:
        """Judge split by split until one is left, the splits are used up or the time is.

        The winner first; those with fewer splits than it after it.

        Raises:
            DataError: every one of them fails on the first common split.
        """
        self._scores = {trial.number: [] for trial in self.trials}
        self._recall()
        for split in range(self.splits):
            if self.seconds_left() <= 0 or self.ground.interrupted() or not self._judge(split):
                self._note_end(split)
                break
            self._drop(split + 1)
            self._narrow(split + 1)
            if not any(self._scores.values()):
                raise DataError(f"every finalist failed; the first: {self._errors[0]}")
            if self._decided(split + 1):
                break
            self.tell(split + 1, self.splits)
        if self._left_out:
            self.notes.append(
                f"the time was short: {len(self._left_out)} of {len(self.trials)} finalists were left "
                "out by their means on the first common splits"
            )
        return self._ranked()

    def _note_end(self, done: int) -> None:
        reason = "interrupted" if self.ground.interrupted() else "the time was up"
        if done or any(self._scores.values()):
            splits = f"{done} common splits" if done > 1 else "1 common split"
            self.notes.append(f"{reason}: the finalists were compared on {splits}")
        else:
            self.notes.append(
                f"{reason} before the best trials were compared on a common split: the score is "
                f"that of the best trial on its own split, {self.alone}"
            )

    def _decided(self, judged: int) -> bool:
        """Whether one is left of several. One that was alone from the start is judged to the end."""
        left = len(self._active())
        return left == 0 or (left == 1 < len(self.trials) and judged >= FEWEST_PAIRS)

    def _active(self) -> list[TrialRecord]:
        out = self._dropped | self._left_out
        return [trial for trial in self.trials if trial.number not in out]

    def _judge(self, split: int) -> bool:
        """Run the split for every active finalist; False where the time was up before.

        What the first split says of some is kept all the same: it is better than nothing.
        """
        tasks = [
            self._task(trial, split)
            for trial in self._active()
            if len(self._scores[trial.number]) <= split
        ]
        ended = together(
            self.ground.executor,
            tasks,
            seconds=self.seconds_left,
            interrupted=self.ground.interrupted,
        )
        found: dict[int, float] = {}
        for fit in ended:
            self._take(fit, split, found)
        cut_off = any(task.number not in found.keys() | self._dropped for task in tasks)
        if cut_off and split > 0:
            return False
        for number, value in found.items():
            self._scores[number].append(value)
        self._remember()
        return not cut_off

    def _task(self, trial: TrialRecord, split: int) -> TrialTask:
        return self.task(trial, split, share=self.look, workers=self._lent())

    def _lent(self) -> int:
        """Workers that have no finalist of their own lend their threads."""
        return max(1, self.ground.executor.capacity // len(self._active()))

    def task(
        self, trial: TrialRecord, split: int, *, share: float | None, workers: int = 1
    ) -> TrialTask:
        """A trial's fit on a common split, with the threads of so many workers."""
        return TrialTask(
            number=trial.number,
            hyperparameters=self.ground.hyperparameters(trial.params, workers),
            split_seed=common_split_seed(split),
            watched=self.look is not None and trial.by_rounds,
            share=share,
            coarse=self.look is not None,
            rounds=rounds_of(share) if self.shortened and share is not None else None,
            correction=self.correction,
            judges=None if self.windows else self.validation_size,
            window=(split, self.windows) if self.windows else None,
        )

    def less_offsets(self, scores: Sequence[float]) -> list[float]:
        """Scores on the first splits less what their rows make easy, as the reference says.

        Of that as much as is best for the finalists, which is less than for drafts.
        """
        times = (
            float(np.mean(self._slopes)) / self.correction
            if self._slopes and self.correction
            else 1
        )
        return [score - times * self._offsets.get(split, 0.0) for split, score in enumerate(scores)]

    def _take(self, fit: Fit, split: int, found: dict[int, float]) -> None:
        outcome = fit.outcome
        if outcome.state == "failed":
            # It worked on its own split and fails on another: not a configuration to choose.
            self._dropped.add(outcome.number)
            self._errors.append(outcome.error)
            self.notes.append(f"finalist {outcome.number} failed: {outcome.error}")
            return
        curve = dict(fit.to_its_end)
        if not curve:
            return
        last = max(curve)
        trial = next(one for one in self.trials if one.number == outcome.number)
        if outcome.offset:  # one that was killed at the deadline does not say it
            self._offsets[split] = outcome.offset
        found[outcome.number] = curve[last] + self._offsets.get(split, 0.0)
        if last < WHOLE:
            found[outcome.number] += trial.rise(last) * (RISEN if self.shortened else 1)
            self.notes.append(
                f"finalist {outcome.number} was cut off after {last}% of its rounds: what the others "
                "bring is what they brought its draft"
            )
        if outcome.slope is not None:
            self._slopes.append(outcome.slope)
        if self.look is not None and split == 0:
            self.curves[outcome.number] = curve
        self.seconds[outcome.number] = outcome.seconds * self._lent() * WHOLE / last

    def _drop(self, judged: int) -> None:
        """Drop those that are worse than the leader by Wilcoxon's signed-rank test.

        It looks at the first `judged` splits alone, so that a resumed comparison drops the same.
        """
        from scipy.stats import wilcoxon

        sign = self.ground.sign
        scores = {
            trial.number: sign * np.array(self._scores[trial.number][:judged])
            for trial in self._active()
        }
        if judged < FEWEST_PAIRS or not scores:
            return
        leader = max(scores, key=lambda number: float(np.mean(scores[number])))
        for number, found in scores.items():
            gaps = scores[leader] - found
            if gaps.any() and wilcoxon(gaps, alternative="greater").pvalue < LEVEL:
                self._dropped.add(number)

    def _narrow(self, judged: int) -> None:
        """Leave the worse ones out, by their means, where the time is too short for all of them.

        Half of them at a time, or so (successive halving, Jamieson & Talwalkar 2016): on the same
        splits one comparison tells much, and the rest of the time is worth more to the better half.
        Those that are left fill the workers, as one that waits for the others tells nothing.
        """
        active = self._active()
        to_go = min(FEWEST_PAIRS, self.splits) - judged
        costs = [self.seconds[trial.number] for trial in active if trial.number in self.seconds]
        if to_go <= 0 or not costs:
            return
        workers = self.ground.executor.capacity
        fits = self.seconds_left() * workers / max(sum(costs) / len(costs), 1e-9)
        kept = max(int(fits / to_go), (len(active) + 1) // 2)
        if workers < kept < len(active):
            kept -= kept % workers
        sign = self.ground.sign
        ranked = sorted(
            active, key=lambda trial: -sign * float(np.mean(self._scores[trial.number]))
        )
        self._left_out |= {trial.number for trial in ranked[kept:]}

    def _ranked(self) -> tuple[Finalist, ...]:
        finalists = [self._finalist(trial) for trial in self.trials]
        sign = self.ground.sign
        return tuple(
            sorted(finalists, key=lambda item: (item.dropped, -len(item.scores), -sign * item.mean))
        )

    def _finalist(self, trial: TrialRecord) -> Finalist:
        scores = self._scores[trial.number]
        searched = trial.value or 0.0
        variance = float(np.var(scores, ddof=1)) if len(scores) > 1 else float("nan")
        overlap = self.validation_size / (1 - self.validation_size)
        corrected = (1 / max(len(scores), 1) + overlap) * variance
        return Finalist(
            number=trial.number,
            params=trial.params,
            searched=searched,
            scores=tuple(scores),
            mean=float(np.mean(scores)) if scores else searched,
            error=float(np.sqrt(corrected)),
            dropped=trial.number in self._dropped,
        )

    def _remember(self) -> None:
        self.ground.study.set_user_attr(
            self._kept_as,
            {
                "scores": {str(number): scores for number, scores in self._scores.items()},
                "slopes": self._slopes,
                "offsets": {str(split): offset for split, offset in self._offsets.items()},
                "seconds": {str(number): seconds for number, seconds in self.seconds.items()},
                "share": self.look,
                "curves": {
                    str(number): sorted(curve.items()) for number, curve in self.curves.items()
                },
            },
        )

    def _recall(self) -> None:
        """Take up what a killed process had finished, if it was about the same finalists and share."""
        kept = self.ground.study.user_attrs.get(self._kept_as, {})
        scores = {int(number): list(found) for number, found in kept.get("scores", {}).items()}
        if set(scores) == set(self._scores) and kept["share"] == self.look:
            self._scores = scores
            self._slopes = list(kept["slopes"])
            self._offsets = {int(split): offset for split, offset in kept["offsets"].items()}
            self.seconds = {int(number): seconds for number, seconds in kept["seconds"].items()}
            self.curves = {int(number): dict(curve) for number, curve in kept["curves"].items()}

    @property
    def _kept_as(self) -> str:
        return FINAL_SCORES if self.look is None else LOOK_SCORES
