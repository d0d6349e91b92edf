"""A fitted model whose trees are asked in machine code, once that has said what the library says."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lodestar.core.fitted import FittedModel, Scored
from lodestar.core.preprocessor import SimpleScaler
from lodestar.core.results import Predictions, bits
from lodestar.core.trees.forest import Forest, NotPlannedError
from lodestar.core.trees.libraries import Ask, matrix_model, native_model, reader
from lodestar.core.trees.many_rows import many_columns, many_rows
from lodestar.errors import ArtifactError

__all__ = ["LEAST_ROWS", "CompiledModel"]

# Fewer rows are asked of the library sooner than anything is compiled.
LEAST_ROWS = 16_384
# Of every later chunk so many rows are asked of the library as well.
COMPARED = 64
DIFFERENT = (
    "the compiled trees predicted something else, and were not asked again: please report this"
)


Rows: TypeAlias = pa.Table | pa.RecordBatch


@dataclass
class _Trees:
    """Whether and how the trees are asked: unknown at first, then compiled or not for a reason.

    `ask` is None as well of rows with a value that is not finite: what to do with it, the library knows.
    `library` predicts a few rows: in one thread, as two would take longer to begin. Who asks the library
    once there is an `ask` is `alone`.
    """

    ask: Callable[[Rows], Scored | None] | None = None
    library: Ask = field(init=False)
    reason: str = ""
    alone: Lock = field(default_factory=Lock)

    def are_worth(self, scored: Scored) -> bool:
        """Whether to compile them, now that so many rows were scored by the library."""
        enough = not self.reason and len(scored.predictions) >= LEAST_ROWS
        return enough and isinstance(scored.features.data, np.ndarray)

    def prove(self, model: FittedModel, rows: Rows, scored: Scored) -> None:
        """Compile, and compare every bit."""
        try:
            ask = _compiled(model, scored.features.array().shape[1])
        except NotPlannedError as why:
            self.reason = str(why)
            return
        own = ask(rows)
        if own is None:
            self.reason = "the features are not finite"
        elif _same(scored.predictions, own.predictions):
            self.ask, self.library = ask, matrix_model(model, scored.features.names)
        else:
            self.reason = DIFFERENT


@dataclass(frozen=True)
class CompiledModel(FittedModel):
    """Predicts as the model that it was made `of`, bit by bit, and boosted trees several times as fast.

    The first chunk of `LEAST_ROWS` or more is predicted by the library, and the compiled trees have to
    say the same of every row; of later chunks a few rows are compared. Where there is no faster way,
    `reason` says why, and the library predicts.
    """

    trees: _Trees = field(default_factory=_Trees)

    @classmethod
    def of(cls, model: FittedModel) -> "CompiledModel":
        """Nothing is compiled yet."""
        return cls(model.preprocessor, model.estimator, model.family, model.classes)

    @property
    def reason(self) -> str:
        """Why the library predicts; "" where it does not, or nothing was large enough yet."""
        return self.trees.reason

    @property
    def side_by_side(self) -> bool:
        """As soon as the compiled trees are asked of a scaler's columns: all of that is our own."""
        return self.trees.ask is not None and type(self.preprocessor) is SimpleScaler

    @property
    def doubt(self) -> str:
        """What is not as it should be, though what is predicted is right."""
        return self.reason if self.reason == DIFFERENT else ""

    def score(self, rows: Rows) -> Scored:
        """As FittedModel.

        Raises:
            DataError: the estimator refuses a value.
            ArtifactError: the compiled trees and the library disagree, which nothing explains.
        """
        if self.trees.ask is None:
            scored = super().score(rows)
            if self.trees.are_worth(scored):
                plain = FittedModel(self.preprocessor, self.estimator, self.family, self.classes)
                self.trees.prove(plain, rows, scored)
            return scored
        own = self.trees.ask(rows)
        with self.trees.alone:
            if own is None:
                return super().score(rows)
            self._compare(rows, own.predictions)
        return own

    def _compare(self, rows: Rows, predictions: Predictions) -> None:
        """A few rows, from the preprocessor on."""
        last = len(predictions) - 1
        some = np.linspace(0, last, min(COMPARED, last + 1)).astype(np.int64)
        features = self.preprocessor.transform(rows.take(pa.array(some)), dtype=self.family.dtype)
        if not _same(self.trees.library(features.array()), _rows(predictions, some)):
            raise ArtifactError(
                f"the compiled trees and {self.family.cls.__name__} predict different values",
                hint="set batch.native to false, and report this with the artifact",
            )


def _compiled(model: FittedModel, width: int) -> Callable[[Rows], Scored | None]:
    """Of the columns as they were read, where preprocessor and trees are of a kind for that.

    Raises:
        NotPlannedError: there is no such way of its features either.
    """
    native = native_model(model, width)
    read = reader(native.says, model.classes)
    try:
        return _of_columns(model, native.forest, read)
    except NotPlannedError:
        return _of_features(model, native.forest, read)


def _of_columns(model: FittedModel, forest: Forest, read: Ask) -> Callable[[Rows], Scored | None]:
    scaler, dtype = model.preprocessor, model.family.dtype
    if type(scaler) is not SimpleScaler:
        raise NotPlannedError("the preprocessor is no SimpleScaler")
    trees = many_columns(forest, scaler, dtype, threads=_threads())

    def ask(rows: Rows) -> Scored | None:
        taken = trees.raw.taken(rows)
        out = trees(taken, rows.num_rows)
        if out is None:
            return None
        return Scored(read(out), taken.unknown, lambda: scaler.transform(rows, dtype=dtype))

    return ask


def _of_features(model: FittedModel, forest: Forest, read: Ask) -> Callable[[Rows], Scored | None]:
    trees = many_rows(forest, threads=_threads())

    def ask(rows: Rows) -> Scored | None:
        features = model.preprocessor.transform(rows, dtype=model.family.dtype)
        out = trees(features.array())
        return None if out is None else Scored(read(out), features.unknown, lambda: features)

    return ask


def _threads() -> int:
    """As many as the libraries take."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else len(os.sched_getaffinity(0))


def _rows(predictions: Predictions, places: NDArray[np.int64]) -> Predictions:
    probabilities = predictions.probabilities
    return Predictions(
        predictions.values[places],
        None if probabilities is None else probabilities[places],
        predictions.classes,
    )


def _same(some: Predictions, others: Predictions) -> bool:
    return _all_bits(some) == _all_bits(others)


def _all_bits(said: Predictions) -> list[tuple[str, bytes]]:
    return [bits(values) for values in (said.values, said.probabilities) if values is not None]
