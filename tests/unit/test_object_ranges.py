"""An object's ranges, fetched ahead: each byte once, few at a time, and not held once they are read."""

import gc
import tracemalloc
from collections.abc import Iterator

import pytest
from tests.memory_stores import InMemory

from lodestar.adapters.objects.places import place_of
from lodestar.adapters.objects.ranges import REQUESTS_AT_ONCE, ObjectRanges
from lodestar.adapters.objects.store import Asking, ObjectInfo
from lodestar.errors import UnreachableError
from lodestar.settings.stores import Transfer

SIZE, PIECE = 8 << 20, 1 << 18
WHOLE = bytes(range(256)) * (SIZE // 256)
SPANS = [(start, start + PIECE) for start in range(0, SIZE, PIECE)]
PLACE = place_of("mem://box/rows.parquet")


@pytest.fixture
def store() -> InMemory:
    return InMemory({PLACE.key: WHOLE})


@pytest.fixture
def ranges(store: InMemory) -> Iterator[ObjectRanges]:
    asking = Asking(store, Transfer(attempts=2))
    with ObjectRanges(asking, PLACE, ObjectInfo(SIZE, "1")) as made:
        yield made


def everything(ranges: ObjectRanges, size: int) -> bytes:
    return b"".join(iter(lambda: ranges.read(size), b""))


@pytest.mark.parametrize("size", [PIECE // 4, PIECE, 3 * PIECE + 7, SIZE])
def test_what_is_expected_is_fetched_once_whatever_is_read_at_a_time(
    store: InMemory, ranges: ObjectRanges, size: int
) -> None:
    ranges.expect([SPANS], ahead=3)
    assert everything(ranges, size) == WHOLE
    assert sorted(store.spans) == SPANS


def test_no_more_are_on_their_way_than_allowed(store: InMemory, ranges: ObjectRanges) -> None:
    store.pause = 0.001
    ranges.expect([SPANS], ahead=len(SPANS))
    assert everything(ranges, PIECE) == WHOLE
    assert store.most == REQUESTS_AT_ONCE


def test_nothing_is_fetched_further_ahead_than_is_said(
    store: InMemory, ranges: ObjectRanges
) -> None:
    ranges.expect([SPANS], ahead=2)
    ranges.read(PIECE)
    ranges.read(PIECE)
    assert set(store.spans) <= set(SPANS[:4])


def test_tracks_are_read_side_by_side_and_each_is_fetched_ahead(
    store: InMemory, ranges: ObjectRanges
) -> None:
    half = len(SPANS) // 2
    tracks = [SPANS[:half], SPANS[half:]]
    ranges.expect(tracks, ahead=1)
    for one, other in zip(*tracks, strict=True):
        for start, end in (one, other):
            ranges.seek(start)
            assert ranges.read(PIECE) == WHOLE[start:end]
    assert sorted(store.spans) == SPANS


def test_what_was_expected_and_is_no_more_is_asked_for_when_it_is_read(
    store: InMemory, ranges: ObjectRanges
) -> None:
    ranges.expect([SPANS[:4]], ahead=4)
    ranges.expect([SPANS[2:6]], ahead=4)
    assert ranges.read(SIZE) == WHOLE
    assert all(store.spans.count(span) == 1 for span in SPANS[2:6])


def test_a_piece_that_is_cut_is_asked_for_again_and_no_other(
    store: InMemory, ranges: ObjectRanges
) -> None:
    store.cut = {SPANS[3][0]: 1}
    ranges.expect([SPANS], ahead=4)
    assert everything(ranges, PIECE) == WHOLE
    assert sorted(store.spans) == sorted([*SPANS, SPANS[3]])


def test_a_piece_that_stays_cut_is_an_error_where_it_is_read(
    store: InMemory, ranges: ObjectRanges
) -> None:
    store.cut = {SPANS[3][0]: 9}
    ranges.expect([SPANS], ahead=8)
    assert ranges.read(3 * PIECE) == WHOLE[: 3 * PIECE]
    with pytest.raises(UnreachableError, match="broke off in the middle, asked 2 times"):
        ranges.read(PIECE)


def test_a_file_that_is_closed_leaves_nothing_on_its_way(
    store: InMemory, ranges: ObjectRanges
) -> None:
    store.pause = 60
    ranges.expect([SPANS], ahead=8)
    ranges.close()
    assert (store.now, store.ended) == (0, 0)
    with pytest.raises(ValueError, match="closed"):
        ranges.read(1)


def test_what_was_read_is_not_held_also_where_nobody_collects(ranges: ObjectRanges) -> None:
    gc.disable()
    tracemalloc.start()
    try:
        for at in range(0, len(SPANS), 2):
            ranges.expect([SPANS[at : at + 6]], ahead=6)
            ranges.read(2 * PIECE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert peak < 12 * PIECE < SIZE
