"""Counting at places without sorting gives, to the last row, what sorting gives."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.examples import examples

from lodestar.core.drift.numbers import NumberSketch
from lodestar.core.drift.places import FEWEST_VALUES, PlaceCounter

FloatArray = NDArray[np.float64]

SHAPES: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "normal": lambda draw, n: draw.normal(size=n),
    "far from 0": lambda draw, n: 1e9 + draw.normal(size=n) * 1e-3,
    "skewed": lambda draw, n: np.exp(3 * draw.normal(size=n)),
    "rounded": lambda draw, n: draw.normal(size=n).round(1),
    "mostly one": lambda draw, n: np.where(draw.random(n) < 0.9, 0.0, draw.normal(size=n)),
    "huge": lambda draw, n: draw.normal(size=n) * 1e307,
    "tiny": lambda draw, n: draw.normal(size=n) * 5e-322,
    "constant": lambda draw, n: np.full(n, 3.25),
    "infinite": lambda draw, n: np.where(draw.random(n) < 0.01, np.inf, draw.normal(size=n)),
    "below all": lambda draw, n: draw.normal(size=n) - 1e6,
}


def drawn(shape: str, seed: int, count: int) -> FloatArray:
    return np.asarray(SHAPES[shape](np.random.default_rng(seed), count), dtype=np.float64)


@settings(max_examples=examples(60), deadline=None)
@given(
    trained=st.sampled_from(sorted(SHAPES)),
    later=st.sampled_from(sorted(SHAPES)),
    seed=st.integers(0, 10_000),
    count=st.sampled_from([1, FEWEST_VALUES - 1, FEWEST_VALUES, 10_000]),
)
def test_every_count_is_that_of_the_sorted_values(
    trained: str, later: str, seed: int, count: int
) -> None:
    sketch = NumberSketch.of(pa.array(drawn(trained, seed, 5_000)))
    values = drawn(later, seed + 1, count)
    if len(sketch.places):  # values that lie on places and right beside them
        beside = np.concatenate([sketch.places, np.nextafter(sketch.places, np.inf)])
        values = np.concatenate([values, beside])
    counter = PlaceCounter(sketch.places)
    expected = np.searchsorted(np.sort(values), sketch.places, side="right")
    for _ in range(2):  # by then it has learned whether its grid helps
        assert counter.below(values).tolist() == expected.tolist()


def test_the_grid_is_really_asked_where_it_helps() -> None:
    for shape in ("normal", "far from 0"):
        counter = PlaceCounter(NumberSketch.of(pa.array(drawn(shape, 1, 50_000))).places)
        counter.below(drawn(shape, 2, 32_768))
        assert counter._grid is not None
        assert not counter._sorts, shape
