"""Trees as the kernel walks them, and the formats that they are read from."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import xgboost
from tests.forests import walked

from lodestar.core.trees.c_library import math_function
from lodestar.core.trees.forest import LANES, Forest, NotPlannedError, Tree, forest_of
from lodestar.core.trees.ubjson import read_ubjson


def booster() -> xgboost.Booster:
    draw = np.random.default_rng(2)
    features = draw.normal(size=(300, 4))
    data = xgboost.DMatrix(features, (features[:, 0] * features[:, 1] > 0).astype(int))
    return xgboost.train({"objective": "binary:logistic"}, data, 4)


def plain(value: Any) -> Any:  # noqa: ANN401 -- what JSON may hold
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def test_xgboosts_binary_format_says_the_same_as_its_text() -> None:
    model = booster()
    read = plain(read_ubjson(model.save_raw("ubj")))
    text = json.loads(model.save_raw("json"), parse_float=lambda word: float(np.float32(word)))
    assert read == text


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"i\xff", -1),
        (b"U\xff", 255),
        (b"I\x01\x00", 256),
        (b"D" + np.array(0.1, ">f8").tobytes(), 0.1),
        (b"T", True),
        (b"F", False),
        (b"Z", None),
        (b"[]", []),
        (b"[i\x01F]", [1, False]),
        (b"[$U#i\x02\x05\x06", [5, 6]),
        ("Si\x03ü!".encode(), "ü!"),
        (b"{}", {}),
        (b"{i\x01a{i\x01bi\x02}}", {"a": {"b": 2}}),
    ],
)
def test_every_form_of_a_value_is_read(data: bytes, value: object) -> None:
    assert plain(read_ubjson(data)) == value


@pytest.mark.parametrize(
    "data", [b"", b"X", b"[$X#i\x01a", b"{Xa", b"[i\x01", b"I\x01", b"Si\x05ab"]
)
def test_another_format_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="no universal binary JSON"):
        read_ubjson(data)


def tree(left: list[int], right: list[int], *, feature: int = 0, leaf: float = 1.0) -> Tree:
    thresholds = np.array([leaf if child < 0 else 0.5 for child in left])
    return Tree(np.full(len(left), feature), thresholds, np.array(left), np.array(right), 0)


def laid(
    *trees: Tree, kind: type[np.floating[Any]] = np.float64, width: int = 1, outputs: int = 1
) -> Forest:
    return forest_of(trees, base=np.zeros(outputs, kind), width=width, strict=True, link="identity")


def test_siblings_come_to_lie_side_by_side_and_leaves_lead_back_to_themselves() -> None:
    # The right child is a leaf; the left one's children lie far apart.
    forest = laid(tree([1, 4, -1, -1, -1], [2, 3, -1, -1, -1]))
    assert len(forest.roots) == LANES
    assert forest.depths.tolist() == [2]
    assert forest.nodes["delta"][:5].tolist() == [1, 2, -1, -1, -1]
    assert forest.nodes["feature"][:5].tolist() == [0, 0, 1, 1, 1]
    forest.check_bounds()


def test_a_row_ends_in_the_leaf_that_its_values_lead_to() -> None:
    leaves = np.array([0.5, 0.25, 10.0, 20.0, 30.0])
    one = Tree(
        feature=np.array([0, 1, 0, 0, 0]),
        threshold=leaves,
        left=np.array([1, 3, -1, -1, -1]),
        right=np.array([2, 4, -1, -1, -1]),
        output=0,
    )
    forest = laid(one, tree([-1], [-1], leaf=100.0), width=2)
    assert walked(forest, [0.5, 0.0]).tolist() == [110.0]
    assert walked(forest, [0.4, 0.2]).tolist() == [120.0]
    assert walked(forest, [0.4, 0.25]).tolist() == [130.0]


def test_trees_that_fill_the_lanes_change_no_sum() -> None:
    forest = laid(tree([-1], [-1], leaf=-0.0))
    start = dataclasses.replace(forest, base=np.array([-0.0]))
    assert np.signbit(walked(start, [1.0])[0])


@pytest.mark.parametrize(
    ("trees", "kind", "width", "words"),
    [
        ([tree([-1], [-1], leaf=np.inf)], np.float64, 1, "not finite"),
        ([tree([0], [0])], np.float64, 1, "do not form a tree"),
        ([tree([-1], [-1])], np.float32, 70_000, "too large for the kernel"),
    ],
)
def test_trees_that_the_kernel_could_not_walk_are_refused(
    trees: list[Tree], kind: type[np.floating[Any]], width: int, words: str
) -> None:
    with pytest.raises(NotPlannedError, match=words):
        laid(*trees, kind=kind, width=width)


def test_a_tree_too_large_for_short_steps_is_refused() -> None:
    levels = 16
    inner = 2**levels - 1
    left = [2 * at + 1 if at < inner else -1 for at in range(2 * inner + 1)]
    right = [2 * at + 2 if at < inner else -1 for at in range(2 * inner + 1)]
    with pytest.raises(NotPlannedError, match="a tree with 131,071 nodes is too large"):
        laid(tree(left, right), kind=np.float32)
    laid(tree(left, right), kind=np.float64).check_bounds()


@pytest.mark.parametrize(
    "change",
    [
        {"roots": np.array([0, 1, 2, 3, 4, 5, 6, 99])},
        {"roots": np.array([0, 1, 2, 3, 4, 5, 6, -1])},
        {"targets": np.full(8, 1)},
        {"depths": np.array([100])},
        {"depths": np.array([0, 0])},
        {"width": 0},
    ],
)
def test_arrays_that_lead_outside_are_refused(change: dict[str, Any]) -> None:
    forest = laid(tree([1, -1, -1], [2, -1, -1]))
    forest.check_bounds()
    with pytest.raises(NotPlannedError, match="out of their arrays"):
        dataclasses.replace(forest, **change).check_bounds()


@pytest.mark.parametrize(("member", "value"), [("delta", 9), ("delta", 0), ("feature", 1)])
def test_a_node_that_leads_outside_is_refused(member: str, value: int) -> None:
    forest = laid(tree([1, -1, -1], [2, -1, -1]))
    forest.nodes[member][0] = value
    with pytest.raises(NotPlannedError, match="out of their arrays"):
        forest.check_bounds()


def test_thresholds_are_told_once_and_from_the_top() -> None:
    deep = tree([1, 3, -1, -1, -1], [2, 4, -1, -1, -1])
    deep.threshold[:2] = (0.1, 0.7)
    other = tree([1, -1, -1], [2, -1, -1], feature=1)
    assert laid(deep, other, other, width=2).thresholds() == [(0, 0.1), (1, 0.5), (0, 0.7)]


def test_a_function_that_the_c_library_lacks_is_no_plan() -> None:
    assert math_function("expf") != math_function("exp")
    with pytest.raises(NotPlannedError, match="the C library's no_such_function was not found"):
        math_function("no_such_function")
