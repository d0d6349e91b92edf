"""Finds single features that give the target away: copies of it, or traces of what came after."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lodestar.core.results import FloatArray, IntArray, LeakageFinding, Task
from lodestar.core.splitter import Split

__all__ = ["proxies"]

_ROWS = 20_000
_SCREEN_ROWS = 2_000
_SCREEN = 0.95  # a feature that ranks 2,000 rows worse than this will not reach _PERFECT on more
_PERFECT = 0.999
_FEWEST = 20  # rows, and a fourth of it per class: with fewer, perfection is chance
_CLASSES = 20
_BINARY = 2
_SEED = 20_250_101


def proxies(
    frame: pd.DataFrame,
    split: Split,
    *,
    feature_cols: Sequence[str],
    target: NDArray[Any],
    task: Task,
) -> Iterator[LeakageFinding]:
    """Features that rank or name the target almost perfectly, alone.

    Numeric and timestamp features: ROC AUC (one class against the rest) or absolute Spearman
    correlation of at least 0.999 over at most 20,000 rows; for classes a null ranks lowest. Others:
    each value goes with one class in training rows, and does so in test rows too.
    """
    rows = _sampled(split)
    values = np.asarray(target)
    classes = np.unique(values[rows])
    by_class = task == "classification" or len(classes) == _BINARY
    if len(rows) < _FEWEST or len(classes) < _BINARY or (by_class and len(classes) > _CLASSES):
        return
    codes = np.searchsorted(classes, values) if by_class else None
    for name in feature_cols:
        scores = _scores(frame[name])
        if scores is None:
            found = None if codes is None else _naming(frame[name], split, codes)
        elif codes is None:
            found = _spearman(scores[rows], values[rows].astype(np.float64))
        else:
            found = _ranking(scores[rows], codes[rows], len(classes))
        if found:
            yield LeakageFinding(
                "target_proxy",
                f"{name} alone gives the target away: {found}",
                f"check that {name} is known before the outcome; if not, leave it out in the "
                "loader",
                rows=len(rows),
                columns=(str(name),),
            )


def _sampled(split: Split) -> IntArray:
    rows = np.concatenate([split.train, split.test])
    return np.random.default_rng(_SEED).permutation(rows)[:_ROWS]


def _scores(column: "pd.Series[Any]") -> FloatArray | None:
    """Numbers to rank by, NaN where null; None for what is not a number or a time."""
    dtype = column.dtype
    if pd.api.types.is_datetime64_any_dtype(dtype):
        moments = pd.to_datetime(column, utc=True).to_numpy("datetime64[us]")
        return np.where(np.isnat(moments), np.nan, moments.astype(np.int64).astype(np.float64))
    if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return None


def _ranking(scores: FloatArray, codes: IntArray, classes: int) -> str:
    scores = np.where(np.isnan(scores), -np.inf, scores)
    judged = [1] if classes == _BINARY else list(range(classes))
    few = slice(None, _SCREEN_ROWS)
    if not _reaching(scores[few], codes[few], judged, _SCREEN):
        return ""
    reached = _reaching(scores, codes, judged, _PERFECT)
    if not reached:
        return ""
    best = max(reached.values())
    of = "" if classes == _BINARY else f" for {len(reached)} of {classes} classes"
    return f"ROC AUC {best:.4f}{of} in {len(scores)} rows"


def _reaching(
    scores: FloatArray, codes: IntArray, judged: list[int], least: float
) -> dict[int, float]:
    """Class → AUC of the scores in the better direction, where it is at least `least`."""
    if scores.max() == scores.min():
        return {}
    ranks = _ranks(scores)
    own = np.bincount(codes, minlength=max(judged) + 1)
    sums = np.bincount(codes, weights=ranks, minlength=max(judged) + 1)
    found = {}
    for c in judged:
        rest = len(codes) - int(own[c])
        if min(int(own[c]), rest) < _FEWEST // 4:
            if least < _PERFECT:
                found[c] = 0.0  # too few to screen by: leave it to all rows
            continue
        area = float((sums[c] - own[c] * (own[c] + 1) / 2) / (own[c] * rest))
        if max(area, 1 - area) >= least:
            found[c] = max(area, 1 - area)
    return found


def _spearman(scores: FloatArray, values: FloatArray) -> str:
    known = ~np.isnan(scores) & ~np.isnan(values)
    scores, values = scores[known], values[known]
    if len(scores) < _FEWEST:
        return ""
    if abs(_correlation(scores[:_SCREEN_ROWS], values[:_SCREEN_ROWS])) < _SCREEN:
        return ""
    found = _correlation(scores, values)
    return f"Spearman {found:.4f} in {len(scores)} rows" if abs(found) >= _PERFECT else ""


def _correlation(a: FloatArray, b: FloatArray) -> float:
    if a.max() == a.min() or b.max() == b.min():
        return 0.0
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: FloatArray) -> FloatArray:
    """Ranks from 1, the mean one for equal values."""
    order = np.argsort(values)
    ranked = values[order]
    starts = np.r_[0, np.flatnonzero(ranked[1:] != ranked[:-1]) + 1, len(values)]
    means = (starts[:-1] + starts[1:] + 1) / 2
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(means, np.diff(starts))
    return ranks


def _naming(column: "pd.Series[Any]", split: Split, codes: IntArray) -> str:
    """Does each value go with one class in train rows, and with the same one in test rows?"""
    train, test = split.train[:_ROWS], split.test[:_ROWS]
    if len(np.unique(codes[train])) < _BINARY:
        return ""
    cells = column.iloc[np.concatenate([train, test])]
    try:
        values, names = pd.factorize(cells, use_na_sentinel=False)
    except TypeError:  # lists or dicts in the cells
        values, names = pd.factorize(cells.astype(str), use_na_sentinel=False)
    if len(names) > len(values) / 2 or len(names) < _BINARY:
        return ""
    fitted, met = values[: len(train)], values[len(train) :]
    counts = np.zeros((len(names), int(codes.max()) + 1))
    np.add.at(counts, (fitted, codes[train]), 1)
    named, seen = counts.argmax(axis=1), counts.sum(axis=1) > 0
    known = seen[met]
    if known.sum() < max(1, len(test) / 2):
        return ""
    purity = min(
        _balanced(named[fitted], codes[train]),
        _balanced(named[met][known], codes[test][known]),
    )
    if purity < _PERFECT:
        return ""
    return f"each of its {len(names)} values goes with one class ({purity:.2%} of test rows)"


def _balanced(named: IntArray, true: IntArray) -> float:
    """Share named right, as the mean over classes, so that a common class cannot carry it."""
    own = np.bincount(true)
    right = np.bincount(true[named == true], minlength=len(own))
    return float((right[own > 0] / own[own > 0]).mean())
