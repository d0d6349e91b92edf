"""Compares a scorer with the artifact itself, bit by bit, in batches of several sizes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lodestar.artifact.wrapper import PyfuncWrapper
from lodestar.core.results import Predictions, bits
from lodestar.errors import DataError
from lodestar.serving.plan.examples import Example
from lodestar.serving.plan.generic import batch_of
from lodestar.serving.plan.refusals import RowCheck
from lodestar.serving.scoring import RowScorer

__all__ = ["FEW", "MANY", "Answer", "Outcome", "Proof", "difference"]

# Batch size → how many rows are compared in batches of it. A large batch finds what depends on the
# row, the small ones what depends on the batch. FEW is for estimators that take milliseconds a call.
MANY = {1: 24, 2: 24, 33: 132, 256: 100_000}
FEW = {1: 6, 2: 8, 33: 66, 256: 100_000}
MOST_REFUSED = 100


@dataclass(frozen=True)
class Outcome:
    """What is said of some rows: per column its type and the bits of its values, or which error."""

    columns: Mapping[str, tuple[str, bytes]]
    unknown: Mapping[str, int]
    error: str = ""


@dataclass(frozen=True)
class Answer:
    """What the artifact itself says of a batch."""

    batch: Sequence[Example]
    outcome: Outcome


class Proof:
    """The artifact's own answers, asked once, and a scorer's differences from them."""

    def __init__(
        self,
        wrapper: PyfuncWrapper,
        rows: Sequence[Example],
        check: RowCheck,
        *,
        sizes: Mapping[int, int] = MANY,
    ) -> None:
        self._wrapper = wrapper
        self._refused: list[Example] = []
        self._rows: list[Example] = []
        for item in rows:
            (self._rows if check.refusal(item.row) is None else self._refused).append(item)
        self.answers = list(self._asked_in(sizes))

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
        found = difference(scorer, self.answers)
        if found is None:
            return ""
        for item in found.batch:
            alone = difference(scorer, [Answer([item], self._artifact([item]))])
            if alone is not None:
                return f"{item.name}: {alone.what}"
        return f"{len(found.batch)} rows together: {found.what}"

    def _asked_in(self, sizes: Mapping[int, int]) -> Iterator[Answer]:
        for size, most in sizes.items():
            step = max(1, len(self._rows) // most)
            some = self._rows[::step][:most]
            for first in range(0, len(some), size):
                yield from self._asked(some[first : first + size])

    def _asked(self, batch: list[Example]) -> Iterator[Answer]:
        """A batch that fails as a whole says little of its rows: it is asked in halves as well."""
        answer = Answer(batch, self._artifact(batch))
        yield answer
        if answer.outcome.error and len(batch) > 1:
            half = len(batch) // 2
            yield from self._asked(batch[:half])
            yield from self._asked(batch[half:])

    def _artifact(self, batch: Sequence[Example]) -> Outcome:
        schema = self._wrapper.contents.feature_schema
        rows = batch_of(schema, [item.row for item in batch])

        def ask() -> Outcome:
            # As PyfuncWrapper.score, before the predictions become columns.
            scored = self._wrapper.fitted.score(schema.conform(rows))
            return _outcome(scored.predictions, scored.features.unknown)

        return _or_error(ask)


@dataclass(frozen=True)
class Difference:
    """A batch of which a scorer says something else."""

    batch: Sequence[Example]
    what: str


def difference(scorer: RowScorer, answers: Sequence[Answer]) -> Difference | None:
    """The first batch that a scorer answers differently; None where every bit is equal."""
    for answer in answers:
        seen = _scored(scorer, answer.batch)
        if seen != answer.outcome:
            return Difference(answer.batch, _what(seen, answer.outcome))
    return None


def _scored(scorer: RowScorer, batch: Sequence[Example]) -> Outcome:
    def ask() -> Outcome:
        scores = scorer.score([item.row for item in batch])
        return _outcome(scores.predictions, scores.unknown)

    return _or_error(ask)


def _or_error(ask: Callable[[], Outcome]) -> Outcome:
    try:
        return ask()
    except Exception as error:  # noqa: BLE001 -- whatever a library raises is what is compared
        return Outcome({}, {}, error=type(error).__name__)


def _outcome(made: Predictions, unknown: Mapping[str, int]) -> Outcome:
    columns = {"prediction": bits(made.values)}
    if made.probabilities is not None:
        columns |= {
            f"probability_{label}": bits(made.probabilities[:, at])
            for at, label in enumerate(made.classes)
        }
    return Outcome(columns, dict(unknown))


def _what(seen: Outcome, wanted: Outcome) -> str:
    """How two outcomes differ, without any value."""
    if seen.error or wanted.error:
        return f"{seen.error or 'an answer'} instead of {wanted.error or 'an answer'}"
    if seen.columns.keys() != wanted.columns.keys():
        return "other columns"
    for name, wanted_bits in wanted.columns.items():
        if seen.columns[name] != wanted_bits:
            return f"{name} differs"
    return "other counts of unknown categories"
