"""The population stability index: none for the same distribution, large for another one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar.core.stability import StabilityIndex

NUMBERS = st.lists(st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=200)


@pytest.fixture
def draw() -> np.random.Generator:
    """The same numbers in whatever order the tests come."""
    return np.random.default_rng(3)


def normal(draw: np.random.Generator, count: int, *, mean: float = 0.0) -> list[float]:
    return [float(value) for value in draw.normal(mean, size=count)]


def test_it_is_what_the_formula_says() -> None:
    former = [float(value) for value in range(1, 101)]
    now = [5.5] * 50 + [95.5] * 50
    was = (10 + 0.5) / (100 + 0.5 * 10)
    ends, between = (50 + 0.5) / 105, 0.5 / 105
    wanted = 2 * (ends - was) * math.log(ends / was) + 8 * (between - was) * math.log(between / was)
    assert StabilityIndex(former).of(now) == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize("count", [100, 500, 2_000])
def test_another_sample_of_the_same_distribution_is_hardly_a_change(
    draw: np.random.Generator, count: int
) -> None:
    index = StabilityIndex(normal(draw, 2_000))
    found = sorted(index.of(normal(draw, count)) for _ in range(100))
    assert found[50] == pytest.approx(9 / count + 9 / 2_000, rel=0.6)
    assert found[-1] < 0.5


def test_it_grows_with_the_distance(draw: np.random.Generator) -> None:
    index = StabilityIndex(normal(draw, 2_000))
    near, far = (index.of(normal(draw, 1_000, mean=mean)) for mean in (0.2, 1.0))
    assert near < 0.1
    assert far > 0.5


def test_scores_that_crowd_at_both_ends_may_move_a_little(draw: np.random.Generator) -> None:
    """As those of the same model do that was trained again, with a few rounds more."""
    ends = [float(value) for value in [*draw.beta(1, 200, 1_200), *draw.beta(200, 1, 800)]]
    sharper = [value**1.3 if value < 0.5 else 1 - (1 - value) ** 1.3 for value in ends]
    index = StabilityIndex(ends)
    assert index.of(sharper) < 0.1
    assert index.of([0.1 + 0.8 * value for value in ends]) > 0.5


@pytest.mark.parametrize("now", [4.0, 2.0, 3.0000001])
def test_a_constant_that_became_another_one_is_a_large_change(now: float) -> None:
    index = StabilityIndex([3.0] * 300)
    assert index.of([3.0] * 300) < 0.01
    assert index.of([now] * 300) > 1


def test_labels_whose_shares_move_are_seen() -> None:
    index = StabilityIndex([0.0] * 900 + [1.0] * 100)
    assert index.of([0.0] * 90 + [1.0] * 10) < 0.05
    assert index.of([0.0] * 50 + [1.0] * 50) > 0.5


def test_what_is_not_finite_is_left_out() -> None:
    index = StabilityIndex([math.nan, *range(100)])
    assert index.of([math.nan, math.inf, *range(100)]) == index.of(list(range(100)))
    assert index.of([math.nan]) == 0.0


def test_without_a_former_value_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(ValueError, match="no former value"):
        StabilityIndex([math.nan])


@given(former=NUMBERS, now=NUMBERS)
def test_it_is_never_negative_and_order_does_not_matter(
    former: list[float], now: list[float]
) -> None:
    index = StabilityIndex(former)
    assert 0 <= index.of(now) < math.inf
    assert index.of(now) == pytest.approx(StabilityIndex(former[::-1]).of(now[::-1]))
