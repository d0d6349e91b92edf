"""Compares a scorer with the artifact itself, bit by bit, in batches of several sizes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from lodestar.artifact.wrapper import PyfuncWrapper
from lodestar.core.outputs import prediction_columns
from lodestar.errors import DataError
from lodestar.serving.plan.examples import Example
from lodestar.serving.plan.generic import batch_of
from lodestar.serving.plan.refusals import RowCheck
from lodestar.serving.scoring import RowScorer

__all__ = ["Proof"]

# Batch size → how many rows are compared in batches of it. A large batch finds what depends on the
# row, the small ones what depends on the batch.
SIZES = {1: 24, 2: 24, 33: 132, 256: 100_000}
MOST_REFUSED = 100


@dataclass(frozen=True)
class _Outcome:
    """What the artifact says of some rows: per column the bits of its values, or which error."""

    columns: Mapping[str, tuple[str, bytes]]
    unknown: Mapping[str, int]
    error: str = ""


class Proof:
    """The artifact's own answers, asked once, and a scorer's differences from them."""

    def __init__(self, wrapper: PyfuncWrapper, rows: Sequence[Example], check: RowCheck) -> None:
        self._wrapper = wrapper
        self._refused = [item for item in rows if check.refusal(item.row) is not None]
        refused = set(map(id, self._refused))
        self._rows = [item for item in rows if id(item) not in refused]
        self._known = list(self._answers())

    def refused_in_vain(self) -> str:
        """A row that is refused although the artifact takes it, in words; "" where there is none.

        A row that should have been refused is found by `difference`: the artifact fails there.
        """
        for item in self._refused[:MOST_REFUSED]:
            if self._artifact([item]).error != DataError.__name__:
                return f"{item.name} is refused, and the artifact takes it"
        return ""

    def difference(self, scorer: RowScorer) -> str:
        """The first difference in words; "" where every bit is equal."""
        for batch, expected in self._known:
            outcome = _scored(scorer, batch)
            if outcome == expected:
                continue
            for item in batch:
                alone, wanted = _scored(scorer, [item]), self._artifact([item])
                if alone != wanted:
                    return f"{item.name}: {_what(alone, wanted)}"
            return f"{len(batch)} rows together: {_what(outcome, expected)}"
        return ""

    def _answers(self) -> Iterator[tuple[list[Example], _Outcome]]:
        for size, most in SIZES.items():
            step = max(1, len(self._rows) // most)
            some = self._rows[::step][:most]
            for first in range(0, len(some), size):
                yield from self._asked(some[first : first + size])

    def _asked(self, batch: list[Example]) -> Iterator[tuple[list[Example], _Outcome]]:
        """A batch that fails as a whole says little of its rows: it is asked in halves as well."""
        outcome = self._artifact(batch)
        yield batch, outcome
        if outcome.error and len(batch) > 1:
            half = len(batch) // 2
            yield from self._asked(batch[:half])
            yield from self._asked(batch[half:])

    def _artifact(self, batch: Sequence[Example]) -> _Outcome:
        rows = batch_of(self._wrapper.contents.feature_schema, [item.row for item in batch])

        def ask() -> _Outcome:
            scored = self._wrapper.score(rows)
            return _outcome(scored.predictions, scored.features.unknown)

        return _or_error(ask)


def _scored(scorer: RowScorer, batch: Sequence[Example]) -> _Outcome:
    def ask() -> _Outcome:
        scores = scorer.score([item.row for item in batch])
        return _outcome(prediction_columns(scores.predictions), scores.unknown)

    return _or_error(ask)


def _or_error(ask: Callable[[], _Outcome]) -> _Outcome:
    try:
        return ask()
    except Exception as error:  # noqa: BLE001 -- whatever a library raises is what is compared
        return _Outcome({}, {}, error=type(error).__name__)


def _outcome(columns: Mapping[str, pa.Array], unknown: Mapping[str, int]) -> _Outcome:
    return _Outcome({name: _bits(values) for name, values in columns.items()}, dict(unknown))


def _bits(values: pa.Array) -> tuple[str, bytes]:
    """A column's type and values; floats as bits, because -0.0 == 0.0 and NaN != NaN."""
    if pa.types.is_floating(values.type):
        return str(values.type), values.to_numpy(zero_copy_only=False).tobytes()
    return str(values.type), repr(values.to_pylist()).encode()


def _what(seen: _Outcome, wanted: _Outcome) -> str:
    """How two outcomes differ, without any value."""
    if seen.error or wanted.error:
        return f"{seen.error or 'an answer'} instead of {wanted.error or 'an answer'}"
    if seen.columns.keys() != wanted.columns.keys():
        return "other columns"
    for name, bits in wanted.columns.items():
        if seen.columns[name] != bits:
            return f"{name} differs"
    return "other counts of unknown categories"
