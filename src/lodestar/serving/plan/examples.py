"""Rows on which a faster scorer could differ from the artifact: probe rows, edges, random ones.

All are made from what the preprocessor learned and what the schema allows; each has a name that says
what is special about it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lodestar.core.trees.forest import Forest
from lodestar.schema import Column, FrameSchema
from lodestar.serving.plan.encoding import Encoder, plain_values
from lodestar.serving.scoring import Row

__all__ = ["Example", "examples"]

SEED = 20_250_713
MOST_THRESHOLDS, MOST_LABELS = 500, 300
TEXTS = ("", " ", "(null)", "(other)", "unknown to training", "Ünlü", "日本語", "\x00", "x" * 1_000)
FLOATS = (0.0, -0.0, 5e-324, -5e-324, 1e-310, 1e-45, -1e-38, 1e-35, 1.0, -1.0, 1e15, -1e15)
WHOLES = (0, 1, -1, 2**31, -(2**31) - 1, 2**53 - 1, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63))
DAYS = (0, -1, 20_000, 2**31 - 1, -(2**31))
EXTREME = "an extreme"
# Before some of them Python has no date; Arrow casts them all the same.
TIMES = (0, -1, 1_741_000_000_000_001, -62_135_596_800_000_000)


@dataclass(frozen=True)
class Example:
    """A row and what is special about it."""

    name: str
    row: Row


def examples(
    schema: FrameSchema,
    encoder: Encoder,
    probe: pa.Table,
    *,
    forest: Forest | None,
    drawn: int,
) -> list[Example]:
    """The rows, the same ones for the same artifact, `drawn` of them at random.

    Some are to be refused. Extreme numbers, which some estimators do not take, come last: the batches
    before have none.
    """
    maker = _Maker(schema, encoder, probe)
    edges = [Example("a probe row", row) for row in maker.templates]
    edges += maker.nulls()
    for at, column in enumerate(schema.columns):
        edges += [
            maker.changed(at, value, f"{what} in {column.name!r}")
            for what, value in maker.edges(column)
        ]
    if forest is not None:
        edges += maker.around_thresholds(forest)
    rows = edges + maker.random_rows(drawn)
    return sorted(rows, key=lambda item: item.name.startswith(EXTREME))


class _Maker:
    def __init__(self, schema: FrameSchema, encoder: Encoder, probe: pa.Table) -> None:
        self.schema, self.encoder = schema, encoder
        columns = [plain_values(probe.column(name)) for name in schema.names]
        self.templates: list[tuple[Any, ...]] = list(zip(*columns, strict=True))
        self.draw = np.random.default_rng(SEED)
        self.number_at = {name: at for at, name in enumerate(encoder.numbers.names)}
        self.texts = {item.name: item for item in encoder.categories}
        self.made = 0

    def changed(self, at: int, value: Any, name: str) -> Example:  # noqa: ANN401 -- a plain value
        """One of the probe rows in turn, with another value in one column."""
        row = list(self.templates[self.made % len(self.templates)])
        self.made += 1
        row[at] = value
        return Example(name, tuple(row))

    def nulls(self) -> list[Example]:
        """All columns that may be null, together."""
        row = [
            None if column.nullable else value
            for column, value in zip(self.schema.columns, self.templates[0], strict=True)
        ]
        return [Example("null wherever it may be", tuple(row))]

    def edges(self, column: Column) -> Iterator[tuple[str, Any]]:
        """What is special in one column; nulls and NaN are tried even where they will be refused."""
        yield "null", None
        if self.encoder.criterion is not None:
            criterion = self.schema.columns[self.encoder.criterion]
            if criterion == column:
                yield from (("a known group", value) for value in self.groups(column))
        if column.type == "string":
            yield from (("an odd text", text) for text in TEXTS)
            yield from (("a category", label) for label in self.labels(column.name))
        elif column.type == "float":
            yield from (("an edge", value) for value in (*FLOATS, math.nan, math.inf, -math.inf))
            yield from (("a whole number", value) for value in (3, -(2**53), True))
            yield from ((EXTREME, value) for value in self.extremes(column.name))
        elif column.type == "int":
            yield from (("an edge", value) for value in (*WHOLES, 3.0, -0.0, 2.0**60, True))
        elif column.type == "bool":
            yield from (("a flag", value) for value in (True, False))
        else:
            values = DAYS if column.type == "date" else TIMES
            yield from (("a time", value) for value in values)

    def labels(self, name: str) -> list[str]:
        """Categories with a column of their own, and rare ones."""
        known = self.texts.get(name)
        labels = [] if known is None else [label for label in known.places if label is not None]
        return labels[:MOST_LABELS] + labels[MOST_LABELS:][-MOST_LABELS:]

    def groups(self, column: Column) -> list[Any]:
        """Values of the criterion that have moments of their own."""
        known = list(self.encoder.groups)[:MOST_LABELS]
        return [float.fromhex(key) for key in known] if column.type == "float" else known

    def extremes(self, name: str) -> Iterator[float]:
        """Means, what can just be scaled, and what can not."""
        at = self.number_at.get(name)
        if at is None:
            return
        yield from self.encoder.numbers.mean[at].tolist()
        largest = float(np.finfo(self.encoder.dtype).max)
        for mean, scale in zip(
            self.encoder.numbers.mean[at].tolist(),
            self.encoder.numbers.scale[at].tolist(),
            strict=True,
        ):
            for share in (0.999, -0.999, 1.001, -1.001):
                value = largest * share * scale + mean
                if math.isfinite(value):
                    yield value
        limit = self.encoder.limits()[name]
        yield from (limit, -limit)

    def around_thresholds(self, forest: Forest) -> Iterator[Example]:
        """The last value that is left of a tree's threshold once it is scaled, and the next one.

        A scaling that is a single unit in the last place off sends one of them the other way.
        """
        by_place = {int(place): at for at, place in enumerate(self.encoder.numbers.places)}
        pairs = [pair for pair in forest.thresholds() if pair[0] in by_place][:MOST_THRESHOLDS]
        for place, threshold in pairs:
            at = by_place[place]
            source = self.encoder.numbers.sources[at]
            column = self.schema.columns[source]
            for value in self.crossing(at, threshold, forest):
                given = self.fitting(column, value)
                yield self.changed(source, given, f"a threshold in {column.name!r}")

    def crossing(self, at: int, threshold: float, forest: Forest) -> Sequence[float]:
        """Two neighbouring numbers of a column between which the scaled value crosses a threshold."""
        group = 0
        if self.encoder.criterion is not None:
            row = self.templates[self.made % len(self.templates)]
            group = self.encoder.group_of(row[self.encoder.criterion])
        mean = float(self.encoder.numbers.mean[at, group])
        scale = float(self.encoder.numbers.scale[at, group])

        def beyond(value: float) -> bool:
            scaled = (value - mean) / scale
            stored = float(np.float32(scaled)) if forest.single else scaled
            return stored >= threshold if forest.strict else stored > threshold

        middle = threshold * scale + mean
        reach = 1e-6 * max(abs(middle), abs(mean), scale)
        low, high = middle - reach, middle + reach
        if beyond(low) or not beyond(high):
            return (middle,)
        while low < (middle := low + (high - low) / 2) < high:
            low, high = (low, middle) if beyond(middle) else (middle, high)
        return (low, high)

    def random_rows(self, count: int) -> list[Example]:
        """Rows with a value drawn for every column."""
        columns = [self.drawn(column, count) for column in self.schema.columns]
        return [Example("a random row", row) for row in zip(*columns, strict=True)]

    def drawn(self, column: Column, count: int) -> list[Any]:
        """Values for one column: like training's, with unknown ones and nulls among them."""
        if column.type in {"string", "date", "timestamp"} or column.name not in self.number_at:
            values = self.choices(column)
            places = self.draw.integers(len(values), size=count)
            drawn = [values[place] for place in places]
        else:
            at = self.number_at[column.name]
            moments = self.encoder.numbers
            raw = self.draw.standard_normal(count) * moments.scale[at, -1] * 2
            drawn = [self.fitting(column, value) for value in (raw + moments.mean[at, -1]).tolist()]
        if column.nullable:
            nulls = self.draw.random(count) < 0.1  # noqa: PLR2004 -- one in ten
            drawn = [None if null else value for null, value in zip(nulls, drawn, strict=True)]
        return drawn

    def choices(self, column: Column) -> Sequence[Any]:
        """What a column that is no number takes its random values from."""
        at = self.schema.names.index(column.name)
        seen = [row[at] for row in self.templates if row[at] is not None]
        known = self.groups(column) if at == self.encoder.criterion else []
        if column.type == "string":
            return [*seen, *known, *self.labels(column.name), *TEXTS[:6]]
        return [*seen, *known] or [None]

    def fitting(self, column: Column, value: float) -> Any:  # noqa: ANN401 -- a plain value
        """A number in the column's own type."""
        if column.type == "bool":
            return value > 0.5  # noqa: PLR2004 -- half way between false and true
        if column.type == "int":
            return max(-(2**63), min(math.floor(value), 2**63 - 1))
        return value
