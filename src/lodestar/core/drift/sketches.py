"""What training leaves of its columns, so that later rows can be compared without the training data."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import pyarrow as pa

from lodestar.core.drift.categories import CategoryCounts, CategorySketch
from lodestar.core.drift.numbers import NumberCounts, NumberSketch

__all__ = [
    "NullCounts",
    "NullSketch",
    "Reference",
    "Sketch",
    "SketchedColumn",
    "Window",
    "WindowCounts",
]

Role: TypeAlias = Literal["feature", "prediction"]


@dataclass(frozen=True)
class NullSketch:
    """All that is kept of a sensitive number or time: how many rows had a value."""

    rows: int
    nulls: int

    def counter(self) -> "NullCounts":
        """An empty window."""
        return NullCounts(self)

    def own(self) -> "NullCounts":
        """The training rows themselves, as a window."""
        counts = NullCounts(self)
        counts.rows, counts.nulls = self.rows, self.nulls
        return counts

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {"kind": "nulls", "rows": self.rows, "nulls": self.nulls}


class NullCounts:
    """A window of a sensitive column."""

    def __init__(self, sketch: NullSketch) -> None:
        self.sketch = sketch
        self.rows = self.nulls = 0

    @property
    def present(self) -> int:
        """Rows with a value."""
        return self.rows - self.nulls

    def add(self, column: pa.Array | pa.ChunkedArray) -> None:
        """Count more rows."""
        self.rows += len(column)
        self.nulls += _nulls(column)

    def add_plain(self, values: Sequence[Any]) -> None:
        """Count more rows, given as Python's own values."""
        self.rows += len(values)
        self.nulls += sum(value is None or value != value for value in values)  # noqa: PLR0124 -- NaN

    def merge(self, other: Self) -> None:
        """Add another window of the same sketch."""
        self.rows += other.rows
        self.nulls += other.nulls

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {"rows": self.rows, "nulls": self.nulls}

    @classmethod
    def from_json(cls, sketch: NullSketch, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        counts = cls(sketch)
        counts.rows, counts.nulls = value["rows"], value["nulls"]
        return counts


Sketch: TypeAlias = NumberSketch | CategorySketch | NullSketch
WindowCounts: TypeAlias = NumberCounts | CategoryCounts | NullCounts


@dataclass(frozen=True)
class SketchedColumn:
    """A column, what it is for, and its sketch."""

    name: str
    role: Role
    sketch: Sketch

    @classmethod
    def of(
        cls,
        name: str,
        column: pa.Array | pa.ChunkedArray,
        *,
        role: Role = "feature",
        label: bool = False,
        sensitive: str | None = None,
    ) -> "SketchedColumn":
        """Sketch a column; a `label` is told value by value, whatever its type.

        `sensitive` is a salt: of such a column no value is kept.
        """
        text = label or pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if text:
            return cls(name, role, CategorySketch.of(column, salt=sensitive))
        if sensitive is not None:
            return cls(name, role, NullSketch(len(column), _nulls(column)))
        return cls(name, role, NumberSketch.of(column))


@dataclass(frozen=True)
class Reference:
    """Every watched column of a training, and how much each feature mattered (`importances` sum to 1).

    Features are those of all training rows. Predictions are those of the held-out rows: of rows that it
    learned from, a model is surer than of any others.
    """

    columns: tuple[SketchedColumn, ...]
    importances: Mapping[str, float] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The watched columns."""
        return tuple(column.name for column in self.columns)

    @classmethod
    def of(
        cls,
        features: pa.Table,
        predictions: Mapping[str, pa.Array],
        *,
        labels: bool,
        importances: Mapping[str, float],
        sensitive: Collection[str] = (),
        salt: str = "",
    ) -> "Reference":
        """Sketch the training rows' features, and the predictions of the held-out ones.

        `labels`: the column `prediction` holds classes. `importances` may be of any scale; what is not
        above 0 counts as 0.
        """
        columns = [
            SketchedColumn.of(
                name, features.column(name), sensitive=salt if name in sensitive else None
            )
            for name in features.column_names
        ]
        columns += [
            SketchedColumn.of(
                name, column, role="prediction", label=labels and name == "prediction"
            )
            for name, column in predictions.items()
        ]
        positive = {name: max(value, 0.0) for name, value in importances.items()}
        total = sum(positive.values())
        shares = {name: value / total for name, value in positive.items()} if total else {}
        return cls(tuple(columns), shares)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "columns": [
                {"name": column.name, "role": column.role, **column.sketch.to_json()}
                for column in self.columns
            ],
            "importances": dict(self.importances),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Reference":
        """Read what `to_json` wrote."""
        return cls(
            tuple(
                SketchedColumn(item["name"], item["role"], _read(item)) for item in value["columns"]
            ),
            value["importances"],
        )


class Window:
    """Later rows, counted the way that the training rows were; any split of them gives the same."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.rows = 0
        self.counts: dict[str, WindowCounts] = {
            column.name: column.sketch.counter() for column in reference.columns
        }

    def add(self, columns: Mapping[str, "pa.Array | Sequence[Any]"], rows: int) -> None:
        """Count `rows` more rows; columns that nobody watches are left alone.

        Numbers, texts and truth values may come as Python's own.
        """
        self.rows += rows
        for name, counts in self.counts.items():
            values = columns.get(name)
            if isinstance(values, pa.Array | pa.ChunkedArray):
                counts.add(values)
            elif values is not None:
                counts.add_plain(values)

    def merge(self, other: Self) -> None:
        """Add the rows of another window of the same reference."""
        self.rows += other.rows
        for name, counts in self.counts.items():
            counts.merge(other.counts[name])  # type: ignore[arg-type]  # of the same column

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file; the reference is not among them."""
        columns = {name: counts.to_json() for name, counts in self.counts.items()}
        return {"rows": self.rows, "columns": columns}

    @classmethod
    def from_json(cls, reference: Reference, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        window = cls(reference)
        window.rows = value["rows"]
        window.counts = {
            name: counts.from_json(counts.sketch, value["columns"][name])  # type: ignore[arg-type]  # its own
            for name, counts in window.counts.items()
        }
        return window


def _read(item: Mapping[str, Any]) -> Sketch:
    match item["kind"]:
        case "number":
            return NumberSketch.from_json(item)
        case "category":
            return CategorySketch.from_json(item)
        case "nulls":
            return NullSketch(item["rows"], item["nulls"])
        case other:
            raise ValueError(f"there is no sketch of the kind {other!r}")


def _nulls(column: pa.Array | pa.ChunkedArray) -> int:
    nulls = int(column.null_count)
    if pa.types.is_floating(column.type):
        nulls += int(np.isnan(column.drop_null().to_numpy()).sum())
    return nulls
