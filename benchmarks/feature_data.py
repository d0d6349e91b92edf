"""Rows and versions in the shape of the generated shop, in any size, made in a process of its own.

The spine asks at each session's offer; four tables keep about `versions` versions each: products and
users change now and then over two years, sessions are summed up once, minutes before the offer. A tenth
of the versions arrives up to six hours late, and a few are restated.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["make"]

Ints = npt.NDArray[np.int64]
MINUTE = 60_000_000  # microseconds
HOUR = 60 * MINUTE
OPENED, FIRST_SESSION, LAST_SESSION = (
    int(np.datetime64(day, "us").astype(np.int64))
    for day in ("2023-01-01", "2025-01-01", "2025-04-01")
)
COUNTRIES = ("KR", "US", "JP", "DE", "FR", "GB", "IN", "BR")
CATEGORIES = ("beauty", "books", "electronics", "fashion", "home", "toys")
BRANDS = tuple(f"brand_{number:02d}" for number in range(1, 25))
GROUP = 131_072  # rows per row group, as the sample project's files have
SEED = 20_251_124
PART = 1_000_000


def make(folder: str, versions: str, *spines: str) -> None:
    """Write the four tables, and a spine of each size as `spine_<rows>.parquet`."""
    place, count = Path(folder), int(versions)
    users, products = count // 10, count // 100
    offered = np.random.default_rng([SEED, 0]).integers(FIRST_SESSION, LAST_SESSION, count)
    _session_summary(place, offered)
    for name, features in _USERS.items():
        _changing(place, name, "user_id", users, count, features)
    _changing(place, "product_details", "product_id", products, count, _PRODUCTS)
    for rows in map(int, spines):
        _spine(place / f"spine_{rows}.parquet", rows, offered, users, products)


Draw = Callable[[np.random.Generator, int], Any]


def _one_of(names: tuple[str, ...]) -> Draw:
    return lambda draw, rows: pa.array(names).take(pa.array(draw.integers(0, len(names), rows)))


def _money(scale: float) -> Draw:
    return lambda draw, rows: np.round(draw.gamma(2.0, scale, rows), 2)


def _whole(low: int, high: int, unknown: float = 0.0) -> Draw:
    return lambda draw, rows: pa.array(
        draw.integers(low, high, rows), mask=draw.random(rows) < unknown
    )


_USERS: Mapping[str, Mapping[str, Draw]] = {
    "user_demographics": {"age": _whole(18, 91, 0.03), "country_code": _one_of(COUNTRIES)},
    "user_purchase_summary": {"ltv": _money(120.0), "total_purchase_count": _whole(0, 30)},
}
_PRODUCTS = {"price": _money(30.0), "category": _one_of(CATEGORIES), "brand": _one_of(BRANDS)}
_SESSIONS = {"time_on_page_seconds": _money(60.0), "click_count": _whole(1, 40)}


def _session_summary(place: Path, offered: Ints) -> None:
    draw = np.random.default_rng([SEED, 1])
    at = offered - draw.integers(2 * MINUTE, 45 * MINUTE, len(offered))
    sessions = np.arange(len(offered))
    _write(place, "session_summary", "session_id", sessions, at, _SESSIONS, draw)


def _changing(
    place: Path, name: str, key: str, entities: int, rows: int, features: Mapping[str, Draw]
) -> None:
    draw = np.random.default_rng([SEED, *name.encode()])
    entity, at = draw.integers(0, entities, rows), draw.integers(OPENED, LAST_SESSION, rows)
    _write(place, name, key, entity, at, features, draw)


def _write(
    place: Path,
    name: str,
    key: str,
    entity: Ints,
    at: Ints,
    features: Mapping[str, Draw],
    draw: np.random.Generator,
) -> None:
    """Let each version arrive, a tenth of them late, and a few again with other values."""
    lag = draw.integers(0, np.where(draw.random(len(at)) < 0.1, 6 * HOUR, MINUTE))
    again = np.flatnonzero(draw.random(len(at)) < 0.03)
    event = np.concatenate([at, at[again]])
    lags = np.concatenate([lag, lag[again] + draw.integers(1, 6 * HOUR, len(again))])
    columns = {
        key: _ids(key, np.concatenate([entity, entity[again]])),
        "event_timestamp": _timestamps(event),
        "created_timestamp": _timestamps(event + lags),
        **{feature: values(draw, len(event)) for feature, values in features.items()},
    }
    path = place / f"{name}.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=GROUP, compression="zstd")


def _spine(path: Path, rows: int, offered: Ints, users: int, products: int) -> None:
    draw = np.random.default_rng([SEED, rows])
    writer = None
    for first in range(0, rows, PART):
        row = np.arange(first, min(first + PART, rows))
        session = row % len(offered)
        table = pa.table(
            {
                "row": row,
                "user_id": _ids("user_id", draw.integers(0, users, len(row))),
                "product_id": _ids("product_id", draw.integers(0, products, len(row))),
                "session_id": _ids("session_id", session),
                "event_timestamp": _timestamps(offered[session]),
                "grp": _one_of(("control", "treatment"))(draw, len(row)),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table, row_group_size=GROUP)
    if writer is not None:
        writer.close()


def _ids(key: str, numbers: Ints) -> pa.Array:
    import pyarrow.compute as pc

    text = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 7, "0")
    return pc.binary_join_element_wise(key.removesuffix("_id"), text, "-")


def _timestamps(micros: Ints) -> pa.Array:
    return pa.array(micros).cast(pa.timestamp("us", tz="UTC"))
