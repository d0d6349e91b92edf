"""Sketches: any split of the rows gives the same window, and what has not moved has not drifted."""

import json
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.examples import examples

from lodestar.core.drift.categories import CategoryCounts, CategorySketch
from lodestar.core.drift.numbers import NumberCounts, NumberSketch
from lodestar.core.drift.sketches import Reference, SketchedColumn, Window
from lodestar.core.stability import StabilityIndex, stability_index

SOME = settings(max_examples=examples(100))
FLOATS = st.floats(-1e300, 1e300) | st.just(math.nan) | st.none()
NUMBERS = st.lists(FLOATS | st.sampled_from([0.0, -0.0, 1.0, 1.0000001]), max_size=120)
TEXTS = st.lists(
    st.sampled_from(["a", "b", "ä", ""]) | st.text(max_size=3) | st.none(), max_size=120
)
CUTS = st.lists(st.integers(0, 120), max_size=6)


def parts(column: pa.Array, cuts: list[int]) -> list[pa.Array]:
    ends = [0, *sorted(min(cut, len(column)) for cut in cuts), len(column)]
    return [column[start:end] for start, end in pairwise(ends)]


def numbers_told(counts: NumberCounts) -> tuple[object, ...]:
    return (
        *(counts.rows, counts.nulls, counts.low, counts.high, counts.under, counts.above),
        counts.below.tolist(),
    )


@SOME
@given(trained=NUMBERS, later=NUMBERS, cuts=CUTS)
def test_numbers_in_any_split_and_merged_in_any_order_give_the_same(
    trained: list[float | None], later: list[float | None], cuts: list[int]
) -> None:
    sketch = NumberSketch.of(pa.array(trained, pa.float64()))
    column = pa.array(later, pa.float64())
    whole, streamed, merged = sketch.counter(), sketch.counter(), sketch.counter()
    whole.add(column)
    for part in parts(column, cuts):
        streamed.add(part)
        one = sketch.counter()
        one.add(part)
        one.merge(merged)
        merged = one
    assert numbers_told(whole) == numbers_told(streamed) == numbers_told(merged)


@SOME
@given(trained=TEXTS, later=TEXTS, cuts=CUTS, sensitive=st.booleans())
def test_text_in_any_split_and_merged_in_any_order_gives_the_same(
    trained: list[str | None], later: list[str | None], cuts: list[int], sensitive: bool
) -> None:
    salt = "a salt" if sensitive else None
    sketch = CategorySketch.of(pa.array(trained, pa.string()), salt=salt)
    column = pa.array(later, pa.string())
    whole, merged = sketch.counter(), sketch.counter()
    whole.add(column)
    for part in parts(column, cuts):
        one = sketch.counter()
        one.add(part)
        one.merge(merged)
        merged = one
    coded = sketch.counter()
    coded.add(pa.chunked_array([part.dictionary_encode() for part in parts(column, cuts)]))

    def told(counts: CategoryCounts) -> tuple[object, ...]:
        return counts.rows, counts.nulls, counts.counts.tolist(), counts.unseen

    assert told(whole) == told(merged) == told(coded)


@SOME
@given(
    trained=st.lists(st.integers(0, 5) | st.none(), max_size=60),
    later=st.lists(st.integers(-1, 7) | st.none(), max_size=60),
)
def test_classes_that_are_numbers_are_counted_as_their_text_is(
    trained: list[int | None], later: list[int | None]
) -> None:
    sketch = CategorySketch.of(pa.array(trained, pa.int64()))
    numbers, texts = sketch.counter(), sketch.counter()
    numbers.add(pa.array(later, pa.int64()))
    texts.add(pa.array(later, pa.int64()).cast(pa.string()))
    assert (numbers.rows, numbers.nulls) == (texts.rows, texts.nulls)
    assert numbers.counts.tolist() == texts.counts.tolist()
    assert numbers.unseen == texts.unseen


def test_the_values_that_are_named_do_not_depend_on_order_even_where_there_are_too_many() -> None:
    sketch = CategorySketch.of(pa.array(["known"] * 9))
    names = [f"new {at % 500}" for at in range(2_000)]
    forth, back = sketch.counter(), sketch.counter()
    for at in range(0, 2_000, 100):
        forth.add(pa.array(names[at : at + 100]))
        back.add(pa.array(names[::-1][at : at + 100]))
    assert forth.unseen == back.unseen
    assert set(forth.unseen.values()) == {4}
    assert forth.unknown == 2_000


@SOME
@given(values=NUMBERS)
def test_a_sketch_counts_its_own_rows_as_it_remembers_them(values: list[float | None]) -> None:
    column = pa.array(values, pa.float64())
    sketch = NumberSketch.of(column)
    again = NumberSketch.from_json(json.loads(json.dumps(sketch.to_json())))
    window = again.counter()
    window.add(column)
    own = again.own()
    assert numbers_told(window) == numbers_told(own)
    assert stability_index(own.binned(), window.binned()) == 0.0
    assert window.binned().sum() == pytest.approx(window.present)


@SOME
@given(values=TEXTS)
def test_a_sketch_of_text_counts_its_own_rows_as_it_remembers_them(
    values: list[str | None],
) -> None:
    column = pa.array(values, pa.string())
    again = CategorySketch.from_json(json.loads(json.dumps(CategorySketch.of(column).to_json())))
    window = again.counter()
    window.add(column)
    assert window.counts.tolist() == again.counts.tolist()
    assert not window.unseen
    assert not window.unknown


@SOME
@given(seed=st.integers(0, 2**32 - 1), steps=st.lists(st.floats(0.1, 1.0), min_size=2, max_size=4))
def test_the_index_grows_with_a_planted_shift(seed: int, steps: list[float]) -> None:
    draw = np.random.default_rng(seed)
    values = draw.normal(size=2_000)
    sketch = NumberSketch.of(pa.array(values))
    found = []
    for shift in np.cumsum([0.0, *steps]):
        window = sketch.counter()
        window.add(pa.array(values + shift))
        found.append(stability_index(sketch.own().binned(), window.binned()))
    assert found[0] == 0.0
    assert all(near < far for near, far in pairwise(found))


@SOME
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-9, 1.0, 1e9]))
def test_streamed_and_at_hand_the_index_is_the_same(seed: int, scale: float) -> None:
    """The index of the sketches is the one that serving's rollback goes by."""
    draw = np.random.default_rng(seed)
    was, now = (draw.lognormal(size=count) * scale for count in (500, 300))
    sketch = NumberSketch.of(pa.array(was))
    window = sketch.counter()
    window.add(pa.array(now))
    index = stability_index(sketch.own().binned(), window.binned())
    assert index == pytest.approx(StabilityIndex(was.tolist()).of(now.tolist()), abs=1e-12)


@SOME
@given(st.lists(st.floats(-1e9, 1e9), min_size=200, max_size=400))
def test_quantiles_are_as_exact_as_their_number(values: list[float]) -> None:
    """Between two places lies no more than a quantile's share, one value's repeats apart."""
    column = pa.array(values)
    sketch = NumberSketch.of(column)
    below = np.concatenate([[0], sketch.below, [len(values)]])
    places = np.concatenate([[-math.inf], sketch.places, [math.inf]])
    ordered = np.sort(values)
    for at, many in enumerate(np.diff(below)):
        inside = ordered[(ordered > places[at]) & (ordered <= places[at + 1])]
        assert len(inside) == many
        repeated = np.unique(inside, return_counts=True)[1].max(initial=0)
        assert many - repeated <= len(values) / 64 + 2


def test_a_window_of_all_kinds_merges_as_a_whole() -> None:
    draw = np.random.default_rng(1)

    def rows(count: int) -> pa.Table:
        return pa.table(
            {
                "number": draw.normal(size=count),
                "flag": pa.array(draw.random(count) < 0.3),
                "day": pa.array(draw.integers(0, 2_000, count), pa.int32()).cast(pa.date32()),
                "at": pa.array(draw.integers(0, 10**15, count)).cast(pa.timestamp("us", tz="UTC")),
                "secret": pa.array(draw.normal(size=count)),
                "text": pa.array([f"t{at}" for at in draw.integers(0, 9, count)]),
            }
        )

    trained = rows(1_000)
    reference = Reference.of(
        trained, {}, labels=False, importances={}, sensitive={"secret"}, salt="s"
    )
    later = rows(700)
    whole, halves = Window(reference), [Window(reference), Window(reference)]
    whole.add({name: later.column(name) for name in later.column_names}, 700)
    for half, start in zip(halves, (0, 350), strict=True):
        part = later.slice(start, 350)
        half.add({name: part.column(name) for name in part.column_names}, 350)
    halves[0].merge(halves[1])
    assert halves[0].rows == whole.rows
    for name, counts in whole.counts.items():
        other = halves[0].counts[name]
        assert vars(other).keys() == vars(counts).keys()
        assert (other.rows, other.nulls) == (counts.rows, counts.nulls)
        if isinstance(counts, NumberCounts) and isinstance(other, NumberCounts):
            assert numbers_told(counts) == numbers_told(other)
            assert counts.low >= (counts.sketch.low or 0) - 4


@pytest.mark.parametrize(
    ("kind", "trained", "later"),
    [
        (pa.float64(), [0.5, 1.5, None, 2.5] * 9, [1.0, float("nan"), None, 7.0, -3.0]),
        (pa.int64(), [1, 2, 3, None] * 9, [1, 3, None, 9]),
        (pa.bool_(), [True, False, None] * 9, [True, None, False, True]),
        (pa.string(), ["x", "y", None] * 9, ["x", "new", None, "y", "new"]),
    ],
)
@pytest.mark.parametrize("how", ["plain", "label", "sensitive"])
def test_pythons_own_values_are_counted_as_arrows(
    kind: pa.DataType, trained: list[Any], later: list[Any], how: str
) -> None:
    column = SketchedColumn.of(
        "a",
        pa.array(trained, kind),
        label=how == "label" and not pa.types.is_floating(kind),  # no class is a fraction
        sensitive="salt" if how == "sensitive" else None,
    )
    reference = Reference((column,))
    windows = [Window(reference), Window(reference)]
    windows[0].add({"a": pa.array(later, kind)}, len(later))
    windows[1].add({"a": later}, len(later))
    assert windows[0].to_json() == windows[1].to_json()
