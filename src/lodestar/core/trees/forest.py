"""Boosted trees as flat arrays, the way the native kernel walks them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["LANES", "Forest", "Link", "NotPlannedError", "Tree", "forest_of", "node_type"]

Link = Literal["identity", "logistic", "softmax"]
# So many trees are walked side by side, which hides the time that each waits for memory.
LANES = 8


class NotPlannedError(Exception):
    """Why a faster way of scoring does not exist for a model; said in the scorer's `reason`."""


@dataclass(frozen=True)
class Tree:
    """One tree as its library keeps it: arrays over its nodes, node 0 the root.

    `left` and `right` are children, -1 at leaves. `threshold` is what an inner node compares the
    matrix column `feature` with, and what a leaf adds to the output `output`.
    """

    feature: NDArray[np.int64]
    threshold: NDArray[np.floating[Any]]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    output: int


@dataclass(frozen=True)
class Forest:
    """All trees, one after another, breadth first, siblings side by side.

    A node goes left where `x < threshold` (`x <= threshold` unless `strict`), `delta` nodes on, else
    to the node behind that. A leaf compares its value with the column `width`, which always holds
    infinity, and so leads back to itself: every tree can be walked `depth` steps without asking.
    The trees' number is a multiple of LANES. `outputs` margins per row start from `base`; `link` turns
    them into predictions; `slope` is what a logistic link multiplies the margin by.
    """

    nodes: NDArray[Any]
    roots: NDArray[np.int64]
    depths: NDArray[np.int64]
    targets: NDArray[np.int64]
    base: NDArray[np.floating[Any]]
    width: int
    strict: bool
    link: Link
    slope: float = 1.0

    @property
    def single(self) -> bool:
        """Whether it computes in float32."""
        return self.base.dtype == np.float32

    def check_bounds(self) -> None:
        """Make sure that no walk leaves the arrays, whatever file they were read from.

        Raises:
            NotPlannedError: one could.
        """
        places = np.arange(len(self.nodes))
        feature, delta = (
            self.nodes["feature"].astype(np.int64),
            self.nodes["delta"].astype(np.int64),
        )
        leaf = (feature == self.width) & (delta == -1) & np.isfinite(self.nodes["threshold"])
        inner = (feature < self.width) & (delta > 0) & (places + delta + 1 < len(self.nodes))
        inside = (
            (leaf | inner).all()
            and _within(self.roots, len(self.nodes))
            and _within(self.depths, len(self.nodes))
            and _within(self.targets, len(self.base))
            and len(self.roots) == len(self.targets) == LANES * len(self.depths)
        )
        if not inside:
            raise NotPlannedError("the trees lead out of their arrays")

    def thresholds(self) -> list[tuple[int, float]]:
        """Column and threshold of inner nodes, each pair once; those at the trees' tops come first."""
        places = np.arange(len(self.nodes))
        below = places - self.roots[np.searchsorted(self.roots, places, side="right") - 1]
        order = np.argsort(below, kind="stable")
        nodes = self.nodes[order[self.nodes["feature"][order] < self.width]]
        pairs = zip(nodes["feature"].tolist(), nodes["threshold"].tolist(), strict=True)
        return list(dict.fromkeys(pairs))


def node_type(dtype: type[np.floating[Any]]) -> np.dtype[Any]:
    """8 bytes a node in float32, 16 in float64: few cache lines a tree."""
    whole = "u2" if dtype is np.float32 else "u4"
    signed = "i2" if dtype is np.float32 else "i4"
    return np.dtype([("feature", whole), ("delta", signed), ("threshold", dtype)])


def forest_of(
    trees: Sequence[Tree],
    *,
    base: NDArray[np.floating[Any]],
    width: int,
    strict: bool,
    link: Link,
    slope: float = 1.0,
) -> Forest:
    """Lay trees out for the kernel.

    Raises:
        NotPlannedError: a tree is too large for it, or a leaf holds no finite number.
    """
    kind = node_type(base.dtype.type)
    # A leaf of -0.0 changes no sum, not even one of -0.0.
    filler = Tree(np.zeros(1, int), np.array([-0.0], base.dtype), np.array([-1]), np.array([-1]), 0)
    padded = [*trees, *[filler] * (-len(trees) % LANES)]
    laid = [_laid(tree, kind, width) for tree in padded]
    sizes = [len(nodes) for nodes, _ in laid]
    depths = np.array([depth for _, depth in laid], np.int64)
    return Forest(
        nodes=np.concatenate([nodes for nodes, _ in laid]),
        roots=np.cumsum([0, *sizes[:-1]], dtype=np.int64),
        depths=depths.reshape(-1, LANES).max(axis=1),
        targets=np.array([tree.output for tree in padded], np.int64),
        base=base,
        width=width,
        strict=strict,
        link=link,
        slope=slope,
    )


def _within(places: NDArray[np.int64], size: int) -> bool:
    return bool(((places >= 0) & (places < size)).all())


def _laid(tree: Tree, kind: np.dtype[Any], width: int) -> tuple[NDArray[Any], int]:
    """One tree's nodes in breadth-first order, and how many steps lead to its deepest leaf."""
    levels = [np.zeros(1, np.int64)]
    while True:
        inner = levels[-1][tree.left[levels[-1]] >= 0]
        if not inner.size:
            break
        levels.append(np.stack([tree.left[inner], tree.right[inner]], axis=1).ravel())
        if sum(map(len, levels)) > len(tree.left):
            raise NotPlannedError("a tree's nodes do not form a tree")
    order = np.concatenate(levels)
    place = np.empty(len(tree.left), np.int64)
    place[order] = np.arange(len(order))
    leaf = tree.left[order] < 0
    threshold = tree.threshold[order]
    delta = np.where(leaf, -1, place[tree.left[order]] - np.arange(len(order)))
    if delta.max() > np.iinfo(kind["delta"]).max or width > np.iinfo(kind["feature"]).max:
        raise NotPlannedError(f"a tree with {len(order):,} nodes is too large for the kernel")
    if not np.isfinite(threshold).all():
        raise NotPlannedError("a tree holds numbers that are not finite")
    nodes = np.empty(len(order), kind)
    nodes["feature"] = np.where(leaf, width, tree.feature[order])
    nodes["delta"] = delta
    nodes["threshold"] = threshold
    return nodes, len(levels) - 1
