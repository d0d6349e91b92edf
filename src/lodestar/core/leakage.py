"""Looks for ways in which held-out rows are not as unseen as they should be: it warns, no more."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lodestar.core.proxies import proxies
from lodestar.core.results import IntArray, LeakageFinding, Task
from lodestar.core.splitter import Split

__all__ = ["inspect"]


def inspect(
    frame: pd.DataFrame,
    split: Split,
    *,
    feature_cols: Sequence[str],
    target: NDArray[Any],
    task: Task,
    entity_keys: Sequence[str],
    timestamp_col: str,
) -> tuple[LeakageFinding, ...]:
    """What to look at before the test figures are believed, the gravest first.

    `target` (n,) belongs to the frame's rows: class positions, values or outcomes.
    """
    return (
        *proxies(frame, split, feature_cols=feature_cols, target=target, task=task),
        *_later_timestamps(frame, timestamp_col),
        *_duplicates(frame, split, feature_cols, target),
        *_shared_entities(frame, split, entity_keys),
    )


def _duplicates(
    frame: pd.DataFrame, split: Split, feature_cols: Sequence[str], target: NDArray[Any]
) -> Iterator[LeakageFinding]:
    if not feature_cols:
        return
    hashes = _row_hashes([*(frame[name] for name in feature_cols), pd.Series(target)])
    known = np.isin(hashes[split.test], hashes[split.train])
    count = int(known.sum())
    if count:
        yield LeakageFinding(
            "duplicate_rows",
            f"{count} of {len(split.test)} test rows stand in the training rows with the same "
            "features and target",
            "remove duplicates in the loader, or split by group; with few distinct feature values "
            "this is expected",
            rows=count,
        )


def _shared_entities(
    frame: pd.DataFrame, split: Split, entity_keys: Sequence[str]
) -> Iterator[LeakageFinding]:
    keys = [name for name in entity_keys if name in frame.columns]
    if not keys:
        return
    hashes = _row_hashes([frame[name] for name in keys])
    test = hashes[split.test]
    known = np.isin(test, hashes[split.train])
    count = int(known.sum())
    if not count:
        return
    entities = len(np.unique(test[known]))
    hint = f"split.method: group with group_col: {keys[0]}, if the model will meet new ones"
    if split.method == "time":
        hint = "usual for a split by time: the figures hold for known ones, not for new ones"
    yield LeakageFinding(
        "shared_entities",
        f"{entities} values of {', '.join(keys)} stand in both parts: {count} of "
        f"{len(split.test)} test rows",
        hint,
        rows=count,
        columns=tuple(keys),
    )


def _later_timestamps(frame: pd.DataFrame, timestamp_col: str) -> Iterator[LeakageFinding]:
    if timestamp_col not in frame.columns or not _is_time(frame[timestamp_col]):
        return
    event = _moments(frame[timestamp_col])
    for name in frame.columns:
        if name == timestamp_col or not _is_time(frame[name]):
            continue
        count = int((_moments(frame[name]) > event).sum())
        if count:
            yield LeakageFinding(
                "timestamp_after_event",
                f"{name} is later than {timestamp_col} in {count} of {len(frame)} rows",
                f"drop {name}, or take only what was known at {timestamp_col}",
                rows=count,
                columns=(str(name),),
            )


def _is_time(column: "pd.Series[Any]") -> bool:
    return bool(pd.api.types.is_datetime64_any_dtype(column.dtype))


def _moments(column: "pd.Series[Any]") -> NDArray[np.datetime64]:
    """Moments in UTC; a comparison with a missing one is false."""
    return pd.to_datetime(column, utc=True).to_numpy("datetime64[us]")


def _row_hashes(columns: "Sequence[pd.Series[Any]]") -> NDArray[np.uint64]:
    """One 64-bit hash per row (n,), equal for equal values."""
    mixed = np.full(len(columns[0]), 0x345678, dtype=np.uint64)
    for column in columns:
        mixed = (mixed ^ _hashes(column)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _hashes(column: "pd.Series[Any]") -> NDArray[np.uint64]:
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        return pd.util.hash_array(column.to_numpy(), categorize=False)
    try:
        codes, values = pd.factorize(column)
    except TypeError:  # lists or dicts in the cells
        codes, values = pd.factorize(column.astype(str))
    return _spread(codes.astype(np.int64), len(values))


def _spread(codes: IntArray, count: int) -> NDArray[np.uint64]:
    """Hashes of the codes: they are compared within this one column only, so codes will do."""
    return pd.util.hash_array(np.arange(-1, count), categorize=False)[codes + 1]
