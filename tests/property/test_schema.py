"""Whatever the rows: canonical types are a fixed point, and a schema accepts its own rows."""

from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.examples import examples

from lodestar.core.fingerprint import fingerprint
from lodestar.schema import FrameSchema, canonical, canonical_schema

KINDS: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int8(): st.integers(-128, 127),
    pa.uint32(): st.integers(0, 2**32 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float32(): st.floats(width=32, allow_infinity=False),
    pa.float64(): st.floats(allow_infinity=False),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(),
    pa.large_string(): st.text(),
    pa.date32(): st.dates(),
    pa.timestamp("us"): st.integers(-(2**60), 2**60),
    pa.timestamp("s", tz="Asia/Seoul"): st.integers(-(2**33), 2**33),
}


@st.composite
def batches(draw: st.DrawFn) -> pa.RecordBatch:
    rows = draw(st.integers(0, 12))
    kinds = draw(st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=6))
    columns = {}
    for position, kind in enumerate(kinds):
        values = draw(st.lists(st.one_of(st.none(), KINDS[kind]), min_size=rows, max_size=rows))
        array = pa.array(values, kind)
        if draw(st.booleans()) and pa.types.is_string(kind):
            array = array.dictionary_encode()
        columns[f"c{position}"] = array
    return pa.record_batch(columns)


def shared(batch: pa.RecordBatch) -> pa.RecordBatch:
    return canonical(batch, canonical_schema(batch.schema))


@settings(deadline=None, max_examples=examples(150))
@given(batch=batches())
def test_canonical_rows_stay_as_they_are(batch: pa.RecordBatch) -> None:
    once = shared(batch)
    assert canonical_schema(once.schema).equals(once.schema)
    assert fingerprint(pa.table(shared(once))) == fingerprint(pa.table(once))
    for column, before in zip(once.columns, batch.columns, strict=True):
        assert column.null_count == before.null_count


@settings(deadline=None, max_examples=examples(150))
@given(batch=batches(), order=st.randoms(use_true_random=False))
def test_rows_conform_to_their_own_schema_in_any_order_of_columns(
    batch: pa.RecordBatch,
    order: Any,  # noqa: ANN401 -- a random.Random
) -> None:
    rows = shared(batch)
    schema = FrameSchema.of(pa.table(rows))
    names = list(rows.schema.names)
    order.shuffle(names)
    schema.check(rows.select(names).schema)
    conformed = pa.table(schema.conform(rows.select(names)))
    assert fingerprint(conformed) == fingerprint(pa.table(rows))


@settings(deadline=None, max_examples=examples(150))
@given(batch=batches(), cut=st.integers(0, 12))
def test_the_fingerprint_does_not_see_how_rows_lie_in_memory(
    batch: pa.RecordBatch, cut: int
) -> None:
    whole = pa.table(shared(batch))
    parts = pa.concat_tables([whole.slice(0, cut), whole.slice(cut)])
    assert fingerprint(parts) == fingerprint(whole)
