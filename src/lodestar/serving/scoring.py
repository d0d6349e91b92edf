"""Scoring a few rows of plain values at a time: the port between requests and a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lodestar.core.results import Predictions

__all__ = ["Row", "RowRefusal", "RowScorer", "RowScores"]

# One row's values in the order of the artifact's `feature_schema`: bool, int, float, str, or None;
# timestamps are µs since 1970 (UTC), dates days since 1970.
Row = Sequence[Any]


@dataclass(frozen=True)
class RowRefusal:
    """Why a row cannot be scored: which column, and what about it; never its value."""

    column: str
    reason: str


@dataclass(frozen=True)
class RowScores:
    """Predictions of n rows; `unknown` counts, per column, categories that training had not seen."""

    predictions: Predictions
    unknown: Mapping[str, int] = field(default_factory=dict)


class RowScorer(Protocol):
    """Scores rows exactly as the artifact's own `PyfuncWrapper.score` does, bit by bit.

    `name` says how: `native`, `numpy` or `generic`; `reason` why not a faster one.
    """

    name: str
    reason: str

    def refusal(self, row: Row) -> RowRefusal | None:
        """What `FrameSchema.conform` would refuse in a row; None where it can be scored."""
        ...

    def score(self, rows: Sequence[Row]) -> RowScores:
        """Score rows that were not refused; rows do not influence each other."""
        ...
