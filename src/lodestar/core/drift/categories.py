"""Sketches of text: the frequent values and how often each came; of sensitive text, hashed buckets."""

import hashlib
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["CategoryCounts", "CategorySketch"]

FloatArray = NDArray[np.float64]
# All values are kept where there are no more than this; else the frequent ones, as many at most.
MOST_KNOWN = 64
# A value of many is frequent from this share and number of rows on. Fewer would be luck, which does not
# come again; and what names a single row does not go into an artifact.
FREQUENT, FREQUENT_ROWS = 0.005, 20
# Several values share a bucket, so that none can be told from it.
BUCKETS = 16
MOST_UNSEEN = 64


@dataclass(frozen=True, eq=False)
class CategorySketch:
    """Of n rows, `nulls` of them without a value: the known ones and their counts, frequent first.

    `complete`: these are all values that there were, so that any other is new; `singles` of them came
    once. With a `salt` the values are buckets that hashes of the true ones fall into.
    """

    rows: int
    nulls: int
    values: tuple[str, ...]
    counts: NDArray[np.int64]
    complete: bool
    singles: int
    salt: str | None = None

    @classmethod
    def of(cls, column: pa.Array | pa.ChunkedArray, *, salt: str | None = None) -> "CategorySketch":
        """Sketch all of a column; with a salt, leave no value."""
        texts = _texts(column)
        nulls = int(texts.null_count)
        if salt is not None:
            values = _buckets()
            codes = _bucketed(texts, salt)
            counts = np.bincount(codes, minlength=BUCKETS).astype(np.int64)
            rows = len(texts)
            return cls(rows, nulls, values, counts, complete=False, singles=0, salt=salt)
        pairs = [
            (item["values"].as_py(), item["counts"].as_py())
            for item in pc.value_counts(texts.drop_null())
        ]
        pairs.sort(key=lambda pair: (-pair[1], pair[0]))
        complete = len(pairs) <= MOST_KNOWN
        if not complete:
            least = max(FREQUENT_ROWS, FREQUENT * len(texts))
            pairs = [pair for pair in pairs[:MOST_KNOWN] if pair[1] >= least]
        return cls(
            rows=len(texts),
            nulls=nulls,
            values=tuple(value for value, _ in pairs),
            counts=np.array([count for _, count in pairs], dtype=np.int64),
            complete=complete,
            singles=sum(count == 1 for _, count in pairs),
        )

    def counter(self) -> "CategoryCounts":
        """An empty window."""
        return CategoryCounts(self)

    def own(self) -> "CategoryCounts":
        """The training rows themselves, as a window."""
        window = CategoryCounts(self)
        window.rows, window.nulls = self.rows, self.nulls
        window.counts = self.counts.copy()
        return window

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "kind": "category",
            "rows": self.rows,
            "nulls": self.nulls,
            "values": list(self.values),
            "counts": self.counts.tolist(),
            "complete": self.complete,
            "singles": self.singles,
            "salt": self.salt,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "CategorySketch":
        """Read what `to_json` wrote."""
        return cls(
            rows=value["rows"],
            nulls=value["nulls"],
            values=tuple(value["values"]),
            counts=np.array(value["counts"], dtype=np.int64),
            complete=value["complete"],
            singles=value["singles"],
            salt=value["salt"],
        )


class CategoryCounts:
    """A window of one column: rows, nulls, and how often each known value came.

    `unseen` are values that training had not, with their counts: those of the 64 smallest checksums, a
    choice that does not depend on the rows' order.
    """

    def __init__(self, sketch: CategorySketch) -> None:
        self.sketch = sketch
        self.rows = self.nulls = 0
        self.counts = np.zeros(len(sketch.values), np.int64)
        self.unseen: dict[str, int] = {}

    @cached_property
    def _known(self) -> pa.Array:
        return pa.array(self.sketch.values, pa.string())

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {value: place for place, value in enumerate(self.sketch.values)}

    @property
    def present(self) -> int:
        """Rows with a value."""
        return self.rows - self.nulls

    @property
    def unknown(self) -> int:
        """Rows with a value that is none of the sketch's."""
        return self.present - int(self.counts.sum())

    def add(self, column: pa.Array | pa.ChunkedArray) -> None:
        """Count more rows."""
        if self.sketch.salt is None and not pa.types.is_string(column.type):
            if pa.types.is_dictionary(column.type):
                self._add_coded(column)
            else:
                self._add_labels(column)
            return
        texts = _texts(column)
        self.rows += len(texts)
        self.nulls += texts.null_count
        if self.sketch.salt is not None:
            self.counts += np.bincount(_bucketed(texts, self.sketch.salt), minlength=BUCKETS)
            return
        found = pc.index_in(texts, value_set=self._known)
        missing = found.null_count - texts.null_count
        codes = found.drop_null() if found.null_count else found
        self.counts += np.bincount(codes.to_numpy(), minlength=len(self.counts))
        if missing and self.sketch.complete:
            others = texts.filter(pc.and_(pc.is_null(found), pc.is_valid(texts)))
            self._note(
                {item["values"].as_py(): item["counts"].as_py() for item in others.value_counts()}
            )

    def add_plain(self, values: Sequence[str | bool | int | None]) -> None:
        """Count more rows, given as Python's own values."""
        found = Counter(_text(value) for value in values if value is not None)
        self.rows += len(values)
        self.nulls += len(values) - found.total()
        salt = self.sketch.salt
        self._count(
            (text, self._places.get(text) if salt is None else _bucket(text, salt), count)
            for text, count in found.items()
        )

    def _add_coded(self, column: pa.DictionaryArray | pa.ChunkedArray) -> None:
        """Count codes, and look each text of a dictionary up once."""
        self.rows += len(column)
        self.nulls += column.null_count
        for part in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
            texts = part.dictionary.to_pylist()
            counts = np.bincount(part.indices.drop_null().to_numpy(), minlength=len(texts))
            found = zip(texts, map(self._places.get, texts), counts.tolist(), strict=True)
            self._count(one for one in found if one[2])

    def _add_labels(self, column: pa.Array | pa.ChunkedArray) -> None:
        """Count classes that are no text: their few different values alone are made text."""
        self.rows += len(column)
        self.nulls += column.null_count
        pairs = column.drop_null().value_counts()
        texts, counts = pairs.field("values").cast(pa.string()), pairs.field("counts").to_numpy()
        found = pc.index_in(texts, value_set=self._known).to_pylist()
        self._count(zip(texts.to_pylist(), found, counts.tolist(), strict=True))

    def _count(self, found: Iterable[tuple[str, int | None, int]]) -> None:
        """Count values that come with the place of their category, if they have one."""
        others = {}
        for text, place, count in found:
            if place is None:
                others[text] = count
            else:
                self.counts[place] += count
        if self.sketch.complete:
            self._note(others)

    def merge(self, other: Self) -> None:
        """Add another window of the same sketch."""
        self.rows += other.rows
        self.nulls += other.nulls
        self.counts += other.counts
        self._note(other.unseen)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "rows": self.rows,
            "nulls": self.nulls,
            "counts": self.counts.tolist(),
            "unseen": dict(self.unseen),
        }

    @classmethod
    def from_json(cls, sketch: CategorySketch, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        counts = cls(sketch)
        counts.rows, counts.nulls = value["rows"], value["nulls"]
        counts.counts = np.array(value["counts"], dtype=np.int64)
        counts.unseen = dict(value["unseen"])
        return counts

    def binned(self) -> FloatArray:
        """Rows per known value, and those with any other."""
        return np.append(self.counts, self.unknown).astype(np.float64)

    def _note(self, found: Mapping[str, int]) -> None:
        for value, count in found.items():
            self.unseen[value] = self.unseen.get(value, 0) + count
        if len(self.unseen) > MOST_UNSEEN:
            kept = sorted(self.unseen, key=_checksum)[:MOST_UNSEEN]
            self.unseen = {value: self.unseen[value] for value in kept}


def _checksum(value: str) -> tuple[int, str]:
    return zlib.crc32(value.encode("utf-8", "surrogatepass")), value


def _text(value: str | bool | int) -> str:
    """As Arrow makes text of it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _texts(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # no chunk at all
            column = pa.array([], column.type)
    return column if pa.types.is_string(column.type) else column.cast(pa.string())


def _buckets() -> tuple[str, ...]:
    return tuple(f"bucket {number}" for number in range(BUCKETS))


def _bucketed(texts: pa.Array, salt: str) -> NDArray[np.int64]:
    """The bucket of each value that is there."""
    coded = texts.drop_null().dictionary_encode()
    places = np.array([_bucket(value, salt) for value in _values(coded)], dtype=np.int64)
    return np.asarray(places[coded.indices.to_numpy()])


def _values(coded: pa.DictionaryArray) -> Sequence[str]:
    values: Sequence[str] = coded.dictionary.to_pylist()
    return values


def _bucket(value: str, salt: str) -> int:
    data = value.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=1, key=salt.encode()[:64]).digest()[0] % BUCKETS
