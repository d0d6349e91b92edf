"""Port to whatever runs trials: a thread, processes on this machine, or a cluster."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

__all__ = ["TrialExecutor", "TrialOutcome", "TrialReport", "TrialTask", "Verdict"]

Verdict = Literal["go on", "prune", "stop"]


@dataclass(frozen=True)
class TrialTask:
    """One fit to judge: hyperparameters, and which train/validation split to judge them on.

    With `patience` the fit ends after so many rounds without a better metric on the validation rows.
    A `draft` is fitted on that share of the split's train part and judged on no more rows than rank
    hyperparameters, with coarse histograms where the estimator makes any: its value is not that of the
    whole fit. `share` is the share of the train part where all rows of the other judge; `coarse`: with
    such histograms too; `strided`: with fewer rounds of larger steps, where it takes both; `rounds`:
    with that share of its rounds, where each takes a step; None: with all. `correction`: how much is
    taken off the value of what a reference scores on the same validation rows less what on all rows;
    None: there is no reference. `judges` is the share of the rows that judge, where it is not the
    recipe's; `window` is which of how many windows of time judges instead.
    """

    number: int
    hyperparameters: Mapping[str, Any]
    split_seed: int
    watched: bool
    patience: int | None = None
    draft: float | None = None
    share: float | None = None
    coarse: bool = False
    strided: bool = False
    rounds: float | None = None
    correction: float | None = None
    judges: float | None = None
    window: tuple[int, int] | None = None


@dataclass(frozen=True)
class TrialReport:
    """The metric so far; `step` is the share of the trial's own budget spent, in percent."""

    number: int
    step: int
    value: float


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended. `value` is None unless complete; `error` says why it failed.

    `rounds`: after how many of them the value was reached, of a fit that may stop early. `offset`:
    what was taken off the value, as a reference says how hard its validation rows are. `slope`: how much
    of what the reference says would best be taken off it, by parts of those rows.
    `stopped`: it was told to stop by a verdict, or met its deadline.
    """

    number: int
    state: Literal["complete", "stopped", "failed"]
    value: float | None
    seconds: float
    error: str = ""
    rounds: int | None = None
    offset: float = 0.0
    slope: float | None = None


class TrialExecutor(Protocol):
    """Runs up to `capacity` trials at once; one that dies fails alone."""

    @property
    def capacity(self) -> int:
        """How many; it may change while nodes come and go, and is never less than 1."""
        ...

    def submit(self, task: TrialTask, *, seconds: float | None) -> None:
        """Start a trial; it stops by itself after so many seconds."""
        ...

    def events(self, *, timeout: float) -> list[TrialReport | TrialOutcome]:
        """Wait for news; every report must be answered before its trial goes on."""
        ...

    def answer(self, number: int, verdict: Verdict) -> None:
        """Answer a report."""
        ...

    def halt(self) -> None:
        """Stop what runs as soon as it can be; each comes back as stopped. Nothing is run later."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...
