"""The search: ask Optuna, run trials side by side, prune, stop in time; then the finalists decide."""

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from lodestar.core.metrics import Metric
from lodestar.core.tuning.algorithms import sampler_of
from lodestar.core.tuning.budget import TimeBudget
from lodestar.core.tuning.finalists import Finals
from lodestar.core.tuning.importances import importances_of
from lodestar.core.tuning.rehearsal import settled_correction, settled_draft
from lodestar.core.tuning.result import Finalist, SearchLimits, TrialRecord, TuningResult
from lodestar.core.tuning.space import SearchSpace
from lodestar.errors import DataError
from lodestar.interface.execution import (
    TrialExecutor,
    TrialOutcome,
    TrialReport,
    TrialTask,
    Verdict,
)

__all__ = ["NoTrialInTimeError", "Search", "SearchListener", "SearchProgress"]

SLOT = "slot"
SECONDS = "seconds"
ROUNDS = "rounds"
OFFSET = "offset"
ERROR = "error"
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
class _Running:
    trial: Trial
    params: dict[str, Any]
    curve: list[tuple[int, float]] = field(default_factory=list)
    pruned: bool = False


@dataclass
class Search:
    """One study, explored to its budget or its deadline.

    `slot` counts trials from 0 to n_trials - 1 and seeds split and sampler; a trial whose process
    was killed gives its slot to the trial that repeats it, so that a resumed search goes the same
    way. (Not with HyperbandPruner, which draws brackets by Optuna's own trial numbers.)
    `rounds_name` is the hyperparameter that is settled by trials that stop early. `hyperparameters`
    takes what was chosen, and the threads of how many workers the fit may have.
    """

    study: optuna.Study
    space: SearchSpace
    metric: Metric
    limits: SearchLimits
    executor: TrialExecutor
    hyperparameters: Callable[[Mapping[str, Any], int], Mapping[str, Any]]
    listener: SearchListener
    interrupted: Callable[[], bool]
    rounds_name: str | None = None
    notes: list[str] = field(default_factory=list)
    _running: dict[int, _Running] = field(default_factory=dict)
    _history: list[TrialRecord] = field(default_factory=list)
    _errors: list[str] = field(default_factory=list)
    _corrected: bool = False
    _time: TimeBudget = field(init=False)

    def run(self) -> TuningResult:
        """Explore, then judge the best on common splits.

        Raises:
            DataError: every trial fails, the objective is constant, or none ended in time.
        """
        self._time = TimeBudget(self.limits, self.executor)
        waiting = self._resume()
        self._corrected = settled_correction(self.study, self.limits)
        self._time.draft = self._settled_draft()
        self._explore(waiting)
        best = self._complete()
        if not best:
            raise self._nothing_complete()
        finals = self._finals(best)
        finalists = finals.run()
        naive = next((item for item in finalists if item.number == best[0].number), None)
        return self._result(finalists, naive, (*self.notes, *finals.notes))

    def _result(
        self, finalists: tuple[Finalist, ...], naive: Finalist | None, notes: tuple[str, ...]
    ) -> TuningResult:
        winner = finalists[0]
        return TuningResult(
            metric=self.metric.name,
            direction=self.metric.direction,
            best_params=winner.params,
            best_score=winner.mean,
            best_error=winner.error,
            optimism=self._optimism(naive),
            finalists=finalists,
            history=tuple(sorted(self._history, key=lambda record: record.number)),
            search_space=self.space.described(),
            seconds=self._time.spent(),
            asked=self.limits.n_trials,
            notes=notes,
            importances=importances_of(self.study),
            draft_share=self._time.draft,
        )

    def _optimism(self, naive: Finalist | None) -> float:
        """By how much the best trial's score flatters; a draft's is that of another fit."""
        if naive is None or not naive.scores or self._time.draft is not None:
            return math.nan
        return self._sign() * (naive.searched - naive.mean)

    def _settled_draft(self) -> float | None:
        share = settled_draft(
            self.study,
            self.space.distributions(),
            self.limits,
            self.executor,
            lambda drawn: self.hyperparameters(self.space.chosen(drawn), 1),
            interrupted=self.interrupted,
        )
        if share is not None:
            self.notes.append(
                f"{self.limits.n_trials} trials would not fit into {self.limits.seconds:g} s: they "
                f"are drafts, fitted on {share:.0%} of their rows; finalists are fitted on all"
            )
        return share

    def _finals(self, best: list[TrialRecord]) -> Finals:
        """The common splits for as many of the best as there is time for."""
        wanted = min(self.limits.candidates, len(best))
        kept = self._time.affordable(best)
        if len(kept) < wanted and not self.interrupted():
            self.notes.append(
                f"the time that was left is enough to compare {len(kept)} of {wanted} finalists"
            )
        return Finals(
            study=self.study,
            trials=[self._settled(record) for record in kept],
            metric=self.metric,
            splits=self.limits.splits,
            validation_size=self.limits.validation_size,
            windows=self.limits.windows,
            executor=self.executor,
            hyperparameters=self.hyperparameters,
            seconds_left=self._time.left,
            interrupted=self.interrupted,
            tell=lambda done, total: self._tell("finalists", done, total),
            alone="which flatters it" if self._time.draft is None else "and of a draft",
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
        """Take up what the study holds; the slots that are still to be tried.

        Trials that a killed process left running are failed, and their slots are tried again, unless
        the failure was theirs.
        """
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state == TrialState.RUNNING:
                self.study.tell(trial.number, state=TrialState.FAIL)
            if SLOT in trial.user_attrs and _has_ended(trial):
                self._history.append(_record(trial, self.space.chosen(trial.params)))
                self._errors += [trial.user_attrs[ERROR]] if ERROR in trial.user_attrs else []
        self._time.reserve(self._complete())
        done = {record.number for record in self._history}
        if done:
            self.notes.append(f"resumed after {len(done)} of {self.limits.n_trials} trials")
        return [slot for slot in range(self.limits.n_trials) if slot not in done]

    def _explore(self, waiting: list[int]) -> None:
        left = len(waiting)
        while waiting or self._running:
            late = self._time.until <= time.monotonic() or self.interrupted()
            while waiting and not late and len(self._running) < self.executor.capacity:
                self._start(waiting.pop(0))
            if late and not self._running:
                break
            if self.interrupted():
                self.executor.halt()
            for event in self.executor.events(timeout=TICK):
                if isinstance(event, TrialReport):
                    self._answer(event)
                else:
                    self._finish(event)
            self._tell("trials", len(self._history), self.limits.n_trials)
        if left and len(self._history) < self.limits.n_trials:
            reason = "interrupted" if self.interrupted() else "the time was up"
            done = len(self._history)
            self.notes.append(f"{reason} after {done} of {self.limits.n_trials} trials")

    def _start(self, slot: int) -> None:
        self.study.sampler = sampler_of(self.limits, slot)
        trial = self.study.ask(self.space.distributions())
        trial.set_user_attr(SLOT, slot)
        params = self.space.chosen(trial.params)
        self._running[slot] = _Running(trial, params)
        task = TrialTask(
            number=slot,
            hyperparameters=self.hyperparameters(params, 1),
            split_seed=slot,
            watched=self.limits.pruning and not self._trials_are_short(),
            patience=self.limits.patience,
            draft=self._time.draft,
            corrected=self._corrected,
        )
        self.executor.submit(task, seconds=max(self._time.until - time.monotonic(), 0.0))

    def _answer(self, report: TrialReport) -> None:
        running = self._running[report.number]
        running.trial.report(report.value, report.step)
        running.curve.append((report.step, report.value))
        verdict: Verdict = "go on"
        if self.interrupted() or self._time.until <= time.monotonic():
            verdict = "stop"
        elif _should_prune(running.trial):
            running.pruned = True
            verdict = "prune"
        self.executor.answer(report.number, verdict)

    def _finish(self, outcome: TrialOutcome) -> None:
        running = self._running.pop(outcome.number)
        running.trial.set_user_attr(SECONDS, round(outcome.seconds, 4))
        if outcome.offset:
            running.trial.set_user_attr(OFFSET, outcome.offset)
        if outcome.state == "complete":
            if outcome.rounds is not None:
                running.trial.set_user_attr(ROUNDS, outcome.rounds)
            self.study.tell(running.trial, outcome.value)
            self._keep(outcome, running, "complete", outcome.value)
            self._refuse_constant()
        elif running.pruned:
            self.study.tell(running.trial, state=TrialState.PRUNED)
            self._keep(outcome, running, "pruned", running.curve[-1][1])
        elif outcome.state == "stopped":
            # The deadline came before its end: it says nothing, and its slot stays open.
            self.study.tell(running.trial, state=TrialState.FAIL)
        else:
            running.trial.set_user_attr(ERROR, outcome.error)
            self.study.tell(running.trial, state=TrialState.FAIL)
            self._errors.append(outcome.error)
            self._keep(outcome, running, "failed", None)
            self._refuse_failing()

    def _keep(
        self, outcome: TrialOutcome, running: _Running, state: str, value: float | None
    ) -> None:
        record = TrialRecord(
            number=outcome.number,
            state=state,
            value=value,
            params=running.params,
            curve=tuple(running.curve),
            seconds=round(outcome.seconds, 4),
            rounds=outcome.rounds,
            offset=outcome.offset,
        )
        self._history.append(record)
        self._time.reserve(self._complete())

    def _refuse_constant(self) -> None:
        values = [record.seen for record in self._history if record.state == "complete"]
        if len(values) != CONSTANT_AFTER or len(set(values)) != 1:
            return
        words = f"{self.metric.name} is {values[0]:g} in each of the first {len(values)} trials"
        if values[0] == PERFECT[self.metric.direction]:
            self.notes.append(f"{words}: nothing is left to search for")
            return
        raise DataError(
            f"{words}: it does not depend on what is searched",
            hint="search other hyperparameters or wider ranges, or choose another metric",
        )

    def _refuse_failing(self) -> None:
        enough = min(FAILING_AFTER, self.limits.n_trials)
        if len(self._errors) >= enough and len(self._errors) == len(self._history):
            raise DataError(
                f"every one of the first {len(self._errors)} trials failed; the first: "
                f"{self._errors[0]}",
                hint="check model.hyperparameters and the data",
            )

    def _nothing_complete(self) -> DataError:
        if self._errors:
            return DataError(f"no trial succeeded; the first failure: {self._errors[0]}")
        if self.interrupted():
            return DataError("interrupted before a single trial had ended", hint="train --resume")
        return NoTrialInTimeError(
            f"no trial ended within {self.limits.seconds:g} s",
            hint="raise hyperparameter_tuning.timeout in the config, or narrow the ranges to "
            "cheaper models; with hyperparameter_tuning.on_timeout: defaults the recipe trains "
            "without a search",
        )

    def _complete(self) -> list[TrialRecord]:
        """The complete trials, the best first; of equal ones the first."""
        done = [record for record in self._history if record.state == "complete"]
        return sorted(done, key=lambda item: (-self._sign() * (item.value or 0.0), item.number))

    def _trials_are_short(self) -> bool:
        """Whether pruning saves nothing; decided once, so that a resumed search goes the same way."""
        short = self.study.user_attrs.get(SHORT)
        if short is None:
            known = sorted(item.seconds for item in self._history if item.state == "complete")
            if len(known) < max(self.limits.startup_trials, 1):
                return False
            short = known[len(known) // 2] < SHORT_TRIAL
            self.study.set_user_attr(SHORT, short)
        note = f"trials take less than {SHORT_TRIAL:g} s: pruning them would save nothing"
        if short and note not in self.notes:
            self.notes.append(note)
        return bool(short)

    def _sign(self) -> float:
        return 1.0 if self.metric.direction == "maximize" else -1.0

    def _tell(self, stage: str, done: int, total: int) -> None:
        values = [record.value for record in self._complete()[:1]]
        states = [record.state for record in self._history]
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


def _should_prune(trial: Trial) -> bool:
    """Ask the pruner; no trial of ours runs meanwhile that could warn of something else."""
    with warnings.catch_warnings():
        # WilcoxonPruner warns where two trials were not looked at at the same shares.
        warnings.simplefilter("ignore")
        return trial.should_prune()


def _has_ended(trial: FrozenTrial) -> bool:
    return trial.state in {TrialState.COMPLETE, TrialState.PRUNED} or ERROR in trial.user_attrs


def _record(trial: FrozenTrial, params: dict[str, Any]) -> TrialRecord:
    states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}
    value = trial.value
    return TrialRecord(
        number=trial.user_attrs[SLOT],
        state=states.get(trial.state, "failed"),
        value=None if value is None or math.isnan(value) else value,
        params=params,
        curve=tuple(sorted(trial.intermediate_values.items())),
        seconds=trial.user_attrs.get(SECONDS, 0.0),
        rounds=trial.user_attrs.get(ROUNDS),
        offset=trial.user_attrs.get(OFFSET, 0.0),
    )
