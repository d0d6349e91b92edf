"""What a fitted SimpleScaler does, in a form that rows of plain values go through quickly."""

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lodestar.core.preprocessor import SimpleScaler
from lodestar.core.trees.forest import NotPlannedError
from lodestar.schema import FrameSchema
from lodestar.serving.scoring import Row

__all__ = ["Categories", "Encoded", "Encoder", "Numbers", "encoder_of"]

# Half a unit behind the largest float32: what is not below it becomes infinite when it is stored.
BEYOND_SINGLE = float.fromhex("0x1.ffffffp+127")
UNKNOWN = -1


@dataclass(frozen=True)
class Numbers:
    """The number columns: where each stands in a row and in the matrix, and its moments.

    `mean` and `scale` (columns, groups + 1): the last group is for all values that are no group.
    """

    names: tuple[str, ...]
    sources: tuple[int, ...]
    places: NDArray[np.int64]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]


@dataclass(frozen=True)
class Categories:
    """One text column: where it stands in a row, and which matrix column each of its values marks.

    `places` has the rare ones and None as well; all others mark `other` and are unknown.
    """

    name: str
    source: int
    places: Mapping[str | None, int]
    other: int


@dataclass(frozen=True)
class Encoded:
    """Rows as the kernel takes them: columns one after another.

    `numbers` are float64, NaN where missing; `groups` say which moments a row takes; `ones` which
    matrix column a category marks.
    """

    rows: int
    numbers: "array[float]"
    groups: "array[int]"
    ones: "array[int]"
    unknown: dict[str, int]


@dataclass(frozen=True)
class Encoder:
    """A scaler's plan. `group_key` turns the value at `criterion` into a key of `groups`."""

    numbers: Numbers
    categories: tuple[Categories, ...]
    names: tuple[str, ...]
    dtype: type[np.floating[Any]]
    criterion: int | None
    groups: Mapping[Any, int]
    group_key: Callable[[Any], Any] | None

    @property
    def width(self) -> int:
        """How many columns come out."""
        return len(self.names)

    def encode(self, rows: Sequence[Row]) -> Encoded:
        """Columns of plain numbers; the rows were not refused."""
        columns = tuple(zip(*rows, strict=True))
        numbers = array("d")
        for source in self.numbers.sources:
            column = columns[source]
            if None in column:
                column = tuple(math.nan if value is None else value for value in column)
            numbers.extend(column)
        ones, unknown = array("q"), {}
        for item in self.categories:
            find = item.places.get
            found = [find(value, UNKNOWN) for value in columns[item.source]]
            if UNKNOWN in found:
                unknown[item.name] = found.count(UNKNOWN)
                found = [item.other if place == UNKNOWN else place for place in found]
            ones.extend(found)
        if self.criterion is None:
            groups = array("q", bytes(8 * len(rows)))
        else:
            groups = array("q", map(self.group_of, columns[self.criterion]))
        return Encoded(len(rows), numbers, groups, ones, unknown)

    def matrix(self, rows: Sequence[Row]) -> tuple[NDArray[Any], dict[str, int]]:
        """The preprocessed rows as `SimpleScaler.transform` makes them, and what was unknown."""
        encoded = self.encode(rows)
        made = np.zeros((encoded.rows, self.width), self.dtype)
        if self.numbers.sources:
            raw = np.frombuffer(encoded.numbers).reshape(-1, encoded.rows)
            groups = np.frombuffer(encoded.groups, np.int64)
            scaled = (raw - self.numbers.mean[:, groups]) / self.numbers.scale[:, groups]
            scaled[np.isnan(scaled)] = 0.0
            made[:, self.numbers.places] = scaled.T
        if self.categories:
            ones = np.frombuffer(encoded.ones, np.int64).reshape(-1, encoded.rows)
            made[np.arange(encoded.rows), ones] = 1.0
        return made, encoded.unknown

    def group_of(self, value: Any) -> int:  # noqa: ANN401 -- a row's plain value
        """Which column of the moments a value of the criterion takes."""
        everything = len(self.groups)
        if value is None:
            return everything
        key = value if self.group_key is None else self.group_key(value)
        return self.groups.get(key, everything)

    def limits(self) -> dict[str, float]:
        """Per number column a bound; what is not beyond it, either way, can surely be scaled."""
        largest = 1e38 if self.dtype is np.float32 else 1e307
        with np.errstate(over="ignore"):
            bounds = np.minimum(largest * self.numbers.scale, 1e307) - np.abs(self.numbers.mean)
        return dict(
            zip(self.numbers.names, bounds.min(axis=1, initial=1e307).tolist(), strict=True)
        )

    def overflow(self, row: Row) -> str | None:
        """The first column whose value is too large to be scaled in its group."""
        group = 0 if self.criterion is None else self.group_of(row[self.criterion])
        for at, (name, source) in enumerate(
            zip(self.numbers.names, self.numbers.sources, strict=True)
        ):
            if row[source] is None:
                continue
            centred = float(row[source]) - float(self.numbers.mean[at, group])
            scaled = centred / float(self.numbers.scale[at, group])
            stored = self.dtype is np.float32 and abs(scaled) >= BEYOND_SINGLE
            if math.isinf(centred) or math.isinf(scaled) or stored:
                return name
        return None


def encoder_of(
    scaler: SimpleScaler,
    schema: FrameSchema,
    dtype: type[np.floating[Any]],
    *,
    groups: Mapping[Any, int] | None = None,
) -> Encoder:
    """Plan a fitted scaler for rows in the order of `schema`; `groups` as an earlier plan had them.

    Raises:
        NotPlannedError: its moments are not finite, or its groups cannot be told from plain values.
    """
    sources = {name: at for at, name in enumerate(schema.names)}
    numbers, places, categories, place = [], [], [], 0
    for column in scaler.columns:
        if hasattr(column, "mean"):
            numbers.append(column)
            places.append(place)
            place += 1
        else:
            other = place + len(column.categories) + 1
            known: dict[str | None, int] = dict.fromkeys(column.rare, other)
            known |= {label: place + at for at, label in enumerate(column.categories)}
            known[None] = other - 1
            categories.append(Categories(column.name, sources[column.name], known, other))
            place = other + 1
    moments = len(scaler.groups) + 1
    mean, scale = (
        np.array([getattr(column, name) for column in numbers], np.float64).reshape(-1, moments)
        for name in ("mean", "scale")
    )
    if not (np.isfinite(mean).all() and np.isfinite(scale).all()):
        raise NotPlannedError("the scaler learned numbers that are not finite")
    criterion = scaler.criterion_col
    kind = "" if criterion is None else schema.select([criterion]).columns[0].type
    return Encoder(
        Numbers(
            names=tuple(column.name for column in numbers),
            sources=tuple(sources[column.name] for column in numbers),
            places=np.array(places, np.int64),
            mean=mean,
            scale=scale,
        ),
        categories=tuple(categories),
        names=scaler.names,
        dtype=dtype,
        criterion=None if criterion is None else sources[criterion],
        groups=_groups(scaler, schema) if groups is None else groups,
        group_key=_bits if kind == "float" else None,
    )


def _groups(scaler: SimpleScaler, schema: FrameSchema) -> dict[Any, int]:
    """The groups by the plain values whose text they are."""
    texts, criterion = scaler.groups, scaler.criterion_col
    if criterion is None:
        return {}
    kind = schema.arrow().field(criterion).type
    try:
        values = pa.array(texts, pa.string()).cast(kind)
    except pa.ArrowInvalid as error:
        raise NotPlannedError(f"the groups of {criterion!r} are no values of {kind}") from error
    if values.cast(pa.string()).to_pylist() != texts:
        raise NotPlannedError(f"the groups of {criterion!r} are ambiguous as {kind}")
    plain = plain_values(values)
    if pa.types.is_floating(kind):
        plain = [_bits(value) for value in plain]
    return {value: at for at, value in enumerate(plain)}


def plain_values(values: Any) -> list[Any]:  # noqa: ANN401 -- Arrow array or chunked array
    """Arrow's values as `Row` has them."""
    if pa.types.is_date(values.type):
        values = values.cast(pa.int32())
    elif pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    found: list[Any] = values.to_pylist()
    return found


def _bits(value: float) -> str:
    """A key that tells 0.0 from -0.0, and finds NaN again: as text they are values of their own."""
    return float(value).hex()
