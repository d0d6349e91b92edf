"""Whatever the rows: parts are disjoint and complete, groups whole, time ordered, repeatable."""

from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from tests.examples import examples

from lodestar.core.results import IntArray
from lodestar.core.splitter import Split, Splitter
from lodestar.errors import DataError
from lodestar.settings import recipe

METHODS = ("random", "stratified", "group", "time")
START = pd.Timestamp("2025-01-01", tz="UTC")


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(st.integers(2, 60))

    def column(most: int) -> list[int]:
        return draw(st.lists(st.integers(0, most), min_size=rows, max_size=rows))

    return pd.DataFrame(
        {
            "label": column(2),
            "group": column(12),
            "at": START + pd.to_timedelta(np.array(column(100)), unit="s"),
        }
    )


def a_splitter(method: str, share: float, seed: int, gap: float) -> Splitter:
    section: dict[str, Any] = {
        "method": method,
        "test_size": share,
        "validation_size": share,
        "seed": seed,
    }
    if method == "group":
        section["group_col"] = "group"
    if method == "time":
        section["gap_seconds"] = gap
    return Splitter(recipe.Split.model_validate(section), task="classification", timestamp_col="at")


def is_sound(frame: pd.DataFrame, positions: IntArray, split: Split, gap: float) -> None:
    both = np.concatenate([split.train, split.test])
    assert len(split.train)
    assert len(split.test)
    assert len(np.unique(both)) == len(both)
    assert (np.diff(split.train) > 0).all()
    assert (np.diff(split.test) > 0).all()
    assert np.isin(both, positions).all()
    if split.method != "time":
        assert len(both) == len(positions)
    if split.method == "group":
        groups = frame["group"]
        assert not set(groups.iloc[split.train]) & set(groups.iloc[split.test])
    if split.method == "time":
        start = frame["at"].iloc[split.test].min()
        assert start - frame["at"].iloc[split.train].max() >= pd.Timedelta(seconds=gap)
        assert (frame["at"].iloc[split.train] < start).all()
        left_out = np.setdiff1d(positions, both)
        times = frame["at"].iloc[left_out]
        assert ((times < start) & (times > start - pd.Timedelta(seconds=gap))).all()


@settings(deadline=None, max_examples=examples(150))
@given(
    frame=frames(),
    method=st.sampled_from(METHODS),
    share=st.floats(0.05, 0.6),
    seed=st.integers(0, 2**40),
    gap=st.integers(0, 30),
)
def test_every_split_is_sound_and_so_is_the_split_of_its_training_part(
    frame: pd.DataFrame, method: str, share: float, seed: int, gap: float
) -> None:
    splitter, labels = a_splitter(method, share, seed, gap), frame["label"].to_numpy()
    try:
        outer = splitter.holdout(frame, labels)
        inner = splitter.validation(frame, labels, outer.train, seed=seed + 1)
    except DataError:
        reject()
    is_sound(frame, np.arange(len(frame)), outer, gap)
    is_sound(frame, outer.train, inner, gap)


@settings(deadline=None, max_examples=50)
@given(
    frame=frames(),
    method=st.sampled_from(METHODS),
    share=st.floats(0.05, 0.6),
    seed=st.integers(0, 2**40),
)
def test_equal_seeds_give_equal_splits_whatever_the_index(
    frame: pd.DataFrame, method: str, share: float, seed: int
) -> None:
    labels = frame["label"].to_numpy()
    other = frame.set_axis(np.arange(len(frame))[::-1] * 3)
    try:
        first = a_splitter(method, share, seed, 0).holdout(frame, labels)
    except DataError:
        reject()
    second = a_splitter(method, share, seed, 0).holdout(other, labels)
    assert np.array_equal(first.train, second.train)
    assert np.array_equal(first.test, second.test)


@settings(deadline=None, max_examples=50)
@given(frame=frames(), share=st.floats(0.1, 0.5), late=st.integers(101, 10_000))
def test_later_rows_never_move_an_earlier_row_from_train_to_test(
    frame: pd.DataFrame, share: float, late: int
) -> None:
    more = pd.DataFrame({"label": [0], "group": [0], "at": [START + pd.Timedelta(seconds=late)]})
    try:
        before = a_splitter("time", share, 0, 0).holdout(frame, None)
    except DataError:
        reject()
    after = a_splitter("time", share, 0, 0).holdout(pd.concat([frame, more]), None)
    assert np.isin(before.train, after.train).all()
