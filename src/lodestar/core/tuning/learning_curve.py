"""Prunes a trial when even the extrapolation of its learning curve does not reach the good ones.

Comparing trials half-way misleads: few fast rounds look better early than many slow ones, and deep
trees than shallow ones, whichever is better in the end. What a trial will come to is a better
judge (Domhan, Springenberg & Hutter 2015, on extrapolating learning curves).
"""

import math
from collections.abc import Mapping

import optuna
from optuna.trial import FrozenTrial, TrialState

__all__ = ["LearningCurvePruner", "extrapolated"]

# Points that show whether gains shrink, and by how much.
FEWEST_POINTS = 4
# By which part of the way to "gains stay as they are" the extrapolation errs on the trial's side.
OPTIMISM = 0.1
# A trial goes on while it may still be among this share of those that have ended.
BEST_SHARE = 0.2
# So many to choose from are enough: as many as finalists are by default.
ENOUGH = 8
# From here on (percent) a curve too short to extrapolate is compared with others at the same step.
LATE = 30


class LearningCurvePruner(optuna.pruners.BasePruner):
    """Prunes by the projected final value, against the best fifth of the complete trials.

    Of the first forty, pruned ones included, a fifth is carried through: there must be some to choose
    from, also where the first were lucky.

    Steps are percent of a trial's own rounds. Curves of fewer than four points (fits on a growing
    share of the rows) are compared with the median at the same step instead.
    """

    def __init__(self, *, n_startup_trials: int = 3, n_warmup_steps: int = 0) -> None:
        self._startup = max(n_startup_trials, 1)
        self._warmup = n_warmup_steps
        self._median = optuna.pruners.MedianPruner(
            n_startup_trials=self._startup, n_warmup_steps=max(n_warmup_steps, LATE)
        )

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial shall end here."""
        curve = trial.intermediate_values
        if not curve or max(curve) < self._warmup:
            return False
        if len(curve) < FEWEST_POINTS:
            return self._median.prune(study, trial)
        ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        complete = [done for done in ended if done.state == TrialState.COMPLETE]
        few = min(ENOUGH, math.ceil(BEST_SHARE * len(ended)))
        places = max(few, math.ceil(BEST_SHARE * len(complete)))
        if len(complete) < max(self._startup, places):
            return False
        sign = 1.0 if study.direction == optuna.study.StudyDirection.MAXIMIZE else -1.0
        values = sorted((sign * (done.value or 0.0) for done in complete), reverse=True)
        projected = extrapolated({step: sign * value for step, value in curve.items()})
        return projected < values[places - 1]


def extrapolated(curve: Mapping[int, float]) -> float:
    """What a rising curve, percent of the rounds → value, comes to at 100; four points at least.

    Over the logarithm of the rounds the gains of boosting shrink by a constant factor, once they have
    begun to: the factor is read off the last four points, and the rest is summed up. Infinite while
    the gains still grow or have just begun; the last value where there was no gain.
    """
    steps = sorted(curve)[-FEWEST_POINTS:]
    times = [math.log(step) for step in steps]
    values = [curve[step] for step in steps]
    last = times[3] - times[2]
    rate = (values[3] - values[2]) / last
    if not rate > 0:
        return values[3]
    before = (values[2] - values[0]) / (times[2] - times[0])
    now = (values[3] - values[1]) / (times[3] - times[1])
    if before <= 0 or now >= before:
        return math.inf
    between = (times[3] + times[1] - times[2] - times[0]) / 2
    # The factor from one point to the next, a little nearer to 1 than seen.
    factor = (max(now, 0.0) / before) ** (last / between)
    factor += OPTIMISM * (1 - factor)
    if factor >= 1:  # shrinking by less than a number can say
        return math.inf
    decay = -math.log(factor) / last
    left = math.log(100) - times[3]
    # The rate was that of half a step ago.
    return values[3] + rate * math.sqrt(factor) * (1 - math.exp(-decay * left)) / decay
