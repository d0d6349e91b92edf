"""Any forest over any rows: to the same bits as walked node by node."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.examples import examples
from tests.forests import random_forest, walked

from lodestar.core.trees.bins import binned
from lodestar.core.trees.branching import BranchingTrees
from lodestar.core.trees.complete import CompleteTrees
from lodestar.core.trees.many_rows import ManyRows


@pytest.mark.parametrize("form", [CompleteTrees, BranchingTrees])
@given(
    seed=st.integers(0, 2**32),
    trees=st.integers(1, 20),
    depth=st.integers(0, 8),
    rows=st.integers(1, 700),
    outputs=st.integers(1, 3),
    threads=st.integers(1, 3),
    single=st.booleans(),
    strict=st.booleans(),
)
@settings(max_examples=examples(30), deadline=None)
def test_every_row_ends_in_the_leaves_that_its_values_lead_to(
    form: type[CompleteTrees] | type[BranchingTrees],
    seed: int,
    trees: int,
    depth: int,
    rows: int,
    outputs: int,
    threads: int,
    single: bool,
    strict: bool,
) -> None:
    draw, kind = np.random.default_rng(seed), np.float32 if single else np.float64
    # Few values, so that many rows lie on thresholds, or on the next number beside them.
    known = np.array([0.0, -0.0, 1e-40, -1.5, 2.5, *draw.normal(size=3)], kind)
    forest = random_forest(
        draw,
        trees=trees,
        depth=depth,
        outputs=outputs,
        kind=kind,
        strict=strict,
        thresholds=known,
    )
    beside = [np.nextafter(known, kind(side)) for side in (-np.inf, np.inf)]
    largest = np.finfo(kind).max
    values = np.concatenate([known, *beside, np.array([largest, -largest], kind)])
    matrix = draw.choice(values, size=(rows, forest.width))
    small = binned(forest)
    found = ManyRows(small, form(small), threads=threads)(matrix)
    assert found is not None
    some = range(0, rows, max(1, rows // 40))
    assert found[some].tolist() == [walked(forest, matrix[at]).tolist() for at in some]
    assert found.dtype == kind
