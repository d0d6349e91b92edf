"""The pruner that asks what a trial will come to, not how it compares half-way."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from lodestar.core.models.watching import CHECKPOINTS
from lodestar.core.tuning.learning_curve import LearningCurvePruner, extrapolated

Curve = Callable[[int], float]


def rising(final: float, gap: float, power: float) -> Curve:
    """A curve whose distance from its end shrinks by a power of the rounds."""
    end = final + gap * 100**-power
    return lambda step: end - gap * step**-power


def until(curve: Curve, percent: int) -> dict[int, float]:
    return {step: curve(step) for step in CHECKPOINTS if step <= percent}


def study_with(
    values: list[float], direction: Literal["maximize", "minimize"] = "maximize"
) -> optuna.Study:
    study = optuna.create_study(direction=direction)
    for value in values:
        study.add_trial(optuna.trial.create_trial(value=value))
    return study


def pruned(
    study: optuna.Study, curve: Mapping[int, float], pruner: LearningCurvePruner | None = None
) -> bool:
    trial = study.ask()
    for step, value in curve.items():
        trial.report(value, step)
    frozen = study.get_trials(deepcopy=False)[trial.number]
    return (pruner or LearningCurvePruner()).prune(study, frozen)


@pytest.mark.parametrize("power", [0.3, 0.7, 1.5])
@pytest.mark.parametrize("percent", [8, 20, 50])
def test_a_curve_with_shrinking_gains_is_projected_near_its_end_and_never_below(
    power: float, percent: int
) -> None:
    curve = rising(0.9, 1.0, power)
    projected = extrapolated(until(curve, percent))
    assert 0.9 - 1e-9 <= projected <= 0.9 + 0.6 * (0.9 - curve(percent))


def test_while_gains_grow_nothing_can_be_said() -> None:
    assert extrapolated({step: step**1.2 for step in CHECKPOINTS[:8]}) == math.inf


def test_a_curve_that_has_stopped_rising_ends_where_it_is() -> None:
    assert extrapolated({10: 0.6, 13: 0.7, 16: 0.72, 20: 0.72}) == 0.72
    assert extrapolated({10: 0.6, 13: 0.7, 16: 0.72, 20: 0.71}) == 0.71


@pytest.mark.parametrize(
    "values",
    [(0.7, 0.72, 0.7, 0.71), (0.7, 0.8, 0.6, 0.61), (0.7, 0.6, 0.5, 0.55), (0.5, 0.5, 0.5, 0.6)],
)
def test_a_curve_that_falls_before_it_rises_says_nothing(values: tuple[float, ...]) -> None:
    assert extrapolated(dict(zip((10, 13, 16, 20), values, strict=True))) == math.inf


def test_any_curve_has_a_projection() -> None:
    random = np.random.default_rng(0)
    for decimals in (1, 2, 3, 8):
        for _ in range(2000):
            values = np.round(random.random(4), decimals).tolist()
            assert not math.isnan(extrapolated(dict(zip((10, 13, 16, 20), values, strict=True))))


def test_a_slow_learner_that_is_far_behind_now_goes_on() -> None:
    study = study_with([0.85, 0.86, 0.87])
    assert not pruned(study, until(rising(0.9, 2.0, 0.5), 10))


def test_a_quick_one_that_has_flattened_too_low_ends_early() -> None:
    study = study_with([0.85, 0.86, 0.87])
    flat = until(rising(0.8, 0.5, 2.0), 10)
    assert max(flat.values()) > rising(0.9, 2.0, 0.5)(10)  # ahead of the slow one by now
    assert pruned(study, flat)


def test_lower_is_better_where_the_study_says_so() -> None:
    study = study_with([1.05, 1.04, 1.03], "minimize")
    flat = {step: -value for step, value in until(rising(-1.2, 0.5, 2.0), 16).items()}
    good = {step: -value for step, value in until(rising(-1.0, 0.5, 2.0), 16).items()}
    assert pruned(study, flat)
    assert not pruned(study, good)


def test_a_trial_need_not_beat_the_best_to_go_on() -> None:
    study = study_with([0.80, 0.81, 0.82, 0.83, 0.84, 0.9])
    assert not pruned(study, until(rising(0.85, 0.5, 1.0), 50))
    assert pruned(study, until(rising(0.82, 0.5, 1.0), 50))


def test_nothing_is_pruned_before_enough_trials_are_complete_or_enough_was_seen() -> None:
    flat = until(rising(0.5, 0.5, 2.0), 20)
    assert not pruned(study_with([0.9]), flat, LearningCurvePruner(n_startup_trials=2))
    assert pruned(study_with([0.9, 0.9]), flat, LearningCurvePruner(n_startup_trials=2))
    late = LearningCurvePruner(n_startup_trials=2, n_warmup_steps=32)
    assert not pruned(study_with([0.9, 0.9]), flat, late)
    assert not pruned(study_with([0.9, 0.9]), {})


def test_a_fit_on_a_third_of_the_rows_is_compared_with_the_others_at_a_third() -> None:
    study = optuna.create_study(direction="maximize")
    for value in (0.7, 0.8, 0.9):
        study.add_trial(
            optuna.trial.create_trial(value=value + 0.05, intermediate_values={33: value})
        )
    assert pruned(study, {33: 0.75})
    assert not pruned(study, {33: 0.85})


def test_few_points_early_on_say_nothing() -> None:
    study = optuna.create_study(direction="maximize")
    for value in (0.7, 0.8, 0.9):
        study.add_trial(
            optuna.trial.create_trial(value=value + 0.05, intermediate_values={10: value})
        )
    assert not pruned(study, {2: 0.1, 10: 0.1})


def test_pruned_trials_count_as_worse_so_that_a_fifth_is_carried_through() -> None:
    """Two lucky trials must not end all that come after them."""
    study = optuna.create_study(
        direction="maximize", pruner=LearningCurvePruner(n_startup_trials=2)
    )
    for value in (0.99, 0.98):
        study.add_trial(optuna.trial.create_trial(value=value))
    for _ in range(8):
        study.add_trial(
            optuna.trial.create_trial(state=TrialState.PRUNED, intermediate_values={10: 0.5})
        )

    def pruned() -> bool:
        trial = study.ask()
        for step, value in {10: 0.80, 13: 0.85, 16: 0.87, 20: 0.875}.items():
            trial.report(value, step)
        return trial.should_prune()

    assert pruned()  # two places among ten: 0.98 is the second
    study.add_trial(
        optuna.trial.create_trial(state=TrialState.PRUNED, intermediate_values={10: 0.5})
    )
    assert not pruned()  # three places among eleven, and two are taken
