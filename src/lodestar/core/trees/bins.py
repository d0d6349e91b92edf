"""A forest over small whole numbers: which of its columns' thresholds a value has passed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.core.trees.forest import Forest, NotPlannedError

__all__ = ["BinnedForest", "binned"]

LEAST_STEPS = 4  # a search's first steps are among the cuts that fit into one vector: at most 16


@dataclass(frozen=True)
class BinnedForest:
    """What is compared are bins and not values; as exact, as only thresholds decide.

    The bin of a value is the number of its column's cuts that it has passed: `<=` it where the forest
    is strict, else `<`. A row goes right at an inner node where the bin of `slot` is above `cut`.
    `columns` (slots,): the matrix column of each slot. `cuts`: one slot's after another's, ascending,
    filled up with infinity to 2^`steps` - 1 of them, from `starts` on. `inner`, `slot`, `cut` (nodes,).
    """

    forest: Forest
    columns: NDArray[np.int64]
    starts: NDArray[np.int64]
    steps: NDArray[np.int64]
    cuts: NDArray[np.floating[Any]]
    inner: NDArray[np.bool_]
    slot: NDArray[np.int32]
    cut: NDArray[np.unsignedinteger[Any]]


def binned(forest: Forest) -> BinnedForest:
    """Number the thresholds of each column.

    Raises:
        NotPlannedError: there are more than two bytes can number.
    """
    nodes = forest.nodes
    inner = nodes["feature"] < forest.width
    columns = np.unique(nodes["feature"][inner]).astype(np.int64)
    found = [np.unique(nodes["threshold"][inner & (nodes["feature"] == one)]) for one in columns]
    most = max(map(len, found), default=0)
    if most > np.iinfo(np.uint16).max:
        raise NotPlannedError(f"a feature with {most:,} thresholds")
    steps = np.array([max(LEAST_STEPS, len(cuts).bit_length()) for cuts in found], np.int64)
    filled = [
        np.concatenate([cuts, np.full(2**step - 1 - len(cuts), np.inf, cuts.dtype)])
        for cuts, step in zip(found, steps, strict=True)
    ]
    slot = np.zeros(len(nodes), np.int32)
    small: type[np.unsignedinteger[Any]] = np.uint8 if most < 2**8 else np.uint16
    cut = np.zeros(len(nodes), small)
    for at, (column, cuts) in enumerate(zip(columns, found, strict=True)):
        here = inner & (nodes["feature"] == column)
        slot[here] = at
        cut[here] = np.searchsorted(cuts, nodes["threshold"][here])
    return BinnedForest(
        forest=forest,
        columns=columns,
        starts=np.cumsum([0, *map(len, filled)], dtype=np.int64)[:-1],
        steps=steps,
        cuts=np.concatenate([np.zeros(0, forest.base.dtype), *filled]),
        inner=inner,
        slot=slot,
        cut=cut,
    )
