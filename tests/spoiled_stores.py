"""What tests of online stores that are spoiled keep there and read back, and how their errors are."""

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from lodestar.errors import ExternalError
from lodestar.interface.features import OnlineReader, OnlineStore
from lodestar.testing.online import CONTRACT_VIEWS, every_feature_of, stored_rows

__all__ = ["KINDS", "NOON", "SELECTION", "ask", "fails_in_time", "keep", "read"]

NOON = datetime(2025, 3, 30, 12, tzinfo=UTC)
KINDS = CONTRACT_VIEWS[0]
SELECTION = every_feature_of(KINDS)


def keep(store: OnlineStore, count: int, *, step: int = 0) -> int:
    """Write the entities c0, c1 and so on, so many seconds after noon; how many were written."""
    rows = [
        {"code": f"c{n}", "at": NOON + timedelta(seconds=step), "whole": n + step, "text": f"t{n}"}
        for n in range(count)
    ]
    return store.write(KINDS, iter([stored_rows(KINDS, rows)]))


def read(store: OnlineStore, *numbers: int) -> list[int | None]:
    """What `keep` wrote as their whole number."""
    rows = store.read(pa.record_batch({"code": [f"c{n}" for n in numbers]}), SELECTION)
    return list(rows.features.column("whole").to_pylist())


async def ask(reader: OnlineReader, *numbers: int) -> list[int | None]:
    """The same by a reader whose selection begins with it."""
    return [row[1] for row in await reader.read([(f"c{n}",) for n in numbers])]


@contextmanager
def fails_in_time(
    seconds: float, words: tuple[str, ...], *, secrets: tuple[str, ...]
) -> Iterator[None]:
    """Our error, in time, with these words, and no secret in it or below it."""
    began = time.monotonic()
    with pytest.raises(ExternalError) as caught:
        yield
    assert time.monotonic() - began < seconds
    said = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    for secret in secrets:
        assert secret not in said
    for word in words:
        assert word in str(caught.value), str(caught.value)
