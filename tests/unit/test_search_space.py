"""The recipe's ranges as Optuna's distributions."""

from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from lodestar.core.tuning.space import SearchSpace
from lodestar.settings.recipe import HyperparameterRange


@pytest.mark.parametrize(
    ("words", "distribution"),
    [
        ({"type": "float", "low": 0.5, "high": 1.0}, FloatDistribution(0.5, 1.0)),
        (
            {"type": "float", "low": 0.01, "high": 0.3, "log": True},
            FloatDistribution(0.01, 0.3, log=True),
        ),
        (
            {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25},
            FloatDistribution(0.0, 1.0, step=0.25),
        ),
        ({"type": "int", "low": 3, "high": 10}, IntDistribution(3, 10)),
        (
            {"type": "int", "low": 50, "high": 1000, "log": True},
            IntDistribution(50, 1000, log=True),
        ),
        ({"type": "int", "low": -2, "high": 4, "step": 3}, IntDistribution(-2, 4, step=3)),
        (
            {"type": "categorical", "choices": ("sqrt", None, 0.5, True)},
            CategoricalDistribution(("sqrt", None, 0.5, True)),
        ),
    ],
)
def test_a_range_becomes_the_distribution_of_its_words(
    words: dict[str, Any], distribution: optuna.distributions.BaseDistribution
) -> None:
    space = SearchSpace({"name": HyperparameterRange(**words)})
    assert space.distributions() == {"name": distribution}


@pytest.mark.parametrize(
    ("words", "high"),
    [
        ({"type": "int", "low": 1, "high": 10, "step": 4}, 9),
        ({"type": "float", "low": 0.1, "high": 1.0, "step": 0.4}, 0.9),
        ({"type": "float", "low": 0.0, "high": 0.3, "step": 0.1}, 0.3),
    ],
)
def test_a_step_that_misses_the_upper_bound_ends_below_it_without_a_warning(
    words: dict[str, Any], high: float
) -> None:
    (found,) = SearchSpace({"name": HyperparameterRange(**words)}).distributions().values()
    assert isinstance(found, IntDistribution | FloatDistribution)
    assert found.high == pytest.approx(high)


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ({"type": "float", "low": 0, "high": 1, "default": 1}, 1.0),
        ({"type": "float", "low": 0.01, "high": 0.3, "log": True, "default": 0.1}, 0.1),
        ({"type": "float", "low": 0.1, "high": 1.0, "step": 0.4, "default": 0.6}, 0.5),
        ({"type": "float", "low": 0.1, "high": 1.0, "step": 0.4, "default": 1.0}, 0.9),
        ({"type": "int", "low": 1, "high": 10, "step": 4, "default": 4}, 5),
        ({"type": "int", "low": 50, "high": 400, "default": 200.0}, 200),
        ({"type": "categorical", "choices": (3, "a"), "default": "a"}, "a"),
        ({"type": "categorical", "choices": ([8], [8, 4]), "default": [8, 4]}, "[8, 4]"),
    ],
)
def test_the_default_is_tried_first_as_optuna_keeps_it(
    words: dict[str, Any], first: object
) -> None:
    silent = HyperparameterRange(type="int", low=1, high=3)
    space = SearchSpace({"told": HyperparameterRange(**words), "silent": silent, "fixed": 1})
    assert space.first() == {"told": first}
    assert type(space.first()["told"]) is type(first)
    study = optuna.create_study()
    study.enqueue_trial(space.first())
    trial = study.ask(space.distributions())
    assert trial.params["told"] == pytest.approx(first) if isinstance(first, float) else first


def test_fixed_values_are_not_searched() -> None:
    given = {
        "depth": HyperparameterRange(type="int", low=1, high=3),
        "objective": "binary:logistic",
    }
    space = SearchSpace(given)
    assert space.fixed == {"objective": "binary:logistic"}
    assert list(space.distributions()) == ["depth"]


def test_choices_that_are_lists_reach_the_estimator_as_lists() -> None:
    choices = ([32], [64, 32], [128])
    space = SearchSpace({"layers": HyperparameterRange(type="categorical", choices=choices)})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    seen = [
        tuple(space.chosen(study.ask(space.distributions()).params)["layers"]) for _ in range(30)
    ]
    assert set(seen) == {(32,), (64, 32), (128,)}


def test_what_was_searched_is_told_in_the_recipes_words() -> None:
    given = {"rate": HyperparameterRange(type="float", low=0.01, high=0.3, log=True, default=0.1)}
    assert SearchSpace(given).described() == {
        "rate": {"type": "float", "low": 0.01, "high": 0.3, "log": True, "default": 0.1}
    }
