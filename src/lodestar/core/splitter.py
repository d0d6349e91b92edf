"""Sets rows aside, so that nothing is judged on rows that it was fitted on."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lodestar.core import time_splits
from lodestar.core.results import IntArray, Task
from lodestar.errors import DataError, SchemaError
from lodestar.settings import recipe

__all__ = ["Method", "Split", "Splitter"]

Method = Literal["random", "stratified", "group", "time"]

_SEEDS = 2**32  # NumPy's legacy generator, which scikit-learn seeds, takes no larger ones


@dataclass(frozen=True)
class Split:
    """Row positions (ascending) to fit on and to judge on, and the method that parted them.

    The two never share a row. Together they are all rows given, but for method time, where the rows
    inside the gap are in neither.
    """

    train: IntArray
    test: IntArray
    method: Method


class Splitter:
    """Splits as the recipe's `split` section says; equal inputs and seeds give equal splits.

    `test_size` and `validation_size` are shares of rows, but of groups for method group. For method
    time, rows with the very time at which the test part starts are all in the test part.
    """

    def __init__(self, section: recipe.Split, *, task: Task, timestamp_col: str) -> None:
        self._section = section
        self._timestamp_col = timestamp_col
        by_task: Method = "random" if task == "regression" else "stratified"
        self._method: Method = by_task if section.method == "auto" else section.method

    def holdout(self, frame: pd.DataFrame, labels: NDArray[Any] | None) -> Split:
        """Set the test rows aside. `labels` (n,) is what to stratify by, ignored otherwise."""
        positions = np.arange(len(frame), dtype=np.int64)
        return self._split(
            frame, labels, positions, share=self._section.test_size, seed=self._section.seed
        )

    def validation(
        self,
        frame: pd.DataFrame,
        labels: NDArray[Any] | None,
        positions: IntArray,
        *,
        seed: int,
        share: float | None = None,
        fold: tuple[int, int] | None = None,
    ) -> Split:
        """Split the rows at `positions` once more, by the same method.

        `frame` and `labels` are the whole ones, and the result's positions refer to them. `share`
        stands in for the recipe's `validation_size`. `fold`: which of as many parts of that share as
        there are is set aside, and the seed that shuffles the rows for all of them, so that no row is
        in two. Groups and time do without: their parts are by `seed`, or all the same.
        """
        positions = np.sort(np.asarray(positions, dtype=np.int64))
        share = self._section.validation_size if share is None else share
        return self._split(frame, labels, positions, share=share, seed=seed, fold=fold)

    def windows(
        self, frame: pd.DataFrame, labels: NDArray[Any] | None, positions: IntArray, *, count: int
    ) -> list[Split]:
        """Cut the rows that `validation` would set aside into windows of time, for method time.

        Each is judged by what came before it. `count` of them at most; each has rows of every label
        that the whole part has, where labels are given.
        """
        positions = np.sort(np.asarray(positions, dtype=np.int64))
        found = time_splits.windows(
            self._microseconds(frame, positions),
            None if labels is None else np.asarray(labels)[positions],
            self._section.validation_size,
            self._section.gap_seconds,
            count=count,
            column=self._timestamp_col,
        )
        return [Split(positions[before], positions[inside], "time") for before, inside in found]

    def _split(
        self,
        frame: pd.DataFrame,
        labels: NDArray[Any] | None,
        positions: IntArray,
        *,
        share: float,
        seed: int,
        fold: tuple[int, int] | None = None,
    ) -> Split:
        if self._method == "time":
            train, test = self._by_time(frame, positions, share)
        elif self._method == "group":
            train, test = self._by_group(frame, positions, share, seed)
        else:
            strata = None
            if self._method == "stratified":
                strata = _strata(labels, positions, share)
            train, test = (
                _at_random(positions, strata, share, seed)
                if fold is None
                else _folded(positions, strata, share, fold)
            )
        return Split(np.sort(train), np.sort(test), self._method)

    def _by_group(
        self, frame: pd.DataFrame, positions: IntArray, share: float, seed: int
    ) -> tuple[IntArray, IntArray]:
        from sklearn.model_selection import GroupShuffleSplit

        column = self._section.group_col or ""
        groups = _column(frame, column, "split.group_col").iloc[positions]
        nulls = int(groups.isna().sum())
        if nulls:
            raise DataError(
                f"{nulls} of {len(groups)} rows have no value in the group column {column!r}",
                hint="leave these rows out in the loader, or give them a group of their own",
            )
        codes, names = pd.factorize(groups)
        _enough(len(names), share, f"groups in column {column!r}")
        splitter = GroupShuffleSplit(n_splits=1, test_size=share, random_state=seed % _SEEDS)
        train, test = next(splitter.split(positions, groups=codes))
        return positions[train], positions[test]

    def _by_time(
        self, frame: pd.DataFrame, positions: IntArray, share: float
    ) -> tuple[IntArray, IntArray]:
        times = self._microseconds(frame, positions)
        _enough(len(times), share, "rows")
        gap = self._section.gap_seconds
        before, after = time_splits.latest(times, share, gap, column=self._timestamp_col)
        return positions[before], positions[after]

    def _microseconds(self, frame: pd.DataFrame, positions: IntArray) -> IntArray:
        name = self._timestamp_col
        column = _column(frame, name, "data_interface.event_timestamp_col").iloc[positions]
        if pd.api.types.is_numeric_dtype(column.dtype):
            raise _no_timestamp(name, column)
        nulls = int(column.isna().sum())
        if nulls:
            raise DataError(
                f"{nulls} of {len(column)} rows have no time in {name!r}, and the split is by time",
                hint="leave these rows out in the loader, or use another split.method",
            )
        try:
            moments = pd.to_datetime(column, utc=True)
        except (ValueError, TypeError) as error:
            raise _no_timestamp(name, column) from error
        return moments.dt.as_unit("us").to_numpy("datetime64[us]").astype(np.int64)


def _at_random(
    positions: IntArray, strata: IntArray | None, share: float, seed: int
) -> tuple[IntArray, IntArray]:
    from sklearn.model_selection import train_test_split

    _enough(len(positions), share, "rows")
    train, test = train_test_split(
        positions, test_size=share, random_state=seed % _SEEDS, stratify=strata
    )
    return train, test


def _folded(
    positions: IntArray, strata: IntArray | None, share: float, fold: tuple[int, int]
) -> tuple[IntArray, IntArray]:
    """Dealt out one by one, stratum after stratum, so that every part has its share of each."""
    _enough(len(positions), share, "rows")
    number, seed = fold
    order = np.random.default_rng(seed).permutation(len(positions))
    if strata is not None:
        order = order[np.argsort(strata[order], kind="stable")]
    part = ((np.arange(len(positions)) + 0.5) * share) % 1 // share
    aside = order[part == number]
    return np.delete(positions, aside), positions[aside]


def _strata(labels: NDArray[Any] | None, positions: IntArray, share: float) -> IntArray:
    if labels is None:
        raise DataError(
            "a stratified split needs classes, and this target has none", hint="method: random"
        )
    codes, names = pd.factorize(np.asarray(labels)[positions], use_na_sentinel=False)
    counts = np.bincount(codes, minlength=len(names))
    rare = np.flatnonzero(counts < 2)  # noqa: PLR2004 (one row for either part)
    if len(rare):
        listed = ", ".join(repr(np.asarray(names)[i].item()) for i in rare[:5])
        raise DataError(
            f"a stratified split needs 2 rows of every class, and of {len(positions)} rows "
            f"only 1 has class {listed}" + (" (each)" if len(rare) > 1 else ""),
            hint="method: random, or leave out or merge such rare classes in the loader",
        )
    tested = int(np.ceil(len(positions) * share))
    if min(tested, len(positions) - tested) < len(names):
        raise DataError(
            f"{len(positions)} rows are too few to have each of {len(names)} classes in both "
            f"parts of a stratified split of {share:g}",
            hint="method: random, a more even split, or more rows",
        )
    return codes.astype(np.int64)


def _column(frame: pd.DataFrame, name: str, key: str) -> "pd.Series[Any]":
    if name not in frame.columns:
        raise SchemaError(
            f"there is no column {name!r}, which {key} names",
            hint="take it into the SELECT, or name another",
        )
    return frame[name]


def _enough(count: int, share: float, what: str) -> None:
    if count < 2 or count - int(np.ceil(count * share)) < 1:  # noqa: PLR2004 (one for either part)
        raise DataError(
            f"{count} {what} cannot be split with a share of {share:g} set aside",
            hint="load more rows, use a smaller share, or another split.method",
        )


def _no_timestamp(name: str, column: "pd.Series[Any]") -> SchemaError:
    return SchemaError(
        f"column {name!r} is of type {column.dtype} and holds no timestamps, but the split is by "
        "time",
        hint="cast it to a timestamp in the loader, or name another event_timestamp_col",
    )
