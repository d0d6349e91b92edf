"""Any row: scored to the same bits as by the artifact, or refused by both."""

import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.examples import examples
from tests.planning import LGBM_BINARY, XGB_BINARY, XGB_VALUE, Model, artifact, scored_bits

from lodestar.errors import DataError, SchemaError
from lodestar.schema import FrameSchema, canonical, canonical_schema
from lodestar.serving.plan import row_scorer
from lodestar.serving.plan.refusals import RowCheck
from lodestar.serving.scoring import RowScorer

WHOLE = st.integers(-(2**65), 2**65) | st.sampled_from([2**53 + 1, -(2**53), 2**63 - 1, -(2**63)])
NUMBERS = st.one_of(st.floats(), st.floats(width=32), WHOLE, st.booleans(), st.none())
TEXTS = st.one_of(
    st.text(), st.sampled_from(["land 1", "land 2", "land 11", "ios", "Ünlü", "(null)"]), st.none()
)
MODELS = [(XGB_BINARY, None), (LGBM_BINARY, "member"), (XGB_VALUE, "step"), (XGB_VALUE, "country")]
SOME = settings(
    max_examples=examples(150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
KNOWN: dict[tuple[Model, str | None, bool], RowScorer] = {}


def rows_of(schema: FrameSchema) -> st.SearchStrategy[tuple[Any, ...]]:
    """A row whose values are mostly of the columns' types, and anything at times."""
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "float": NUMBERS,
        "int": NUMBERS,
        "bool": st.booleans() | st.none() | st.integers(0, 1),
        "string": TEXTS,
        "date": st.integers(-(2**31), 2**31 - 1) | st.none(),
        "timestamp": st.integers(-(2**63), 2**63 - 1) | st.none(),
    }
    return st.tuples(*[kinds[column.type] for column in schema.columns])


def scorer_of(model: Model, criterion: str | None, *, native: bool) -> RowScorer:
    key = (model, criterion, native)
    if key not in KNOWN:
        served = artifact(*model, criterion)
        KNOWN[key] = row_scorer(served.wrapper, served.probe, native=native)
        assert KNOWN[key].name == ("native" if native else "numpy")
    return KNOWN[key]


@pytest.mark.parametrize(("model", "criterion"), MODELS)
@pytest.mark.parametrize("native", [True, False])
@given(data=st.data())
@SOME
def test_any_row_that_is_not_refused_has_the_artifacts_bits(
    model: Model, criterion: str | None, native: bool, data: st.DataObject
) -> None:
    served, scorer = artifact(*model, criterion), scorer_of(model, criterion, native=native)
    rows = data.draw(st.lists(rows_of(served.schema), min_size=1, max_size=40))
    taken = [row for row in rows if scorer.refusal(row) is None] + served.rows[:1]
    assert scored_bits(scorer, taken) == served.bits(taken)
    for row in taken[:3]:
        assert scored_bits(scorer, [row]) == served.bits([row])


@pytest.mark.parametrize(("model", "criterion"), MODELS[:3])
@given(data=st.data())
@SOME
def test_a_row_is_refused_exactly_where_the_artifact_refuses_it(
    model: Model, criterion: str | None, data: st.DataObject
) -> None:
    served, scorer = artifact(*model, criterion), scorer_of(model, criterion, native=True)
    row = data.draw(rows_of(served.schema))
    assert (scorer.refusal(row) is None) == artifact_takes(model, criterion, row)


def artifact_takes(model: Model, criterion: str | None, row: tuple[Any, ...]) -> bool:
    """Whether the artifact takes a frame that says what the row says, in Arrow's own types."""
    served = artifact(*model, criterion)
    try:
        batch = inferred(served.schema, row)
        served.wrapper.check(batch.schema)
        served.wrapper.score(canonical(batch, canonical_schema(batch.schema)))
    except (DataError, SchemaError, OverflowError, UnicodeEncodeError):
        return False
    return True


def inferred(schema: FrameSchema, row: tuple[Any, ...]) -> pa.RecordBatch:
    """One row in the types that its values have by themselves; times in the schema's."""
    arrays = []
    for field, column, value in zip(schema.arrow(), schema.columns, row, strict=True):
        timed = column.type in {"date", "timestamp"}
        arrays.append(pa.array([value], field.type if timed else None))
    return pa.record_batch(arrays, names=list(schema.names))


SMALL = FrameSchema.of(
    pa.table({"n": [1], "x": [1.0], "b": [True], "s": ["a"], "x?": pa.array([None], pa.float64())})
)


@given(row=rows_of(SMALL))
@example(row=(1, math.nan, True, "a", math.nan))
@example(row=(1, 2.0**53 + 2, True, "a", None))
@example(row=(2.0**63, 1.0, True, "a", None))
@example(row=(1, 2**53 + 1, True, "a", None))
@settings(max_examples=examples(500), deadline=None)
def test_a_row_is_refused_exactly_where_its_schema_does_not_fit(row: tuple[Any, ...]) -> None:
    try:
        batch = inferred(SMALL, row)
        SMALL.check(batch.schema)
        SMALL.conform(canonical(batch, canonical_schema(batch.schema)))
    except (DataError, SchemaError, OverflowError, UnicodeEncodeError):
        taken = False
    else:
        taken = True
    assert (RowCheck(SMALL).refusal(row) is None) == taken
