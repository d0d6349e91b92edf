"""Which bytes of a file far away are read next, so that they can be fetched while others are decoded."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import pyarrow.parquet as pq

__all__ = ["Ahead", "Fetching", "Span", "expect_all", "fetching_of"]

Span: TypeAlias = tuple[int, int]  # bytes of a file, the second not among them
WHOLE_GROUP = 128 << 20  # bytes; a larger row group is fetched piece by piece
PIECES = 64 << 20  # bytes of such a row group, of all columns together
REQUEST = 8 << 20  # bytes that pay for a request
AHEAD = 32 << 20  # bytes that are fetched, or on their way, before they are needed
LEAST = 1 << 16  # bytes of a column


class Ahead(Protocol):
    """A file that fetches what it is told about."""

    def expect(self, tracks: Sequence[Sequence[Span]], *, ahead: int) -> None:
        """Each track's spans are read in order, every byte once; what was expected before is not.

        Of each track the first `ahead` spans are fetched now, others as reading comes near them.
        """
        ...


def expect_all(far: Ahead, size: int) -> None:
    """Have a file fetched from its first byte to its last."""
    far.expect([list(_cut((0, size), REQUEST))], ahead=AHEAD // REQUEST)


@dataclass(frozen=True)
class Fetching:
    """How parquet is fetched: row group → the tracks that are to be expected when it is begun.

    `buffer_size` is what a column's decoder reads at a time; 0: all that the row group has of it.
    """

    buffer_size: int
    tracks: Mapping[int, Sequence[Sequence[Span]]]
    ahead: int

    def tell(self, far: Ahead, group: int) -> None:
        """Say what is read from this row group on, unless it was said with one before."""
        if group in self.tracks:
            far.expect(self.tracks[group], ahead=self.ahead)


def fetching_of(footer: pq.FileMetaData) -> Fetching:
    """Whole row groups, several at once where they are small; large ones piece by piece."""
    columns = [_columns(footer.row_group(group)) for group in range(footer.num_row_groups)]
    if max(map(_length, columns), default=0) <= WHOLE_GROUP:
        return Fetching(0, _in_units(columns), sys.maxsize)
    # Of each column one piece is being read, and the next one is on its way.
    piece = max(PIECES // (2 * footer.num_columns), LEAST)
    cut = {
        group: [list(_cut(span, piece)) for span in spans] for group, spans in enumerate(columns)
    }
    return Fetching(LEAST, cut, ahead=1)


def _in_units(columns: Sequence[Sequence[Span]]) -> dict[int, list[list[Span]]]:
    """First row group of those that are fetched together → their requests, and the next ones'."""
    units: dict[int, list[Span]] = {}
    first, spans = 0, list[Span]()
    for group, found in enumerate(columns):
        spans += found
        if _length(spans) >= REQUEST or group + 1 == len(columns):
            units[first] = list(_joined(spans))
            first, spans = group + 1, []
    order = list(units.values())
    return {group: [_within_reach(order[at:])] for at, group in enumerate(units)}


def _within_reach(units: Sequence[Sequence[Span]]) -> list[Span]:
    """The first one's, and those of the next ones that are held beside it."""
    found = list(units[0])
    for spans in units[1:]:
        if _length(found) + _length(spans) > AHEAD:
            break
        found += spans
    return found


def _columns(group: pq.RowGroupMetaData) -> list[Span]:
    """Where the bytes of a row group's columns are."""
    found = []
    for at in range(group.num_columns):
        column = group.column(at)
        pages = (column.data_page_offset, column.dictionary_page_offset)
        start = min(page for page in pages if page is not None)
        found.append((start, start + column.total_compressed_size))
    return found


def _joined(spans: Sequence[Span]) -> Iterator[Span]:
    """Neighbours in one request, while it is not too large; a larger span in several."""
    whole: Span | None = None
    for start, end in sorted(spans):
        if whole is not None and start == whole[1] and end - whole[0] <= 2 * REQUEST:
            whole = whole[0], end
            continue
        if whole is not None:
            yield from _cut(whole, 2 * REQUEST)
        whole = start, end
    if whole is not None:
        yield from _cut(whole, 2 * REQUEST)


def _length(spans: Sequence[Span]) -> int:
    return sum(end - start for start, end in spans)


def _cut(span: Span, size: int) -> Iterator[Span]:
    start, end = span
    while start < end:
        yield start, min(start + size, end)
        start += size
