"""Optuna's samplers and pruners by the names that the config uses."""

from collections.abc import Callable

import optuna

from lodestar.core.tuning.result import SearchLimits

__all__ = ["pruner_of", "sampler_of"]


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
