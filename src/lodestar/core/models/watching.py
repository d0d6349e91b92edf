"""What an estimator is told while it learns: whether to go on, at shares of its own budget."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from lodestar.core.results import Predictions, Truth
from lodestar.interface.learning import FeatureMatrix

__all__ = ["CHECKPOINTS", "WHOLE", "Course", "Patience", "StoppedError", "Watch", "checkpoints"]

# After how much of a trial's own rounds the metric is looked at, in percent. Each is a quarter later
# than the one before, as learning goes by ratios of rounds: most is seen early, where it saves most.
CHECKPOINTS = (2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 64, 80)
# The end of the rounds, in percent.
WHOLE = 100


class StoppedError(Exception):
    """The trial was told to stop, or met its deadline; it is no failure."""


# A metric that may stand still for so many rounds is looked at this often meanwhile.
BEATS = 10


@dataclass
class Patience:
    """After how many rounds without a better metric a training ends, and where its best was.

    `best` is the metric after `after` rounds; it is looked at every tenth of `rounds`.
    """

    rounds: int
    maximize: bool
    best: float = math.nan
    after: int = 0

    @property
    def beat(self) -> int:
        """Look after every so many rounds."""
        return max(1, self.rounds // BEATS)

    def spent(self, done: int, value: float) -> bool:
        """Take in the metric after `done` rounds; whether it is enough."""
        ahead = value - self.best if self.maximize else self.best - value
        if ahead > 0 or (math.isnan(self.best) and not math.isnan(value)):
            self.best, self.after = value, done
        return done - self.after >= self.rounds


@dataclass(frozen=True)
class Watch:
    """Validation rows, the metric on them, and whom to tell.

    `tell(step, value)` raises StoppedError where the trial shall not go on; `overdue()` is cheap and
    may be asked every round. `metric` is the name of what `score` computes. Without `looks` nobody
    wants intermediate values. With `patience` the training ends by itself where it gets no better.
    """

    metric: str
    features: FeatureMatrix
    truth: Truth
    classes: tuple[object, ...]
    score: Callable[[Truth, Predictions], float]
    tell: Callable[[int, float], None]
    overdue: Callable[[], bool]
    looks: bool = True
    patience: Patience | None = None

    def marks(self, rounds: int) -> dict[int, int]:
        """The checkpoints of so many rounds, or none where nobody wants to know."""
        return checkpoints(rounds) if self.looks else {}

    def at(self, step: int, predictions: Predictions) -> None:
        """Judge the predictions of the validation rows and tell."""
        self.tell(step, self.score(self.truth, predictions))


def checkpoints(rounds: int) -> dict[int, int]:
    """After which round (from 1) to look → percent of the rounds done; the end is not among them."""
    return {after: percent for percent in CHECKPOINTS if (after := rounds * percent // 100)}


class Course:
    """A training of so many rounds under watch: when to look, and when it has gone far enough."""

    def __init__(self, watch: Watch, rounds: int) -> None:
        self._watch = watch
        self._rounds = rounds
        self._marks = watch.marks(rounds)
        self._beat = watch.patience.beat if watch.patience else None

    def looks_after(self, done: int) -> bool:
        """Whether to look now; asked after every round.

        Raises:
            StoppedError: the deadline has come.
        """
        if self._watch.overdue():
            raise StoppedError
        patient = self._beat is not None and (done % self._beat == 0 or done == self._rounds)
        return patient or done in self._marks

    def look(self, done: int, predictions: Predictions) -> bool:
        """Judge the predictions of the validation rows; whether the training is to end here."""
        value = self._watch.score(self._watch.truth, predictions)
        patience = self._watch.patience
        enough = patience is not None and patience.spent(done, value)
        if (percent := self._marks.get(done)) is not None:
            # What the trial is worth if it gets no better.
            self._watch.tell(percent, value if patience is None else patience.best)
        return enough
