"""Optuna's samplers and pruners by the names that the config uses."""

import warnings
from collections.abc import Callable
from typing import TypeVar

import optuna

from lodestar.core.models.watching import CHECKPOINTS
from lodestar.core.tuning.learning_curve import LearningCurvePruner
from lodestar.core.tuning.result import SearchLimits

__all__ = ["pruner_of", "sampler_of"]

# Every third trial is drawn at random, as in BOHB (Falkner, Klein & Hutter 2018): a model of noisy
# scores settles on one place too early. Most such trials are pruned soon.
RANDOM_EVERY = 3

Made = TypeVar("Made")


def sampler_of(limits: SearchLimits, slot: int) -> optuna.samplers.BaseSampler:
    """The sampler for one slot: seeded by it, so that a resumed search does not repeat itself."""
    seed = (limits.seed * 1_000_003 + slot) % 2**32

    def random() -> optuna.samplers.BaseSampler:
        return optuna.samplers.RandomSampler(seed=seed)

    samplers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        "TPESampler": lambda: (
            random()
            if slot % RANDOM_EVERY == RANDOM_EVERY - 1
            else optuna.samplers.TPESampler(seed=seed, n_startup_trials=10)
        ),
        "RandomSampler": random,
        # One sequence for the whole study; its first point is drawn by the other sampler.
        "QMCSampler": lambda: optuna.samplers.QMCSampler(
            scramble=True,
            seed=limits.seed % 2**32,
            independent_sampler=random(),
            warn_asynchronous_seeding=False,
            warn_independent_sampling=False,
        ),
    }
    return _made(samplers[limits.sampler])


def pruner_of(limits: SearchLimits) -> optuna.pruners.BasePruner:
    """The pruner by name; steps are percent of a trial's own rounds."""
    if not limits.pruning:
        return optuna.pruners.NopPruner()
    pruners: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
        "LearningCurvePruner": lambda: LearningCurvePruner(
            n_startup_trials=limits.startup_trials, n_warmup_steps=limits.warmup_percent
        ),
        "MedianPruner": lambda: optuna.pruners.MedianPruner(
            n_startup_trials=limits.startup_trials, n_warmup_steps=limits.warmup_percent
        ),
        "HyperbandPruner": lambda: optuna.pruners.HyperbandPruner(
            min_resource=limits.warmup_percent or 10, max_resource=100
        ),
        "WilcoxonPruner": lambda: optuna.pruners.WilcoxonPruner(
            p_threshold=0.1,
            n_startup_steps=max(2, sum(step <= limits.warmup_percent for step in CHECKPOINTS)),
        ),
    }
    return _made(pruners[limits.pruner])


def _made(make: Callable[[], Made]) -> Made:
    """The config names it, so the user knows; that Optuna calls some experimental helps nobody."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return make()
