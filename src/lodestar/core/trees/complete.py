"""A forest whose trees are filled up to one depth, over small whole numbers: for many rows at once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.core.trees.forest import Forest, NotPlannedError

__all__ = ["MOST_DEPTH", "CompleteForest", "complete"]

# A tree that is filled up has 2^depth leaves; below it, most of them would be copies.
MOST_DEPTH = 8


@dataclass(frozen=True)
class CompleteForest:
    """Every tree with all 2^depth leaves, level after level: the children of place i are 2i+1 and 2i+2.

    What is compared are bins and not values: the bin of a value is the number of its column's cuts that
    it has passed, which is as exact, as only cuts decide. A row goes right at an inner place where
    the bin of `slot` is above `cut`. `slots`: the matrix column of each slot. `cuts`: one slot's after
    another's, ascending, filled up with infinity to 2^`steps` - 1 of them, from `starts` on.

    `slot` and `cut` (trees, 2^depth - 1), `leaves` (trees, 2^depth), `slots`, `starts` and `steps`
    (slots,).
    """

    forest: Forest
    depth: int
    slot: NDArray[np.int32]
    cut: NDArray[np.unsignedinteger[Any]]
    leaves: NDArray[np.floating[Any]]
    slots: NDArray[np.int64]
    starts: NDArray[np.int64]
    steps: NDArray[np.int64]
    cuts: NDArray[np.floating[Any]]


def complete(forest: Forest) -> CompleteForest:
    """Fill up the trees.

    Raises:
        NotPlannedError: they are too deep, or have too many thresholds.
    """
    depth = int(forest.depths.max())
    if depth > MOST_DEPTH:
        raise NotPlannedError(f"trees of depth {depth}; up to {MOST_DEPTH} are filled up")
    nodes = forest.nodes
    inner = nodes["feature"] < forest.width
    slots = np.unique(nodes["feature"][inner]).astype(np.int64)
    found = [np.unique(nodes["threshold"][inner & (nodes["feature"] == slot)]) for slot in slots]
    most = max(map(len, found), default=0)
    if most > np.iinfo(np.uint16).max:
        raise NotPlannedError(f"a feature with {most:,} thresholds")
    steps = np.array([len(cuts).bit_length() for cuts in found], np.int64)
    filled = [
        np.concatenate([cuts, np.full(2**step - 1 - len(cuts), np.inf, cuts.dtype)])
        for cuts, step in zip(found, steps, strict=True)
    ]
    slot = np.zeros(len(nodes), np.int32)
    cut = np.zeros(len(nodes), np.uint8 if most <= np.iinfo(np.uint8).max else np.uint16)
    for at, (column, cuts) in enumerate(zip(slots, found, strict=True)):
        here = inner & (nodes["feature"] == column)
        slot[here] = at
        cut[here] = np.searchsorted(cuts, nodes["threshold"][here])
    places = _places(forest, inner, depth)
    return CompleteForest(
        forest=forest,
        depth=depth,
        slot=np.ascontiguousarray(slot[places[:, : 2**depth - 1]]),
        cut=np.ascontiguousarray(cut[places[:, : 2**depth - 1]]),
        leaves=np.ascontiguousarray(nodes["threshold"][places[:, 2**depth - 1 :]]),
        slots=slots,
        starts=np.cumsum([0, *map(len, filled)], dtype=np.int64)[:-1],
        steps=steps,
        cuts=np.concatenate([np.zeros(0, forest.base.dtype), *filled]),
    )


def _places(forest: Forest, inner: NDArray[np.bool_], depth: int) -> NDArray[np.int64]:
    """The node at each place of each tree (trees, 2^(depth + 1) - 1); below a leaf, that leaf."""
    levels = [forest.roots.reshape(-1, 1)]
    for _ in range(depth):
        above = levels[-1]
        left = above + np.where(inner[above], forest.nodes["delta"][above], 0)
        right = np.where(inner[above], left + 1, left)
        levels.append(np.stack([left, right], axis=2).reshape(len(above), -1))
    return np.concatenate(levels, axis=1)
