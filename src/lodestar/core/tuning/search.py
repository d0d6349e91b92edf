"""The search: ask Optuna, run trials side by side, prune, stop in time; then the finalists decide."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from lodestar.core.metrics import Metric
from lodestar.core.tuning.finalists import Finals
from lodestar.core.tuning.result import SearchLimits, TrialRecord, TuningResult
from lodestar.core.tuning.space import SearchSpace
from lodestar.errors import DataError
from lodestar.interface.execution import (
    TrialExecutor,
    TrialOutcome,
    TrialReport,
    TrialTask,
    Verdict,
)

__all__ = [
    "NoTrialInTimeError",
    "Search",
    "SearchListener",
    "SearchProgress",
    "pruner_of",
    "sampler_of",
]

SLOT = "slot"
SECONDS = "seconds"
ERROR = "error"
# An objective that has not moved by then never will: it does not depend on what is searched.
CONSTANT_AFTER = 10
FAILING_AFTER = 5
# Looking at trials that take milliseconds costs more than it saves.
SHORT_TRIAL = 0.1
# The share of the time that is kept for the finalists, and how often the loop looks at the clock.
FINALISTS_SHARE = 0.3
TICK = 0.25

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
    slot: int
    began: float
    pruned: bool = False


@dataclass
class Search:
    """One study, explored to its budget or its deadline.

    `slot` counts trials from 0 to n_trials - 1 and seeds split and sampler; a trial whose process
    was killed gives its slot to the trial that repeats it, so that a resumed search goes the same way.
    """

    study: optuna.Study
    space: SearchSpace
    metric: Metric
    limits: SearchLimits
    executor: TrialExecutor
    hyperparameters: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    listener: SearchListener
    interrupted: Callable[[], bool]
    notes: list[str] = field(default_factory=list)
    _running: dict[int, _Running] = field(default_factory=dict)
    _began: float = 0.0

    def run(self) -> TuningResult:
        """Explore, then judge the best on common splits.

        Raises:
            DataError: every trial fails, the objective is constant, or none ended in time.
        """
        self._began = time.monotonic()
        waiting = self._requeue()
        self._explore(waiting)
        best = self._complete()
        if not best:
            raise self._nothing_complete()
        finals = Finals(
            study=self.study,
            trials=best[: self.limits.candidates],
            metric=self.metric,
            splits=self.limits.splits,
            executor=self.executor,
            hyperparameters=self.hyperparameters,
            seconds_left=self._seconds_left,
            interrupted=self.interrupted,
            tell=lambda done, total: self._tell("finalists", done, total),
        )
        finalists = finals.run()
        winner = finalists[0]
        naive = next(item for item in finalists if item.number == best[0].number)
        sign = 1.0 if self.metric.direction == "maximize" else -1.0
        return TuningResult(
            metric=self.metric.name,
            direction=self.metric.direction,
            best_params=winner.params,
            best_score=winner.mean,
            best_error=winner.error,
            optimism=sign * (naive.searched - naive.mean),
            finalists=finalists,
            history=self._history(),
            search_space=self.space.described(),
            seconds=time.monotonic() - self._began,
            asked=self.limits.n_trials,
            notes=(*self.notes, *finals.notes),
        )

    def _requeue(self) -> list[int]:
        """Fail the trials that a killed process left running; their slots are tried again first."""
        done = set()
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state == TrialState.RUNNING:
                self.study.tell(trial.number, state=TrialState.FAIL)
            elif SLOT in trial.user_attrs and (
                trial.state != TrialState.FAIL or ERROR in trial.user_attrs
            ):
                done.add(trial.user_attrs[SLOT])
        if done:
            self.notes.append(f"resumed after {len(done)} of {self.limits.n_trials} trials")
        return [slot for slot in range(self.limits.n_trials) if slot not in done]

    def _explore(self, waiting: list[int]) -> None:
        until = self._began + self.limits.seconds * (1 - FINALISTS_SHARE)
        while waiting or self._running:
            late = time.monotonic() >= until or self.interrupted()
            while waiting and not late and len(self._running) < self.executor.capacity:
                self._start(waiting.pop(0), until)
            if late and not self._running:
                break
            for event in self.executor.events(timeout=TICK):
                if isinstance(event, TrialReport):
                    self._answer(event)
                else:
                    self._finish(event)
            self._tell("trials", self._ended(), self.limits.n_trials)
        if waiting:
            reason = "interrupted" if self.interrupted() else "the time was up"
            done = self.limits.n_trials - len(waiting)
            self.notes.append(f"{reason} after {done} of {self.limits.n_trials} trials")

    def _start(self, slot: int, until: float) -> None:
        self.study.sampler = sampler_of(self.limits, slot)
        trial = self.study.ask(self.space.distributions())
        trial.set_user_attr(SLOT, slot)
        self._running[trial.number] = _Running(trial, slot, time.monotonic())
        task = TrialTask(
            number=trial.number,
            hyperparameters=self.hyperparameters(trial.params),
            split_seed=slot,
            watched=self.limits.pruning and not self._trials_are_short(),
        )
        self.executor.submit(task, seconds=max(until - time.monotonic(), 0.0))

    def _answer(self, report: TrialReport) -> None:
        running = self._running[report.number]
        running.trial.report(report.value, report.step)
        verdict: Verdict = "go on"
        if self.interrupted():
            verdict = "stop"
        elif running.trial.should_prune():
            running.pruned = True
            verdict = "prune"
        self.executor.answer(report.number, verdict)

    def _finish(self, outcome: TrialOutcome) -> None:
        running = self._running.pop(outcome.number)
        running.trial.set_user_attr(SECONDS, round(outcome.seconds, 4))
        if outcome.state == "complete":
            self.study.tell(running.trial, outcome.value)
            self._refuse_constant()
        elif running.pruned:
            self.study.tell(running.trial, state=TrialState.PRUNED)
        elif outcome.state == "stopped":
            # The deadline came before its end: it says nothing, and its slot stays open.
            self.study.tell(running.trial, state=TrialState.FAIL)
        else:
            running.trial.set_user_attr(ERROR, outcome.error)
            self.study.tell(running.trial, state=TrialState.FAIL)
            self._refuse_failing()

    def _refuse_constant(self) -> None:
        values = [trial.value for trial in self._complete()]
        if len(values) == CONSTANT_AFTER and len(set(values)) == 1:
            raise DataError(
                f"{self.metric.name} is {values[0]:g} in each of the first {len(values)} trials: it "
                "does not depend on what is searched",
                hint="search other hyperparameters or wider ranges, or choose another metric",
            )

    def _refuse_failing(self) -> None:
        trials = self.study.get_trials(deepcopy=False)
        failed = [trial for trial in trials if ERROR in trial.user_attrs]
        ended = [
            trial for trial in trials if trial.state in {TrialState.COMPLETE, TrialState.PRUNED}
        ]
        if not ended and len(failed) >= min(FAILING_AFTER, self.limits.n_trials):
            raise DataError(
                f"every one of the first {len(failed)} trials failed; the first: "
                f"{failed[0].user_attrs[ERROR]}",
                hint="check model.hyperparameters and the data",
            )

    def _nothing_complete(self) -> DataError:
        trials = self.study.get_trials(deepcopy=False)
        errors = [trial.user_attrs[ERROR] for trial in trials if ERROR in trial.user_attrs]
        if errors:
            return DataError(f"no trial succeeded; the first failure: {errors[0]}")
        return NoTrialInTimeError(
            f"no trial ended within {self.limits.seconds:g} s",
            hint="raise hyperparameter_tuning.timeout in the config, or narrow the ranges to "
            "cheaper models; with hyperparameter_tuning.on_timeout: defaults the recipe trains "
            "without a search",
        )

    def _complete(self) -> list[FrozenTrial]:
        """The complete trials, the best first."""
        done = [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state == TrialState.COMPLETE and trial.value is not None
        ]
        best_first = self.metric.direction == "maximize"
        return sorted(done, key=lambda trial: trial.value or 0.0, reverse=best_first)

    def _trials_are_short(self) -> bool:
        known = [
            trial.user_attrs.get(SECONDS, 0.0)
            for trial in self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        ]
        if len(known) < self.limits.startup_trials:
            return False
        short: bool = sorted(known)[len(known) // 2] < SHORT_TRIAL
        note = f"trials take less than {SHORT_TRIAL:g} s: pruning them would save nothing"
        if short and note not in self.notes:
            self.notes.append(note)
        return short

    def _history(self) -> tuple[TrialRecord, ...]:
        states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}
        return tuple(
            TrialRecord(
                number=trial.user_attrs[SLOT],
                state=states.get(trial.state, "failed"),
                value=trial.value,
                params=trial.params,
                curve=tuple(sorted(trial.intermediate_values.items())),
                seconds=trial.user_attrs.get(SECONDS, 0.0),
            )
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state in states or ERROR in trial.user_attrs
        )

    def _ended(self) -> int:
        return len(self._history())

    def _seconds_left(self) -> float:
        return max(self._began + self.limits.seconds - time.monotonic(), 0.0)

    def _tell(self, stage: str, done: int, total: int) -> None:
        history = self._history()
        values = [record.value for record in history if record.value is not None]
        pick = max if self.metric.direction == "maximize" else min
        self.listener(
            SearchProgress(
                stage=stage,
                done=done,
                total=total,
                pruned=sum(record.state == "pruned" for record in history),
                failed=sum(record.state == "failed" for record in history),
                best=pick(values) if values else None,
                seconds_left=self._seconds_left(),
            )
        )


def sampler_of(limits: SearchLimits, slot: int) -> optuna.samplers.BaseSampler:
    """The sampler for one slot: seeded by it, so that a resumed search does not repeat itself."""
    seed = (limits.seed * 1_000_003 + slot) % 2**32
    samplers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        "TPESampler": lambda: optuna.samplers.TPESampler(seed=seed, n_startup_trials=10),
        "RandomSampler": lambda: optuna.samplers.RandomSampler(seed=seed),
        "QMCSampler": lambda: optuna.samplers.QMCSampler(seed=limits.seed),
    }
    return samplers[limits.sampler]()


def pruner_of(limits: SearchLimits) -> optuna.pruners.BasePruner:
    """The pruner by name; steps are percent of a trial's own rounds."""
    if not limits.pruning:
        return optuna.pruners.NopPruner()
    pruners: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
        "MedianPruner": lambda: optuna.pruners.MedianPruner(
            n_startup_trials=limits.startup_trials, n_warmup_steps=limits.warmup_percent
        ),
        "HyperbandPruner": lambda: optuna.pruners.HyperbandPruner(
            min_resource=max(limits.warmup_percent, 1), max_resource=100
        ),
        "WilcoxonPruner": lambda: optuna.pruners.WilcoxonPruner(
            p_threshold=0.1, n_startup_steps=max(2, limits.warmup_percent // 10)
        ),
    }
    return pruners[limits.pruner]()
