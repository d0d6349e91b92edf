"""Splits by time: what came later judges what was learned before. Times are whole microseconds."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.core.results import IntArray
from lodestar.errors import DataError

__all__ = ["latest", "windows"]

Mask = NDArray[np.bool_]


def latest(times: IntArray, share: float, gap_seconds: float, *, column: str) -> tuple[Mask, Mask]:
    """Which rows come before the latest `share` of them, less the gap, and which are those.

    Rows with the very time at which the second part starts are all in it. `column` is for the errors.

    Raises:
        DataError: no row is left before it.
    """
    first = len(times) - int(np.ceil(len(times) * share))
    start = np.partition(times, first)[first]
    before = times < start
    kept = _before(times, start, gap_seconds)
    if not before.any():
        raise DataError(
            f"no row is earlier than the test part, which starts at {_moment(start)}: "
            f"too many rows share one time in {column!r}",
            hint="use a finer timestamp, a smaller split.test_size, or method: random",
        )
    if not kept.any():
        raise DataError(
            f"no training rows are left {gap_seconds:g} s before the test part, which starts at "
            f"{_moment(start)}; the earliest row is of {_moment(times.min())}",
            hint="make split.gap_seconds smaller, or load a longer period",
        )
    return kept, ~before


def windows(
    times: IntArray,
    strata: NDArray[Any] | None,
    share: float,
    gap_seconds: float,
    *,
    count: int,
    column: str,
) -> list[tuple[Mask, Mask]]:
    """Cut the latest `share` of the rows into windows; each is judged by what came before it.

    That is evaluation on a rolling origin (Tashman 2000). Windows have about as many rows each; those
    without a row of every stratum of the whole part are one with their neighbour, so there may be
    fewer than `count`.
    """
    _, judges = latest(times, share, gap_seconds, column=column)
    ordered = np.sort(times[judges])
    starts = np.unique(ordered[np.arange(count) * len(ordered) // count])
    kept = _with_all_strata(starts, times[judges], None if strata is None else strata[judges])
    ends = [*kept[1:], np.int64(np.iinfo(np.int64).max)]
    return [
        (_before(times, start, gap_seconds), (times >= start) & (times < end))
        for start, end in zip(kept, ends, strict=True)
    ]


def _with_all_strata(
    starts: IntArray, times: IntArray, strata: NDArray[Any] | None
) -> list[np.int64]:
    """The starts of those windows that have a row of each stratum."""
    if strata is None:
        return list(starts)
    _, codes = np.unique(strata, return_inverse=True)
    wanted = codes.max() + 1
    kept: list[np.int64] = [starts[0]]
    seen: set[int] = set()
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        inside = (times >= start) if end is None else (times >= start) & (times < end)
        if len(seen) == wanted:
            kept.append(start)
            seen = set()
        seen |= set(codes[inside].tolist())
    # What is left over at the end belongs to the window before.
    return kept if len(seen) == wanted or len(kept) == 1 else kept[:-1]


def _before(times: IntArray, start: np.int64, gap_seconds: float) -> Mask:
    return (times < start) & (times <= start - round(gap_seconds * 1e6))


def _moment(microseconds: int) -> str:
    return str(np.datetime64(int(microseconds), "us"))
