"""Trials on different splits cannot be compared: the best few are judged again on common splits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from lodestar.core.metrics import Metric
from lodestar.core.tuning.result import Finalist
from lodestar.interface.execution import TrialExecutor, TrialOutcome, TrialReport, TrialTask

__all__ = ["Finals", "common_split_seed"]

FIRST_COMMON_SEED = 1_000_000
# Wilcoxon's one-sided test cannot reach its level with fewer pairs.
FEWEST_PAIRS = 5
LEVEL = 0.1
# The validation part is a quarter of the rows by default: n_test / n_train of the correction.
VALIDATION_TO_TRAIN = 1 / 3
TICK = 0.25
FINAL_SCORES = "finalist_scores"


def common_split_seed(position: int) -> int:
    """The seed of the finalists' splits, far from the trials' own."""
    return FIRST_COMMON_SEED + position


@dataclass
class Finals:
    """A paired comparison, split by split, of trials that the exploration ranked highest."""

    study: optuna.Study
    trials: Sequence[FrozenTrial]
    metric: Metric
    splits: int
    executor: TrialExecutor
    hyperparameters: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    seconds_left: Callable[[], float]
    interrupted: Callable[[], bool]
    tell: Callable[[int, int], None]
    notes: list[str] = field(default_factory=list)
    _scores: dict[int, list[float]] = field(default_factory=dict)
    _dropped: set[int] = field(default_factory=set)

    def run(self) -> tuple[Finalist, ...]:
        """Judge split by split until one is left, the splits are used up or the time is.

        The winner first; those with fewer splits than it after it.
        """
        self._scores = {trial.number: [] for trial in self.trials}
        self._recall()
        for split in range(self.splits):
            if self.seconds_left() <= 0 or self.interrupted():
                self.notes.append(f"the finalists were compared on {split} of {self.splits} splits")
                break
            if not self._judge(split):
                self.notes.append(f"the finalists were compared on {split} of {self.splits} splits")
                break
            self._drop()
            if len(self._active()) == 1:
                break
            self.tell(split + 1, self.splits)
        return self._ranked()

    def _active(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials if trial.number not in self._dropped]

    def _judge(self, split: int) -> bool:
        """Run the split for every active finalist; False where the time was up before."""
        waiting = [trial for trial in self._active() if len(self._scores[trial.number]) <= split]
        found: dict[int, float] = {}
        running: set[int] = set()
        failed: set[int] = set()
        while waiting or running:
            while waiting and len(running) < self.executor.capacity:
                trial = waiting.pop(0)
                running.add(trial.number)
                task = TrialTask(
                    number=trial.number,
                    hyperparameters=self.hyperparameters(trial.params),
                    split_seed=common_split_seed(split),
                    watched=False,
                )
                self.executor.submit(task, seconds=self.seconds_left())
            for event in self.executor.events(timeout=TICK):
                if isinstance(event, TrialReport):
                    self.executor.answer(event.number, "go on")
                    continue
                running.discard(event.number)
                self._take(event, found, failed)
        if failed:
            return False
        for number, value in found.items():
            self._scores[number].append(value)
        self._remember()
        return True

    def _take(self, outcome: TrialOutcome, found: dict[int, float], failed: set[int]) -> None:
        if outcome.value is not None:
            found[outcome.number] = outcome.value
        elif outcome.state == "failed":
            # It worked on its own split and fails on another: not a configuration to choose.
            self._dropped.add(outcome.number)
            self.notes.append(f"finalist {outcome.number} failed: {outcome.error}")
        else:
            failed.add(outcome.number)

    def _drop(self) -> None:
        """Drop those that are worse than the leader by Wilcoxon's signed-rank test."""
        from scipy.stats import wilcoxon

        active = [trial.number for trial in self._active()]
        if not active:
            return
        sign = 1.0 if self.metric.direction == "maximize" else -1.0
        means = {number: sign * float(np.mean(self._scores[number])) for number in active}
        leader = max(active, key=lambda number: means[number])
        for number in active:
            gaps = sign * (np.array(self._scores[leader]) - np.array(self._scores[number]))
            if number == leader or len(gaps) < FEWEST_PAIRS or not gaps.any():
                continue
            if wilcoxon(gaps, alternative="greater").pvalue < LEVEL:
                self._dropped.add(number)

    def _ranked(self) -> tuple[Finalist, ...]:
        finalists = [self._finalist(trial) for trial in self.trials]
        sign = 1.0 if self.metric.direction == "maximize" else -1.0
        return tuple(
            sorted(finalists, key=lambda item: (-len(item.scores), item.dropped, -sign * item.mean))
        )

    def _finalist(self, trial: FrozenTrial) -> Finalist:
        scores = self._scores[trial.number]
        searched = trial.value or 0.0
        variance = float(np.var(scores, ddof=1)) if len(scores) > 1 else float("nan")
        corrected = (1 / max(len(scores), 1) + VALIDATION_TO_TRAIN) * variance
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
        kept = {str(number): scores for number, scores in self._scores.items()}
        self.study.set_user_attr(FINAL_SCORES, kept)

    def _recall(self) -> None:
        """Take up what a killed process had finished, if it was about the same finalists."""
        kept = self.study.user_attrs.get(FINAL_SCORES, {})
        if {int(number) for number in kept} == set(self._scores):
            self._scores = {int(number): list(scores) for number, scores in kept.items()}
