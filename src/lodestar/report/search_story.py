"""A search's result, arranged for drawing: trials in order, the chosen one, the axes of the space."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lodestar.core.tuning.result import Finalist, TrialRecord, TuningResult

__all__ = ["Dimension", "Story", "reach", "shown", "spread_out"]

# A trial that is worse than the quartile by so many quartile ranges would flatten all others.
FENCE = 3.0
FEWEST_TO_FENCE = 8
ROOM = 0.06


@dataclass(frozen=True)
class Dimension:
    """One hyperparameter's axis; `choices` are its values as text, empty where it is a number."""

    name: str
    log: bool
    low: float
    high: float
    choices: tuple[str, ...]

    def at(self, value: object) -> float | None:
        """Where a value lies on the axis: the number itself, or the position of its text."""
        if self.choices:
            text = shown(value)
            return float(self.choices.index(text)) if text in self.choices else None
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    def share(self, value: object) -> float | None:
        """The same as a share of the axis, 0 at its low end and 1 at its high."""
        place, low, high = self.at(value), self.low, self.high
        if place is None:
            return None
        if self.log:
            if place <= 0:
                return None
            place, low, high = math.log(place), math.log(low), math.log(high)
        return (place - low) / (high - low) if high > low else 0.5


@dataclass(frozen=True)
class Story:
    """The search as its figures tell it; `records` are all trials in the order of their numbers."""

    tuning: TuningResult
    records: tuple[TrialRecord, ...]
    dimensions: tuple[Dimension, ...]

    @classmethod
    def of(cls, tuning: TuningResult) -> "Story":
        """Sort the trials and lay out the space."""
        records = tuple(sorted(tuning.history, key=lambda record: record.number))
        names = [*tuning.search_space]
        names += sorted({name for record in records for name in record.params} - set(names))
        dimensions = tuple(
            _dimension(
                name,
                tuning.search_space.get(name, {}),
                [record.params[name] for record in records if name in record.params],
            )
            for name in names
        )
        return cls(tuning, records, dimensions)

    @property
    def maximize(self) -> bool:
        """Whether a higher value is better."""
        return self.tuning.direction == "maximize"

    @property
    def complete(self) -> tuple[TrialRecord, ...]:
        """The trials with a value of their own."""
        return tuple(
            record for record in self.records if record.state == "complete" and known(record)
        )

    @property
    def pruned(self) -> tuple[TrialRecord, ...]:
        """The trials that were given up, as far as they said something before."""
        return tuple(
            record for record in self.records if record.state == "pruned" and known(record)
        )

    @property
    def winner(self) -> Finalist | None:
        """The finalist whose hyperparameters were chosen."""
        return next(iter(self.tuning.finalists), None)

    @property
    def chosen(self) -> tuple[TrialRecord, ...]:
        """The trial that the winner was while it was searched; none where it is not recorded."""
        return self._records(self.tuning.finalists[:1])

    @property
    def others(self) -> tuple[TrialRecord, ...]:
        """The trials that the other finalists were."""
        return self._records(self.tuning.finalists[1:])

    @property
    def naive(self) -> Finalist | None:
        """The finalist that looked best on its own split."""
        ranked = sorted(self.tuning.finalists, key=lambda each: each.number)
        pick = max if self.maximize else min
        return pick(ranked, key=lambda each: each.searched, default=None)

    def _records(self, finalists: Sequence[Finalist]) -> tuple[TrialRecord, ...]:
        numbers = {each.number for each in finalists}
        return tuple(record for record in self.complete if record.number in numbers)

    def best_so_far(self) -> list[tuple[int, float]]:
        """The number and the value of each trial that was better than all before it."""
        sign = 1 if self.maximize else -1
        best: list[tuple[int, float]] = []
        for record in self.complete:
            value = last(record)
            if not best or sign * value > sign * best[-1][1]:
                best.append((record.number, value))
        return best


def known(record: TrialRecord) -> bool:
    """Whether the trial has a value, be it an intermediate one."""
    return math.isfinite(last(record))


def last(record: TrialRecord) -> float:
    """A complete trial's value, a pruned one's last intermediate value, else NaN."""
    if record.state == "complete" and record.value is not None:
        return record.value
    return record.curve[-1][1] if record.state == "pruned" and record.curve else math.nan


def shown(value: object) -> str:
    """A hyperparameter's value as a person reads it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(shown(item) for item in value)}]"
    return json.dumps(value) if isinstance(value, dict) else str(value)


def reach(values: Iterable[float], *, maximize: bool) -> tuple[float, float]:
    """The ends of an axis that shows all values but those that are worse by far."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    if len(finite) >= FEWEST_TO_FENCE:
        first, third = (float(each) for each in np.quantile(finite, (0.25, 0.75)))
        fence = FENCE * (third - first)
        if maximize and fence:
            low = max(low, first - fence)
        elif fence:
            high = min(high, third + fence)
    room = ROOM * (high - low) or abs(high) * 0.01 or 0.01
    return low - room, high + room


def spread_out(records: Sequence[TrialRecord], most: int) -> tuple[TrialRecord, ...]:
    """At most so many trials, evenly over the search."""
    if len(records) <= most:
        return tuple(records)
    return tuple(records[int(place)] for place in np.linspace(0, len(records) - 1, most))


def _dimension(name: str, described: Mapping[str, Any], values: Sequence[object]) -> Dimension:
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    numeric = described.get("type") in {"int", "float"} or (
        "choices" not in described and numbers and not any(isinstance(v, bool) for v in values)
    )
    if not numeric or len(numbers) < len(values):
        listed = [*described.get("choices", ()), *values]
        choices = tuple(dict.fromkeys(shown(value) for value in listed)) or ("",)
        return Dimension(name, log=False, low=0.0, high=len(choices) - 1.0, choices=choices)
    low = float(described.get("low", min(numbers, default=0.0)))
    high = float(described.get("high", max(numbers, default=1.0)))
    log = bool(described.get("log", False)) and low > 0
    return Dimension(name, log=log, low=low, high=high, choices=())
