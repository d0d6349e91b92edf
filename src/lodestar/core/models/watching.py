"""What an estimator is told while it learns: whether to go on, at shares of its own budget."""

from collections.abc import Callable
from dataclasses import dataclass

from lodestar.core.results import Predictions, Truth
from lodestar.interface.learning import FeatureMatrix

__all__ = ["CHECKPOINTS", "StoppedError", "Watch", "checkpoints"]

# After how much of a trial's own rounds the metric is looked at, in percent. Each is a quarter later
# than the one before, as learning goes by ratios of rounds: most is seen early, where it saves most.
CHECKPOINTS = (2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 64, 80)


class StoppedError(Exception):
    """The trial was told to stop, or met its deadline; it is no failure."""


@dataclass(frozen=True)
class Watch:
    """Validation rows, the metric on them, and whom to tell.

    `tell(step, value)` raises StoppedError where the trial shall not go on; `overdue()` is cheap and
    may be asked every round. `metric` is the name of what `score` computes. Without `looks` nobody
    wants intermediate values, and only the deadline counts.
    """

    metric: str
    features: FeatureMatrix
    truth: Truth
    classes: tuple[object, ...]
    score: Callable[[Truth, Predictions], float]
    tell: Callable[[int, float], None]
    overdue: Callable[[], bool]
    looks: bool = True

    def marks(self, rounds: int) -> dict[int, int]:
        """The checkpoints of so many rounds, or none where nobody wants to know."""
        return checkpoints(rounds) if self.looks else {}

    def at(self, step: int, predictions: Predictions) -> None:
        """Judge the predictions of the validation rows and tell."""
        self.tell(step, self.score(self.truth, predictions))


def checkpoints(rounds: int) -> dict[int, int]:
    """After which round (from 1) to look → percent of the rounds done; the end is not among them."""
    return {after: percent for percent in CHECKPOINTS if (after := rounds * percent // 100)}
