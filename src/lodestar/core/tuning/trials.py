"""The trials of a search, from being asked for to their end, as Optuna's study keeps them."""

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, Trial, TrialState

from lodestar.core.tuning.algorithms import sampler_of
from lodestar.core.tuning.ground import SearchGround
from lodestar.core.tuning.result import TrialRecord
from lodestar.core.tuning.space import SearchSpace
from lodestar.interface.execution import TrialOutcome, TrialReport

__all__ = ["Trials"]

SLOT = "slot"
SECONDS = "seconds"
ROUNDS = "rounds"
OFFSET, SLOPE = "offset", "slope"
ERROR = "error"


@dataclass
class _Running:
    trial: Trial
    params: dict[str, Any]
    curve: list[tuple[int, float]] = field(default_factory=list)
    pruned: bool = False


@dataclass
class Trials:
    """Those of one study: what runs, what has ended, and the words of those that failed.

    `slot` counts trials from 0 to n_trials - 1 and seeds split and sampler; a trial whose process
    was killed gives its slot to the trial that repeats it, so that a resumed search goes the same
    way. (Not with HyperbandPruner, which draws brackets by Optuna's own trial numbers.)
    """

    ground: SearchGround
    space: SearchSpace
    history: list[TrialRecord] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _running: dict[int, _Running] = field(default_factory=dict)

    @property
    def running(self) -> int:
        """How many were begun and have not ended."""
        return len(self._running)

    def complete(self) -> list[TrialRecord]:
        """The complete trials, the best first; of equal ones the first."""
        done = [record for record in self.history if record.state == "complete"]
        return sorted(done, key=lambda item: (-self.ground.sign * (item.value or 0.0), item.number))

    def slope(self) -> float:
        """How much of what the reference says is taken off a trial's score: what was best for others."""
        known = [one.slope for one in self.history if one.slope is not None]
        return sum(known) / len(known) if known else 1.0

    def recall(self) -> None:
        """Take up what the study holds.

        Trials that a killed process left running are failed, and their slots are tried again, unless
        the failure was theirs.
        """
        for trial in self.ground.study.get_trials(deepcopy=False):
            if trial.state == TrialState.RUNNING:
                self.ground.study.tell(trial.number, state=TrialState.FAIL)
            if SLOT in trial.user_attrs and _has_ended(trial):
                self.history.append(_record(trial, self.space.chosen(trial.params)))
                self.errors += [trial.user_attrs[ERROR]] if ERROR in trial.user_attrs else []

    def begin(self, slot: int) -> dict[str, Any]:
        """Ask for the slot's trial; the hyperparameters that were drawn for it.

        The first one is the recipe's defaults, as far as its ranges have any.
        """
        self.ground.study.sampler = sampler_of(self.ground.limits, slot)
        first = self.space.first() if slot == 0 else {}
        if first and not self.ground.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self.ground.study.enqueue_trial(first)
        trial = self.ground.study.ask(self.space.distributions())
        trial.set_user_attr(SLOT, slot)
        params = self.space.chosen(trial.params)
        self._running[slot] = _Running(trial, params)
        return params

    def report(self, report: TrialReport) -> None:
        """Keep an intermediate value."""
        running = self._running[report.number]
        running.trial.report(report.value, report.step)
        running.curve.append((report.step, report.value))

    def prunes(self, slot: int) -> bool:
        """Whether the pruner ends the slot's trial here; if so, it counts as pruned."""
        running = self._running[slot]
        running.pruned = _should_prune(running.trial)
        return running.pruned

    def end(self, outcome: TrialOutcome) -> TrialRecord | None:
        """What is kept of a trial that is over; None where it was stopped.

        The deadline came before the end of such a one: it says nothing, and its slot stays open.
        """
        running = self._running.pop(outcome.number)
        running.trial.set_user_attr(SECONDS, round(outcome.seconds, 4))
        if outcome.offset:
            running.trial.set_user_attr(OFFSET, outcome.offset)
        if outcome.slope is not None:
            running.trial.set_user_attr(SLOPE, outcome.slope)
        if outcome.state == "complete":
            if outcome.rounds is not None:
                running.trial.set_user_attr(ROUNDS, outcome.rounds)
            self.ground.study.tell(running.trial, outcome.value)
            return self._kept(outcome, running, "complete", outcome.value)
        if running.pruned:
            self.ground.study.tell(running.trial, state=TrialState.PRUNED)
            return self._kept(outcome, running, "pruned", running.curve[-1][1])
        if outcome.state == "stopped":
            self.ground.study.tell(running.trial, state=TrialState.FAIL)
            return None
        running.trial.set_user_attr(ERROR, outcome.error)
        self.ground.study.tell(running.trial, state=TrialState.FAIL)
        self.errors.append(outcome.error)
        return self._kept(outcome, running, "failed", None)

    def _kept(
        self, outcome: TrialOutcome, running: _Running, state: str, value: float | None
    ) -> TrialRecord:
        record = TrialRecord(
            number=outcome.number,
            state=state,
            value=value,
            params=running.params,
            curve=tuple(running.curve),
            seconds=round(outcome.seconds, 4),
            rounds=outcome.rounds,
            offset=outcome.offset,
            slope=outcome.slope,
        )
        self.history.append(record)
        return record


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
        slope=trial.user_attrs.get(SLOPE),
    )
