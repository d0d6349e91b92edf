"""What a search found, and how it got there."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from lodestar.core.models.watching import WHOLE

__all__ = ["Expected", "Finalist", "SearchLimits", "TrialRecord", "TuningResult", "described"]

# Fits that cannot be watched are judged once half-way, on a third of the rows.
FEWEST_LOOKS_AT_ROUNDS = 3


@dataclass(frozen=True)
class SearchLimits:
    """What the recipe thinks the search is worth, and what the config allows.

    `validation_size` is the share of the rows that judges on a common split, `finalist_rows` how
    many times a trial's train rows a finalist is fitted on, `windows` into how many windows of time
    those that judge were to be cut. `seconds` bounds exploration and finalists together. Pruning
    looks at no trial before `startup_trials` are complete, and at none before `warmup_percent` of
    its own rounds. With `patience` a trial ends after so many rounds without a better metric.
    `draft` is the share of their rows that trials are fitted on where whole ones would not fit into
    the time; None: they are whole in any case. `boosts`: each round of the estimator takes a step, so
    that drafts may have fewer rounds. `corrected`: a trial's values are corrected for how hard its
    validation rows are. `gains`: what all rows bring to the score is found out.
    """

    n_trials: int
    seconds: float
    candidates: int = 8
    splits: int = 10
    seed: int = 42
    sampler: str = "TPESampler"
    pruning: bool = True
    pruner: str = "LearningCurvePruner"
    startup_trials: int = 2
    warmup_percent: int = 0
    validation_size: float = 0.25
    finalist_rows: float = 1.0
    windows: int | None = None
    patience: int | None = None
    corrected: bool = False
    draft: float | None = None
    boosts: bool = False
    gains: bool = False

    @property
    def train_size(self) -> float:
        """The share of the training rows that a whole trial is fitted on."""
        return (1 - self.validation_size) / self.finalist_rows


@dataclass(frozen=True)
class TrialRecord:
    """One trial of the exploration; `curve` is (percent of its rounds, metric).

    `rounds`: after how many of them it was at its best, if trials stop early. `offset`: what was taken
    off `value` and `curve`, as a reference says how hard its validation rows are; `slope`: how much of
    what the reference says would have been best.
    """

    number: int
    state: str
    value: float | None
    params: Mapping[str, Any]
    curve: tuple[tuple[int, float], ...]
    seconds: float
    rounds: int | None = None
    offset: float = 0.0
    slope: float | None = None

    @property
    def seen(self) -> float | None:
        """The metric on its validation rows, as it is."""
        return None if self.value is None else round(self.value + self.offset, 12)

    @property
    def by_rounds(self) -> bool:
        """Whether it was watched after several shares of its rounds."""
        return len(self.curve) >= FEWEST_LOOKS_AT_ROUNDS

    def rise(self, step: int) -> float:
        """By how much the metric went up or down from that percent of its rounds to their end.

        Between two looks it went in a straight line: CatBoost skips some where rounds are few.
        """
        end = self.value or 0.0
        steps, values = zip(*self.curve, (WHOLE, end), strict=True)
        return end - float(np.interp(step, steps, values))


@dataclass(frozen=True)
class Finalist:
    """One of the best trials, judged again on splits that all finalists share.

    `mean` is over `scores`; `error` its standard error, corrected for the overlap of the splits
    (Nadeau & Bengio 2003). `dropped`: worse than the leader by Wilcoxon's test before all splits.
    Where trials stop early, `params` have the rounds after which this one was at its best.
    """

    number: int
    params: Mapping[str, Any]
    searched: float
    scores: tuple[float, ...]
    mean: float
    error: float
    dropped: bool


@dataclass(frozen=True)
class Expected:
    """What is to be expected of the model of all training rows: `value` is mean - offset + gain.

    `mean` is the winner's on the common splits. `offset`: what a reference scores on the rows that
    judged there less what on all. `gain`: what the rows bring that the winner was not fitted on, by fits
    on a third of its rows; None where that is not known, and counts as nothing. `rows`: the share of the
    training rows that it was fitted on.
    """

    mean: float
    offset: float
    gain: float | None
    rows: float

    @property
    def value(self) -> float:
        """The score to expect."""
        return self.mean - self.offset + (self.gain or 0.0)


@dataclass(frozen=True)
class TuningResult:
    """The chosen hyperparameters, an honest score of them, and the whole history.

    `optimism` is the score that the naively best trial had on its own split, minus its mean on the
    common splits (sign turned so that positive means flattered). `importances`: hyperparameter → its
    share, if there were enough complete trials. `draft_share`: the share of
    their train rows that trials were fitted on, `finalist_share` finalists; None: all. `best_score` is
    what is to be expected of the model, made up as `expected` says.
    """

    metric: str
    direction: str
    best_params: Mapping[str, Any]
    best_score: float
    best_error: float
    optimism: float
    finalists: tuple[Finalist, ...]
    history: tuple[TrialRecord, ...]
    search_space: Mapping[str, Any]
    seconds: float
    asked: int
    notes: tuple[str, ...] = field(default=())
    importances: Mapping[str, float] = field(default_factory=dict)
    draft_share: float | None = None
    finalist_share: float | None = None
    expected: Expected | None = None

    def count(self, state: str) -> int:
        """How many trials ended so: complete, pruned, failed."""
        return sum(record.state == state for record in self.history)


def described(tuning: TuningResult) -> dict[str, Any]:
    """The artifact's `hyperparameter_optimization`: blueprint 2.4, the finalists and the optimism.

    Plain values that JSON keeps as they are; what is not a number is None.
    """
    found: dict[str, Any] = _plain(
        {
            "enabled": True,
            "engine": "optuna",
            "metric": tuning.metric,
            "direction": tuning.direction,
            "best_params": tuning.best_params,
            "best_score": tuning.best_score,
            "best_score_error": tuning.best_error,
            "best_score_parts": None if tuning.expected is None else asdict(tuning.expected),
            "optimism": tuning.optimism,
            "asked_trials": tuning.asked,
            "total_trials": len(tuning.history),
            "completed_trials": tuning.count("complete"),
            "pruned_trials": tuning.count("pruned"),
            "failed_trials": tuning.count("failed"),
            "optimization_time": tuning.seconds,
            "draft_share": tuning.draft_share,
            "finalist_share": tuning.finalist_share,
            "search_space": tuning.search_space,
            "parameter_importances": tuning.importances,
            "finalists": [asdict(item) for item in tuning.finalists],
            "optimization_history": [asdict(record) for record in tuning.history],
            "notes": tuning.notes,
        }
    )
    return found


def _plain(value: object) -> Any:  # noqa: ANN401 -- whatever JSON has
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
