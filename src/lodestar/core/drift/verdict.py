"""What a comparison of later rows with the training's sketches came to."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from lodestar.core.drift.sketches import Role

__all__ = ["BinShare", "ColumnDrift", "DriftReport", "Finding", "Limits", "Verdict"]

Verdict: TypeAlias = Literal["drift", "steady", "too few rows"]
FindingKind: TypeAlias = Literal["shape", "nulls", "range", "new", "vanished"]


@dataclass(frozen=True)
class Limits:
    """From when on a change is an alarm: it must be both unlikely to be chance, and large.

    `significance` is the share of alarms that may be chance (after Benjamini and Hochberg); `psi` the
    population stability index beyond what the samples' sizes bring about; `null_rate` a difference of
    rates; `unseen` the share of rows out of range or of new values; `vanished` the share that a value
    had. Fewer than `rows` values are not judged.
    """

    significance: float = 0.01
    psi: float = 0.1
    null_rate: float = 0.02
    unseen: float = 0.001
    vanished: float = 0.02
    rows: int = 30


@dataclass(frozen=True)
class Finding:
    """One way in which a column has changed, in words; `chance` is after the correction."""

    kind: FindingKind
    words: str
    chance: float


@dataclass(frozen=True)
class BinShare:
    """A bin, or a value: its share of the rows with a value, in training and now."""

    label: str
    trained: float
    now: float


@dataclass(frozen=True)
class ColumnDrift:
    """One column of the window against its sketch; None where a measure does not apply.

    `score` is importance times the size of the change (0 to 1), by which columns are ranked.
    """

    name: str
    role: Role
    verdict: Verdict
    findings: tuple[Finding, ...]
    importance: float | None
    score: float
    psi: float | None
    psi_of_chance: float | None
    jensen_shannon: float | None
    kolmogorov_smirnov: float | None
    null_rate: float
    trained_null_rate: float
    out_of_range: float | None
    new: tuple[tuple[str, int], ...]
    vanished: tuple[str, ...]
    shares: tuple[BinShare, ...] = ()


@dataclass(frozen=True)
class DriftReport:
    """All watched columns, those with alarms first, then by score."""

    rows: int
    trained_rows: int
    columns: tuple[ColumnDrift, ...]
    limits: Limits

    @property
    def drifted(self) -> tuple[ColumnDrift, ...]:
        """The columns with an alarm."""
        return tuple(column for column in self.columns if column.verdict == "drift")

    @property
    def judged(self) -> tuple[ColumnDrift, ...]:
        """The columns with rows enough: predictions are not among them where nothing is scored."""
        return tuple(column for column in self.columns if column.verdict != "too few rows")

    @property
    def verdict(self) -> Verdict:
        """Of the whole window."""
        if self.drifted:
            return "drift"
        return "steady" if self.judged else "too few rows"
