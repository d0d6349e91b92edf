"""Describes each column at a glance, for the report and to compare later data with these rows."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lodestar.core.results import ColumnProfile, DataProfile, FloatArray

__all__ = ["profile"]

_BINS = 20
_TOP = 10


def profile(frame: pd.DataFrame, roles: dict[str, str]) -> DataProfile:
    """Counts, range and distribution per column; `roles` says what each column is for.

    A column without a role gets "feature". Columns whose values are all different (names, ids) show
    no most frequent values: these would be single rows.
    """
    columns = tuple(
        _column(str(name), frame.iloc[:, i], roles.get(str(name), "feature"))
        for i, name in enumerate(frame.columns)
    )
    return DataProfile(len(frame), columns)


def _column(name: str, column: "pd.Series[Any]", role: str) -> ColumnProfile:
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return _timestamps(name, column, role)
    if _is_number(column):
        return _numbers(name, column, role)
    return _others(name, column, role)


def _is_number(column: "pd.Series[Any]") -> bool:
    kinds = pd.api.types
    return kinds.is_numeric_dtype(column.dtype) and not (
        kinds.is_bool_dtype(column.dtype) or kinds.is_complex_dtype(column.dtype)
    )


def _numbers(name: str, column: "pd.Series[Any]", role: str) -> ColumnProfile:
    present = column.dropna()
    values = present.to_numpy(dtype=np.float64)
    finite = values[np.isfinite(values)]
    low = mean = high = ""
    histogram: tuple[int, ...] = ()
    if len(finite):
        whole = pd.api.types.is_integer_dtype(column.dtype)
        low = str(int(present.min())) if whole else f"{finite.min():.6g}"
        high = str(int(present.max())) if whole else f"{finite.max():.6g}"
        with np.errstate(over="ignore"):
            mean = f"{finite.mean():.6g}"
        histogram = _histogram(finite)
    return ColumnProfile(
        name,
        str(column.dtype),
        len(column),
        len(column) - len(present),
        len(pd.unique(values)),
        role,
        low,
        mean,
        high,
        histogram,
    )


def _timestamps(name: str, column: "pd.Series[Any]", role: str) -> ColumnProfile:
    present = column.dropna()
    low = mean = high = ""
    histogram: tuple[int, ...] = ()
    distinct = 0
    if len(present):
        moments = pd.to_datetime(present)
        low, high = moments.min().isoformat(), moments.max().isoformat()
        mean = moments.mean().floor("s").isoformat()
        ticks = moments.to_numpy("datetime64[us]").astype(np.int64)
        distinct = len(pd.unique(ticks))
        histogram = _histogram((ticks - ticks.min()).astype(np.float64))
    return ColumnProfile(
        name,
        str(column.dtype),
        len(column),
        len(column) - len(present),
        distinct,
        role,
        low,
        mean,
        high,
        histogram,
    )


def _others(name: str, column: "pd.Series[Any]", role: str) -> ColumnProfile:
    try:
        codes, values = pd.factorize(column)
    except TypeError:  # lists or dicts in the cells
        column = column.map(str, na_action="ignore")
        codes, values = pd.factorize(column)
    counts = np.bincount(codes[codes >= 0], minlength=len(values))
    top: tuple[tuple[str, int], ...] = ()
    if counts.max(initial=0) > 1:
        first = np.argsort(-counts, kind="stable")[:_TOP]
        top = tuple((str(values[i]), int(counts[i])) for i in first)
    nulls = int((codes < 0).sum())
    return ColumnProfile(name, str(column.dtype), len(column), nulls, len(values), role, top=top)


def _histogram(values: FloatArray) -> tuple[int, ...]:
    """Counts of 20 equal bins; all in the first where there is one value only."""
    low, high = float(values.min()), float(values.max())
    span = high / 2 - low / 2  # halved: the difference of two finite numbers may overflow
    if span <= 0:
        return (len(values), *(0,) * (_BINS - 1))
    place = ((values / 2 - low / 2) * (_BINS / span)).astype(np.int64)
    counts: NDArray[np.int64] = np.bincount(np.minimum(place, _BINS - 1), minlength=_BINS)
    return tuple(int(count) for count in counts)
