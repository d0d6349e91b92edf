"""Forests for tests: made at random, and walked by their description alone."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.core.fitted import FittedModel
from lodestar.core.trees.forest import LANES, Forest, Link, Tree, forest_of
from lodestar.core.trees.libraries import NativeModel, native_model

__all__ = ["random_forest", "walked", "with_other_leaves"]


def walked(forest: Forest, features: NDArray[Any] | list[float]) -> NDArray[Any]:
    """The margins of a row."""
    row, out = [*features, np.inf], forest.base.copy()
    for at, root in enumerate(forest.roots):
        place = int(root)
        for _ in range(int(forest.depths[at // LANES])):
            node = forest.nodes[place]
            value, threshold = row[node["feature"]], node["threshold"]
            left = value < threshold if forest.strict else value <= threshold
            place += int(node["delta"]) + (0 if left else 1)
        out[forest.targets[at]] += forest.nodes[place]["threshold"]
    return out


def with_other_leaves(model: FittedModel, width: int) -> NativeModel:
    """As `native_model`, with leaves that are not the model's."""
    native = native_model(model, width)
    nodes = native.forest.nodes
    nodes["threshold"][nodes["feature"] == width] *= 1.001
    return native


def random_forest(
    draw: np.random.Generator,
    *,
    trees: int,
    depth: int,
    width: int = 5,
    outputs: int = 1,
    kind: type[np.floating[Any]] = np.float32,
    strict: bool = True,
    link: Link = "identity",
    thresholds: NDArray[Any] | None = None,
) -> Forest:
    """Trees of up to `depth`, one branch in five shorter; what they compare with is of `thresholds`."""
    known = draw.normal(size=20) if thresholds is None else thresholds
    return forest_of(
        [_random_tree(draw, depth, width, at % outputs, known.astype(kind)) for at in range(trees)],
        base=draw.normal(size=outputs).astype(kind),
        width=width,
        strict=strict,
        link=link,
    )


def _random_tree(
    draw: np.random.Generator, depth: int, width: int, output: int, thresholds: NDArray[Any]
) -> Tree:
    feature: list[int] = []
    threshold: list[float] = []
    left: list[int] = []
    right: list[int] = []
    waiting = [(-1, "", depth)]
    while waiting:
        parent, side, levels = waiting.pop()
        place = len(feature)
        if parent >= 0:
            (left if side == "left" else right)[parent] = place
        inner = levels > 0 and (draw.random() < 0.8 or parent < 0)
        feature.append(int(draw.integers(width)))
        threshold.append(float(draw.choice(thresholds)) if inner else draw.normal())
        left.append(-1)
        right.append(-1)
        if inner:
            waiting += [(place, "right", levels - 1), (place, "left", levels - 1)]
    kind = thresholds.dtype
    return Tree(
        np.array(feature), np.array(threshold, kind), np.array(left), np.array(right), output
    )
