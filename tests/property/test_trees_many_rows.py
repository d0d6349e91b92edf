"""Any forest over any rows: to the same bits as walked node by node."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.examples import examples
from tests.forests import random_forest, walked

from lodestar.core.trees.bins import binned
from lodestar.core.trees.block_writer import BlockWriter
from lodestar.core.trees.branching import BranchingWriter
from lodestar.core.trees.complete import CompleteWriter
from lodestar.core.trees.forest import Forest
from lodestar.core.trees.inputs import FromMatrix
from lodestar.core.trees.many_rows import ManyRows
from lodestar.core.trees.walking import WalkingWriter

FORMS: list[Callable[[Forest], BlockWriter]] = [
    lambda forest: CompleteWriter(binned(forest), FromMatrix(), picks=True),
    lambda forest: CompleteWriter(binned(forest), FromMatrix(), picks=False),
    lambda forest: BranchingWriter(binned(forest), FromMatrix(), picks=True),
    lambda forest: BranchingWriter(binned(forest), FromMatrix(), picks=False),
    WalkingWriter,
]


@pytest.mark.parametrize("form", FORMS)
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
@settings(max_examples=examples(24), deadline=None)
def test_every_row_ends_in_the_leaves_that_its_values_lead_to(
    form: Callable[[Forest], BlockWriter],
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
    found = ManyRows(form(forest), threads=threads)(matrix)
    assert found is not None
    some = range(0, rows, max(1, rows // 40))
    assert found[some].tolist() == [walked(forest, matrix[at]).tolist() for at in some]
    assert found.dtype == kind
