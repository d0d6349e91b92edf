"""Which rows of a batch are counted for drift."""

import numpy as np
import pyarrow as pa
import pytest

from lodestar.core.drift.limits import limits_of
from lodestar.core.drift.sketches import Reference, Window
from lodestar.core.drift.watched import WHOLE, Counted, WatchedRows
from lodestar.pipelines.drift import DriftWatch
from lodestar.settings.monitoring import Drift

ROWS = 4 * WHOLE
# A category comes back every k rows.
PERIODS = (2, 3, 4, 5, 8, 64)


@pytest.fixture(scope="module")
def rows() -> pa.RecordBatch:
    numbers = np.arange(ROWS)
    columns = {f"every{k}": pa.array((numbers % k).astype(str)) for k in PERIODS}
    return pa.RecordBatch.from_pydict({"number": pa.array(numbers * 1.0), **columns})


@pytest.fixture(scope="module")
def reference(rows: pa.RecordBatch) -> Reference:
    table = pa.Table.from_batches([rows.slice(0, 1_000)])
    return Reference.of(table, {}, labels=False, importances={})


def counted(reference: Reference, rows: pa.RecordBatch, size: int) -> Window:
    window = Window(reference)
    for first in range(0, rows.num_rows, size):
        watched = WatchedRows(reference)
        watched.add(rows.slice(first, size), {}, first_row=first)
        window.merge(Window.from_json(reference, watched.counted()))
    return window


def test_the_first_rows_are_all_counted(reference: Reference, rows: pa.RecordBatch) -> None:
    assert counted(reference, rows.slice(0, WHOLE), 50_000).rows == WHOLE


def test_of_the_rows_behind_them_a_quarter_is_counted_however_they_are_split(
    reference: Reference, rows: pa.RecordBatch
) -> None:
    window = counted(reference, rows, ROWS)
    assert window.rows == pytest.approx(WHOLE + (ROWS - WHOLE) / 4, rel=1e-3)
    assert counted(reference, rows, 77_777).to_json() == window.to_json()


def test_what_comes_back_every_few_rows_is_counted_as_often_as_it_comes(
    reference: Reference, rows: pa.RecordBatch
) -> None:
    window = counted(reference, rows, ROWS)
    for k in PERIODS:
        counts = window.to_json()["columns"][f"every{k}"]["counts"]
        shares = [count / window.rows for count in counts]
        assert len(shares) == k
        assert shares == pytest.approx([1 / k] * k, rel=0.01)


def test_rows_of_several_parts_are_counted_together_as_one_by_one(
    reference: Reference, rows: pa.RecordBatch
) -> None:
    held = WatchedRows(reference)
    for first in range(0, ROWS, 77_777):
        watched = WatchedRows(reference)
        watched.add(rows.slice(first, 77_777), {}, first_row=first)
        held.join(watched)
    window = counted(reference, rows, ROWS)
    assert held.rows == window.rows
    assert held.counted() == window.to_json()


def test_a_watch_counts_what_waits_before_it_says_anything(
    reference: Reference, rows: pa.RecordBatch
) -> None:
    limits = limits_of(Drift())
    one, other = DriftWatch(reference, limits), DriftWatch(reference, limits)
    for first in range(0, ROWS, 50_000):
        watched = WatchedRows(reference)
        watched.add(rows.slice(first, 50_000), {}, first_row=first)
        one.add(watched)
        other.add(Counted(watched.counted()))
    assert one.report() == other.report()
    assert one.report().rows == counted(reference, rows, ROWS).rows
