"""A few fits at random before the search, to see whether whole trials fit into its time."""

import math

import optuna

from lodestar.core.tuning.budget import FINALISTS_SHARE
from lodestar.core.tuning.drafts import FEWEST_TRIALS, whole_seconds
from lodestar.core.tuning.ground import SearchGround
from lodestar.core.tuning.result import SearchLimits
from lodestar.core.tuning.space import SearchSpace
from lodestar.core.tuning.together import together
from lodestar.interface.execution import TrialTask

__all__ = ["settled_correction", "settled_draft"]

DRAFT, CORRECTED = "draft_share", "corrected"
# What may be spent on it, of the search's time. A fit that takes longer than that costs at least that.
REHEARSAL_SHARE = 0.03
# What pruning leaves of the cost of the trials, or so.
PRUNED_COST = 0.5
FEWEST_FITS = 2


def settled_draft(ground: SearchGround, space: SearchSpace) -> float | None:
    """The share of its rows that a trial is fitted on, or None for all of them.

    Decided once: a resumed search goes the way that it would have gone.
    """
    study, limits = ground.study, ground.limits
    if DRAFT not in study.user_attrs:
        fits = True
        if limits.draft is not None and limits.n_trials >= FEWEST_TRIALS and not study.trials:
            seconds = whole_seconds(_rehearsed(ground, space), limits.draft)
            cost = limits.n_trials * seconds / ground.executor.capacity
            fits = cost * (PRUNED_COST if limits.pruning else 1) <= limits.seconds * (
                1 - FINALISTS_SHARE
            )
        study.set_user_attr(DRAFT, None if fits else limits.draft)
    share: float | None = study.user_attrs[DRAFT]
    return share


def settled_correction(study: optuna.Study, limits: SearchLimits) -> bool:
    """Whether scores are corrected; decided once, as corrected and other scores cannot be compared."""
    if CORRECTED not in study.user_attrs:
        study.set_user_attr(CORRECTED, limits.corrected and not study.trials)
    return bool(study.user_attrs[CORRECTED])


def _rehearsed(ground: SearchGround, space: SearchSpace) -> float:
    """The seconds of a draft, on average: of so many at random, none of them a trial."""
    limits, executor = ground.limits, ground.executor
    count = max(FEWEST_FITS, executor.capacity)
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=limits.seed % 2**32))
    tasks = [
        TrialTask(
            number=-1 - at,
            hyperparameters=ground.hyperparameters(
                space.chosen(drawn.ask(space.distributions()).params), 1
            ),
            split_seed=at,
            watched=False,
            draft=limits.draft,
        )
        for at in range(count)
    ]
    one_after_another = math.ceil(count / executor.capacity)
    allowed = REHEARSAL_SHARE * limits.seconds / one_after_another
    fits = together(executor, tasks, seconds=lambda: allowed, interrupted=ground.interrupted)
    ended = [fit.outcome for fit in fits]
    # One that was stopped, or killed because it did not see the clock, would have taken longer.
    return sum(max(one.seconds, allowed * (one.state == "stopped")) for one in ended) / count
