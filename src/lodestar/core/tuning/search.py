"""The search: ask Optuna, run trials side by side, prune, stop in time; then the finalists decide."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from lodestar.core.models.family import STRIDE
from lodestar.core.tuning.budget import TimeBudget
from lodestar.core.tuning.ground import SearchGround
from lodestar.core.tuning.importances import importances_of
from lodestar.core.tuning.judging import Judged, Judging
from lodestar.core.tuning.rehearsal import settled_correction, settled_draft
from lodestar.core.tuning.result import Finalist, TrialRecord, TuningResult
from lodestar.core.tuning.space import SearchSpace
from lodestar.core.tuning.trials import Trials
from lodestar.errors import DataError
from lodestar.interface.execution import (
    TrialOutcome,
    TrialReport,
    TrialTask,
    Verdict,
)

__all__ = ["NoTrialInTimeError", "Search", "SearchListener", "SearchProgress"]

SHORT = "trials_are_short"
# An objective that has not moved by then never will: it does not depend on what is searched.
CONSTANT_AFTER = 10
FAILING_AFTER = 5
# Looking at a trial costs some 20 ms: one that takes less than twice that is not worth it (seconds).
SHORT_TRIAL = 0.05
TICK = 0.25
PERFECT = {"maximize": 1.0, "minimize": 0.0}

SearchListener = Callable[["SearchProgress"], None]


class NoTrialInTimeError(DataError):
    """The time was up before a single trial had ended."""


@dataclass(frozen=True)
class SearchProgress:
    """How far a search is."""

    stage: str
    done: int
    total: int
    pruned: int
    failed: int
    best: float | None
    seconds_left: float


@dataclass
class Search:
    """One study, explored to its budget or its deadline.

    `rounds_name` is the hyperparameter that is settled by trials that stop early.
    """

    ground: SearchGround
    space: SearchSpace
    listener: SearchListener
    rounds_name: str | None = None
    notes: list[str] = field(default_factory=list)
    _corrected: bool = False
    _time: TimeBudget = field(init=False)
    _trials: Trials = field(init=False)

    def run(self) -> TuningResult:
        """Explore, then judge the best on common splits.

        Raises:
            DataError: every trial fails, the objective is constant, or none ended in time.
        """
        self._time = TimeBudget(self.ground.limits, self.ground.executor)
        self._trials = Trials(self.ground, self.space)
        waiting = self._resume()
        self._corrected = settled_correction(self.ground.study, self.ground.limits)
        self._time.draft = settled_draft(self.ground, self.space)
        self._note_drafts()
        self._explore(waiting)
        best = self._trials.complete()
        if not best:
            raise self._nothing_complete()
        judging = self._judging([self._settled(record) for record in best])
        judged = judging.run()
        self.notes += judging.notes
        return self._result(judged, best[0].number)

    def _result(self, judged: Judged, best_alone: int) -> TuningResult:
        winner = judged.finalists[0]
        naive = next((one for one in judged.finalists if one.number == best_alone), None)
        return TuningResult(
            metric=self.ground.metric.name,
            direction=self.ground.metric.direction,
            best_params=winner.params,
            best_score=judged.expected.value,
            best_error=winner.error,
            optimism=self._optimism(naive),
            finalists=judged.finalists,
            history=tuple(sorted(self._trials.history, key=lambda record: record.number)),
            search_space=self.space.described(),
            seconds=self._time.spent(),
            asked=self.ground.limits.n_trials,
            notes=tuple(self.notes),
            importances=importances_of(self.ground.study),
            draft_share=self._time.draft,
            finalist_share=judged.share,
            expected=judged.expected,
        )

    def _optimism(self, naive: Finalist | None) -> float:
        """By how much the best trial's score flatters; a draft's is that of another fit."""
        if naive is None or not naive.scores or self._time.draft is not None:
            return math.nan
        return self.ground.sign * (naive.searched - naive.mean)

    def _note_drafts(self) -> None:
        if self._time.draft is not None:
            limits = self.ground.limits
            fewer = ""
            if self._time.strided:
                fewer = f", in 1/{STRIDE} of their rounds with larger steps"
            elif self._time.rounds is not None:
                fewer = f", in {self._time.rounds:.0%} of their rounds"
            self.notes.append(
                f"{limits.n_trials} trials would not fit into {limits.seconds:g} s: they "
                f"are drafts, fitted on {self._time.draft:.0%} of their rows{fewer}"
            )

    def _judging(self, best: list[TrialRecord]) -> Judging:
        return Judging(
            ground=self.ground,
            best=best,
            time=self._time,
            tell=lambda done, total: self._tell("finalists", done, total),
            correction=self._correction(),
        )

    def _settled(self, record: TrialRecord) -> TrialRecord:
        """With as many rounds as were best for it, so that it need not be stopped again.

        They were chosen on the trial's own split: the common ones judge that choice as well, and the
        final fit needs no validation rows.
        """
        if record.rounds is None or self.rounds_name is None:
            return record
        return replace(record, params={**record.params, self.rounds_name: record.rounds})

    def _resume(self) -> list[int]:
        """Take up what the study holds; the slots that are still to be tried."""
        self._trials.recall()
        self._time.reserve(self._trials.complete())
        done = {record.number for record in self._trials.history}
        if done:
            self.notes.append(f"resumed after {len(done)} of {self.ground.limits.n_trials} trials")
        return [slot for slot in range(self.ground.limits.n_trials) if slot not in done]

    def _explore(self, waiting: list[int]) -> None:
        left = len(waiting)
        while waiting or self._trials.running:
            late = self._time.until <= time.monotonic() or self.ground.interrupted()
            while waiting and not late and self._trials.running < self.ground.executor.capacity:
                self._start(waiting.pop(0))
            if late and not self._trials.running:
                break
            if self.ground.interrupted():
                self.ground.executor.halt()
            for event in self.ground.executor.events(timeout=TICK):
                if isinstance(event, TrialReport):
                    self._answer(event)
                else:
                    self._finish(event)
            self._tell("trials", len(self._trials.history), self.ground.limits.n_trials)
        if left and len(self._trials.history) < self.ground.limits.n_trials:
            reason = "interrupted" if self.ground.interrupted() else "the time was up"
            done = len(self._trials.history)
            self.notes.append(f"{reason} after {done} of {self.ground.limits.n_trials} trials")

    def _start(self, slot: int) -> None:
        params = self._trials.begin(slot)
        task = TrialTask(
            number=slot,
            hyperparameters=self.ground.hyperparameters(params, 1),
            split_seed=slot,
            watched=self.ground.limits.pruning and not self._trials_are_short(),
            patience=self.ground.limits.patience,
            draft=self._time.draft,
            strided=self._time.strided,
            rounds=self._time.rounds,
            correction=self._correction(),
        )
        self.ground.executor.submit(task, seconds=max(self._time.until - time.monotonic(), 0.0))

    def _correction(self) -> float | None:
        return self._trials.slope() if self._corrected else None

    def _answer(self, report: TrialReport) -> None:
        self._trials.report(report)
        verdict: Verdict = "go on"
        if self.ground.interrupted() or self._time.until <= time.monotonic():
            verdict = "stop"
        elif self._trials.prunes(report.number):
            verdict = "prune"
        self.ground.executor.answer(report.number, verdict)

    def _finish(self, outcome: TrialOutcome) -> None:
        record = self._trials.end(outcome)
        if record is None:
            return
        self._time.reserve(self._trials.complete())
        if record.state == "complete":
            self._refuse_constant()
        elif record.state == "failed":
            self._refuse_failing()

    def _refuse_constant(self) -> None:
        values = [record.seen for record in self._trials.history if record.state == "complete"]
        if len(values) != CONSTANT_AFTER or len(set(values)) != 1:
            return
        words = (
            f"{self.ground.metric.name} is {values[0]:g} in each of the first {len(values)} trials"
        )
        if values[0] == PERFECT[self.ground.metric.direction]:
            self.notes.append(f"{words}: nothing is left to search for")
            return
        raise DataError(
            f"{words}: it does not depend on what is searched",
            hint="search other hyperparameters or wider ranges, or choose another metric",
        )

    def _refuse_failing(self) -> None:
        enough = min(FAILING_AFTER, self.ground.limits.n_trials)
        errors = self._trials.errors
        if len(errors) >= enough and len(errors) == len(self._trials.history):
            raise DataError(
                f"every one of the first {len(errors)} trials failed; the first: {errors[0]}",
                hint="check model.hyperparameters and the data",
            )

    def _nothing_complete(self) -> DataError:
        if self._trials.errors:
            return DataError(f"no trial succeeded; the first failure: {self._trials.errors[0]}")
        if self.ground.interrupted():
            return DataError("interrupted before a single trial had ended", hint="train --resume")
        return NoTrialInTimeError(
            f"no trial ended within {self.ground.limits.seconds:g} s",
            hint="raise hyperparameter_tuning.timeout in the config, or narrow the ranges to "
            "cheaper models; with hyperparameter_tuning.on_timeout: defaults the recipe trains "
            "without a search",
        )

    def _trials_are_short(self) -> bool:
        """Whether pruning saves nothing; decided once, so that a resumed search goes the same way."""
        short = self.ground.study.user_attrs.get(SHORT)
        if short is None:
            known = sorted(item.seconds for item in self._trials.complete())
            if len(known) < max(self.ground.limits.startup_trials, 1):
                return False
            short = known[len(known) // 2] < SHORT_TRIAL
            self.ground.study.set_user_attr(SHORT, short)
        note = f"trials take less than {SHORT_TRIAL:g} s: pruning them would save nothing"
        if short and note not in self.notes:
            self.notes.append(note)
        return bool(short)

    def _tell(self, stage: str, done: int, total: int) -> None:
        values = [record.value for record in self._trials.complete()[:1]]
        states = [record.state for record in self._trials.history]
        self.listener(
            SearchProgress(
                stage=stage,
                done=done,
                total=total,
                pruned=states.count("pruned"),
                failed=states.count("failed"),
                best=values[0] if values else None,
                seconds_left=self._time.left(),
            )
        )
