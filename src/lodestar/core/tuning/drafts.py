"""Drafts: trials on a share of their rows, where whole ones would not fit into the search's time.

A share of the rows ranks hyperparameters well enough to choose those that are judged on all of them
(successive halving, Jamieson & Talwalkar 2016; FLAML, Wang et al. 2021, starts from 10,000 rows).
"""

import numpy as np
from numpy.typing import NDArray

from lodestar.core.models.family import STRIDE
from lodestar.core.results import IntArray
from lodestar.core.splitter import Split

__all__ = [
    "FEWEST_TRIALS",
    "draft_share",
    "growth",
    "most_times",
    "rounds_of",
    "seconds_of_looked",
    "some_of",
    "thinned",
    "times_for",
    "whole_seconds",
]

# What ranks well: so many train rows at least, and not less than this share of them.
FEWEST_ROWS, SMALLEST_SHARE = 10_000, 0.125
# With a larger share than this a draft saves too little.
LARGEST_SHARE = 0.5
# As many rows judge a draft, if the split has them.
FEWEST_JUDGES = 10_000
# Seconds of a fit by its rows: less than proportional, as a part of the work is per tree or node. Seen
# with XGBoost and 63 instead of 256 bins: 6.1 to 7.9 times as much for 9.6 times the rows.
GROWTH = 0.9
# The same from one draft to a larger one with as coarse histograms, of trees that grow round by round:
# seen with XGBoost 0.54 to 0.84 between 6,000 and 144,000 rows, as deep trees have many small nodes.
GROWTH_OF_ROUNDS = 0.75
# Fewer rows overfit after fewer rounds: with the same ones, slow learners look too good. By which power
# of the rows rounds rank as those of all rows do (ADR 30).
ROUNDS_POWER = 0.4
# How many times as much a whole fit takes, for its finer histograms.
FINE = 1.6
# A look at a draft has up to this share of all rows, where that is so many times a draft's at least.
LARGEST_LOOK, FEWEST_TIMES = 0.5, 3
# Fewer trials than that are not worth a first look.
FEWEST_TRIALS = 10


def draft_share(train_rows: int) -> float | None:
    """The share of a split's train rows that a draft is fitted on; None where there are too few."""
    share = max(FEWEST_ROWS / max(train_rows, 1), SMALLEST_SHARE)
    return share if share <= LARGEST_SHARE else None


def rounds_of(share: float) -> float:
    """The share of its rounds that a fit on this share of its rows has, to rank as a whole one."""
    return float(share**ROUNDS_POWER)


def whole_seconds(
    seconds: float, draft: float | None, *, strided: bool = False, shortened: bool = False
) -> float:
    """What a whole fit takes, by a draft's seconds; as they are where it was no draft."""
    if draft is None:
        return seconds
    whole = float(seconds / draft**GROWTH)
    if shortened:
        whole /= rounds_of(draft)
    return whole * STRIDE if strided else whole


def most_times(draft: float | None) -> float | None:
    """How many times a draft's rows a look may have; None where there are no looks.

    There are none where trials are whole, or looks nearly would be.
    """
    if draft is None or FEWEST_TIMES * draft > LARGEST_LOOK:
        return None
    return LARGEST_LOOK / draft


def growth(*, by_rounds: bool, shortened: bool = False) -> float:
    """The power of the rows by which a fit's seconds grow.

    `by_rounds`: of trees, one after another; `shortened`: with as many more of them.
    """
    power = GROWTH_OF_ROUNDS if by_rounds else GROWTH
    return power + ROUNDS_POWER if shortened else power


def times_for(seconds: float, draft_seconds: float, power: float) -> float:
    """How many times a draft's rows can be fitted in these seconds."""
    return float((seconds / draft_seconds) ** (1 / power))


def seconds_of_looked(seconds: float, look: float, power: float) -> float:
    """What a whole fit takes, by those of a look at this share of its rows."""
    return float(FINE * seconds / look**power)


def thinned(split: Split, strata: NDArray[np.generic] | None, share: float, *, seed: int) -> Split:
    """A share of the split's train part, and of its other part what judges well enough.

    Every stratum keeps its share, and one row at least. `strata` (n,) is of all rows.
    """
    chooser = np.random.default_rng(seed)
    judges = max(share, min(1.0, FEWEST_JUDGES / len(split.test)))
    return Split(
        some_of(split.train, strata, share, chooser),
        some_of(split.test, strata, judges, chooser),
        split.method,
    )


def some_of(
    positions: IntArray,
    strata: NDArray[np.generic] | None,
    share: float,
    chooser: np.random.Generator,
) -> IntArray:
    """A share of these rows, sorted; of every stratum that share, and one row at least."""
    shuffled = chooser.permutation(positions)
    if strata is None:
        return np.sort(shuffled[: int(np.ceil(share * len(shuffled)))])
    _, codes, counts = np.unique(
        np.asarray(strata)[shuffled], return_inverse=True, return_counts=True
    )
    by_stratum = np.argsort(codes, kind="stable")
    first = np.cumsum(counts) - counts
    place = np.arange(len(shuffled)) - np.repeat(first, counts)
    kept = place < np.repeat(np.ceil(share * counts), counts)
    return np.sort(shuffled[by_stratum[kept]])
