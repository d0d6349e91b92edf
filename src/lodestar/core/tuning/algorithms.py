"""Optuna's samplers and pruners by the names that the config uses."""

import warnings
from collections.abc import Callable
from typing import TypeVar

import optuna

from lodestar.core.tuning.result import SearchLimits

__all__ = ["pruner_of", "sampler_of"]

Made = TypeVar("Made")


def sampler_of(limits: SearchLimits, slot: int) -> optuna.samplers.BaseSampler:
    """The sampler for one slot: seeded by it, so that a resumed search does not repeat itself."""
    seed = (limits.seed * 1_000_003 + slot) % 2**32
    samplers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        "TPESampler": lambda: optuna.samplers.TPESampler(seed=seed, n_startup_trials=10),
        "RandomSampler": lambda: optuna.samplers.RandomSampler(seed=seed),
        # One sequence for the whole study; its first point is drawn by the other sampler.
        "QMCSampler": lambda: optuna.samplers.QMCSampler(
            scramble=True,
            seed=limits.seed % 2**32,
            independent_sampler=optuna.samplers.RandomSampler(seed=seed),
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
    return _made(pruners[limits.pruner])


def _made(make: Callable[[], Made]) -> Made:
    """The config names it, so the user knows; that Optuna calls some experimental helps nobody."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return make()
