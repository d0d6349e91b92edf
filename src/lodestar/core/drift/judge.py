"""Judges a window of rows by the training's sketches: every column, every way to change, then ranked."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from lodestar.core.drift.categories import CategoryCounts, CategorySketch
from lodestar.core.drift.measures import (
    adjusted,
    all_absent,
    chance_of_outside,
    chance_of_unseen,
    homogeneity,
    jensen_shannon,
    kolmogorov,
    kolmogorov_smirnov,
    same_rate,
)
from lodestar.core.drift.numbers import NumberCounts, NumberSketch
from lodestar.core.drift.sketches import SketchedColumn, Window, WindowCounts
from lodestar.core.drift.verdict import (
    BinShare,
    ColumnDrift,
    DriftReport,
    Finding,
    FindingKind,
    Limits,
)
from lodestar.core.stability import stability_index

__all__ = ["judge"]

MOST_NAMED = 5


def judge(window: Window, limits: Limits = Limits()) -> DriftReport:  # noqa: B008 -- frozen
    """Compare a window with its reference.

    A window without a row is `too few rows` in every column.
    """
    seen = [
        _Seen(column, window.counts[column.name], limits) for column in window.reference.columns
    ]
    tests = [(each, test) for each in seen for test in each.tests()]
    chances = adjusted(np.array([test.chance for _, test in tests]))
    for (each, test), chance in zip(tests, chances, strict=True):
        if test.large and chance < limits.significance:
            each.findings.append(Finding(test.kind, test.words, float(chance)))
    importances = window.reference.importances
    columns = [each.column(importances.get(each.name)) for each in seen]
    columns.sort(key=lambda one: (one.verdict != "drift", -one.score, -_size(one), one.name))
    trained = max((column.sketch.rows for column in window.reference.columns), default=0)
    return DriftReport(window.rows, trained, tuple(columns), limits)


@dataclass(frozen=True)
class _Test:
    """One way to change: the chance of it, whether it is large, and how to say it."""

    kind: FindingKind
    chance: float
    large: bool
    words: str


class _Seen:
    """One column's window beside its sketch."""

    def __init__(self, column: SketchedColumn, counts: WindowCounts, limits: Limits) -> None:
        self.name, self._role = column.name, column.role
        self._counts, self._limits = counts, limits
        self._own = own = column.sketch.own()
        self.findings: list[Finding] = []
        self._enough = counts.present >= limits.rows and own.present > 0
        self._psi = self._noise = self._js = self._ks = None
        if self._enough and not isinstance(counts, NumberCounts | CategoryCounts):
            return
        if self._enough:
            was, now = own.binned(), counts.binned()  # type: ignore[union-attr]  # as just checked
            self._was, self._now = was, now
            self._psi = stability_index(was, now)
            bins = np.count_nonzero(was + now)
            self._noise = float((bins - 1) * (1 / own.present + 1 / counts.present))
            self._js = jensen_shannon(was, now)
        if self._enough and isinstance(counts, NumberCounts) and isinstance(own, NumberCounts):
            self._ks = kolmogorov_smirnov(own.shares_below(), counts.shares_below())

    def tests(self) -> Iterator[_Test]:
        """Every way in which this column can have changed, as far as it can be told."""
        if self._counts.rows >= self._limits.rows:
            yield self._nulls()
        if self._psi is None:
            return
        yield self._shape()
        if isinstance(self._counts, NumberCounts):
            yield self._range(self._counts)
        if isinstance(self._counts, CategoryCounts) and self._counts.sketch.salt is None:
            if self._counts.sketch.complete:
                yield self._new(self._counts)
            yield from self._vanished(self._counts)

    def column(self, importance: float | None) -> ColumnDrift:
        """The verdict, once the findings are there."""
        counts, own = self._counts, self._own
        judged = self._enough or counts.rows >= self._limits.rows
        one = ColumnDrift(
            name=self.name,
            role=self._role,
            verdict="drift" if self.findings else "steady" if judged else "too few rows",
            findings=tuple(self.findings),
            importance=importance,
            score=0.0,
            psi=self._psi,
            psi_of_chance=self._noise,
            jensen_shannon=self._js,
            kolmogorov_smirnov=self._ks,
            null_rate=_rate(counts.nulls, counts.rows),
            trained_null_rate=_rate(own.nulls, own.rows),
            out_of_range=_outside(counts) if isinstance(counts, NumberCounts) else None,
            new=_named(counts),
            vanished=tuple(value for value, _ in self._gone())
            if any(found.kind == "vanished" for found in self.findings)
            else (),
            shares=self._shares() if self._psi is not None else (),
        )
        # A prediction is what everything else is for.
        weight = 1.0 if self._role == "prediction" else importance or 0.0
        return replace(one, score=weight * _size(one))

    def _shares(self) -> tuple[BinShare, ...]:
        sides = (self._was / self._was.sum(), self._now / self._now.sum())
        return tuple(
            BinShare(label, float(was), float(now))
            for label, was, now in zip(_labels(self._counts), *sides, strict=True)
        )

    def _nulls(self) -> _Test:
        was, now = self._own, self._counts
        before, after = _rate(was.nulls, was.rows), _rate(now.nulls, now.rows)
        return _Test(
            "nulls",
            same_rate((was.nulls, was.rows), (now.nulls, now.rows)),
            abs(after - before) >= self._limits.null_rate,
            f"{after:.1%} of the rows have no value; in training {before:.1%}",
        )

    def _shape(self) -> _Test:
        sketch = self._counts.sketch
        assert self._psi is not None and self._noise is not None  # noqa: S101, PT018 -- for mypy
        if isinstance(sketch, NumberSketch) and not sketch.discrete and self._ks is not None:
            chance = kolmogorov(self._ks, self._own.present, self._counts.present)
            ks = f", Kolmogorov-Smirnov {self._ks:.2f}"
        else:
            chance, ks = homogeneity(self._was, self._now), ""
        return _Test(
            "shape",
            chance,
            self._psi - self._noise >= self._limits.psi,
            f"the values are distributed otherwise: PSI {self._psi:.2f} "
            f"({self._noise:.2f} would be chance){ks}",
        )

    def _range(self, counts: NumberCounts) -> _Test:
        trained, sketch = self._own.present, counts.sketch
        chances = [
            chance_of_outside(count, counts.present, trained)
            for count in (counts.under, counts.above)
        ]
        share = _outside(counts)
        return _Test(
            "range",
            min(1.0, 2 * min(chances)),
            share >= self._limits.unseen,
            f"{share:.2%} of the values lie outside of training's {_plain(sketch.low)} … "
            f"{_plain(sketch.high)}: down to {_plain(counts.low)}, up to {_plain(counts.high)}",
        )

    def _new(self, counts: CategoryCounts) -> _Test:
        chance = chance_of_unseen(
            counts.unknown, counts.present, counts.sketch.singles, self._own.present
        )
        share = counts.unknown / counts.present
        named = ", ".join(f"{value!r} ({count:,})" for value, count in _named(counts))
        return _Test(
            "new",
            chance,
            share >= self._limits.unseen,
            f"{share:.1%} of the values are new: {named}",
        )

    def _gone(self) -> list[tuple[str, int]]:
        """Known values that do not come any more, and how often training had them."""
        counts, own = self._counts, self._own
        if not isinstance(counts.sketch, CategorySketch) or not isinstance(counts, CategoryCounts):
            return []
        least = self._limits.vanished * own.present
        pairs = zip(counts.sketch.values, counts.sketch.counts, counts.counts, strict=True)
        return [(value, int(was)) for value, was, now in pairs if not now and was >= least]

    def _vanished(self, counts: CategoryCounts) -> Iterator[_Test]:
        gone = self._gone()
        if not gone:
            return
        own = self._own.present
        most = max(count for _, count in gone)
        chance = all_absent(most, own, counts.present) * len(counts.sketch.values)
        named = ", ".join(f"{value!r} ({count / own:.1%})" for value, count in gone[:MOST_NAMED])
        words = f"values of training that do not come any more: {named}"
        yield _Test("vanished", min(1.0, chance), large=True, words=words)


def _size(column: ColumnDrift) -> float:
    """How much of the column has changed, 0 to 1."""
    return max(
        column.jensen_shannon or 0.0,
        abs(column.null_rate - column.trained_null_rate),
        column.out_of_range or 0.0,
    )


def _labels(counts: WindowCounts) -> list[str]:
    """What the bins of a window are called."""
    if isinstance(counts, CategoryCounts):
        return [*counts.sketch.values, "others"]
    if not isinstance(counts, NumberCounts):
        return []
    if counts.sketch.bins is None:
        return [*(_plain(value) for value in counts.sketch.marks.tolist()), "others"]
    ends = [_plain(edge) for edge in counts.sketch.bins.edges.tolist()]
    between = [f"{low} … {high}" for low, high in pairwise(ends)]
    return [f"up to {ends[0]}", *between, f"above {ends[-1]}"]


def _rate(count: int, rows: int) -> float:
    return count / rows if rows else 0.0


def _outside(counts: NumberCounts) -> float:
    return _rate(counts.under + counts.above, counts.present)


def _named(counts: WindowCounts) -> tuple[tuple[str, int], ...]:
    if not isinstance(counts, CategoryCounts):
        return ()
    return tuple(sorted(counts.unseen.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_NAMED])


def _plain(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.6g}"
