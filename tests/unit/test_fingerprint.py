from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lodestar.core.fingerprint import fingerprint

TABLE = pa.table(
    {
        "n": [1, 2, None],
        "x": [0.5, None, -0.0],
        "s": ["a", None, "서울"],
        "f": [True, False, None],
        "d": pa.array([date(2025, 1, 1), None, date(1969, 1, 1)]),
        "t": pa.array([datetime(2025, 1, 1, tzinfo=UTC)] * 3, pa.timestamp("us", tz="UTC")),
    }
)


def test_a_fingerprint_does_not_depend_on_the_process_or_the_file(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "t.parquet", row_group_size=2)
    assert fingerprint(pq.read_table(tmp_path / "t.parquet")) == fingerprint(TABLE)
    assert len(fingerprint(TABLE)) == 64


def test_chunks_and_slices_do_not_matter() -> None:
    parts = pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1, 2)])
    assert fingerprint(parts) == fingerprint(TABLE)
    assert fingerprint(pa.concat_tables([TABLE, TABLE]).slice(3)) == fingerprint(TABLE)


def test_no_rows_have_a_fingerprint_of_their_own() -> None:
    assert fingerprint(TABLE.slice(0, 0)) != fingerprint(TABLE)


OTHERS = {
    "a value": TABLE.set_column(0, "n", pa.array([1, 3, None])),
    "a null for a zero": TABLE.set_column(0, "n", pa.array([1, 2, 0])),
    "a null moved": TABLE.set_column(0, "n", pa.array([1, None, 2])),
    "a null for an empty text": TABLE.set_column(2, "s", pa.array(["a", "", "서울"])),
    "text cut elsewhere": TABLE.set_column(2, "s", pa.array(["a서", None, "울"])),
    "a flag": TABLE.set_column(3, "f", pa.array([True, False, False])),
    "a day": TABLE.set_column(4, "d", pa.array([date(2025, 1, 1), None, date(1969, 1, 2)])),
    "a type": TABLE.set_column(0, "n", pa.array([1.0, 2.0, None])),
    "a name": TABLE.rename_columns(["m", "x", "s", "f", "d", "t"]),
    "the order of rows": TABLE.take(pa.array([1, 0, 2])),
    "the order of columns": TABLE.select(["x", "n", "s", "f", "d", "t"]),
    "a row more": pa.concat_tables([TABLE, TABLE.slice(0, 1)]),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_any_difference_of_content_is_seen(other: pa.Table) -> None:
    assert fingerprint(other) != fingerprint(TABLE)
