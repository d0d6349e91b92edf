"""A fitted model whose trees are asked in machine code, once that has said what the library says."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.core.fitted import FittedModel
from lodestar.core.results import Predictions, bits
from lodestar.core.trees.forest import NotPlannedError
from lodestar.core.trees.libraries import Ask, matrix_model, native_model, reader
from lodestar.core.trees.many_rows import many_rows
from lodestar.errors import ArtifactError
from lodestar.interface.learning import FeatureMatrix

__all__ = ["LEAST_ROWS", "CompiledModel"]

# Fewer rows are asked of the library sooner than anything is compiled.
LEAST_ROWS = 16_384
# Of every later chunk so many rows are asked of the library as well.
COMPARED = 64
DIFFERENT = (
    "the compiled trees predicted something else, and were not asked again: please report this"
)


@dataclass
class _Trees:
    """Whether and how the trees are asked: unknown at first, then compiled or not for a reason.

    `library` predicts a few rows: in one thread, as two would take longer to begin.
    """

    ask: Callable[[NDArray[Any]], Predictions | None] | None = None
    library: Ask = field(init=False)
    reason: str = ""

    def are_asked(self, features: FeatureMatrix) -> bool:
        if self.reason or not isinstance(features.data, np.ndarray):
            return False
        return self.ask is not None or len(features) >= LEAST_ROWS

    def prove(self, model: FittedModel, features: FeatureMatrix, said: Predictions) -> None:
        """Compile, and compare every bit."""
        matrix = features.array()
        try:
            ask = _compiled(model, matrix.shape[1])
        except NotPlannedError as why:
            self.reason = str(why)
            return
        predicted = ask(matrix)
        if predicted is None:
            self.reason = "the features are not finite"
        elif _same(said, predicted):
            self.ask, self.library = ask, matrix_model(model, features.names)
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
    def doubt(self) -> str:
        """What is not as it should be, though what is predicted is right."""
        return self.reason if self.reason == DIFFERENT else ""

    def predict(self, features: FeatureMatrix) -> Predictions:
        """As FittedModel.

        Raises:
            DataError: the estimator refuses a value.
            ArtifactError: the compiled trees and the library disagree, which nothing explains.
        """
        if not self.trees.are_asked(features):
            return super().predict(features)
        matrix = features.array()
        if self.trees.ask is None:
            said = super().predict(features)
            plain = FittedModel(self.preprocessor, self.estimator, self.family, self.classes)
            self.trees.prove(plain, features, said)
            return said
        predicted = self.trees.ask(matrix)
        if predicted is None:  # what to do with a value that is not finite, the library knows
            return super().predict(features)
        some = np.linspace(0, len(matrix) - 1, min(COMPARED, len(matrix))).astype(np.int64)
        if not _same(self.trees.library(matrix[some]), _rows(predicted, some)):
            raise ArtifactError(
                f"the compiled trees and {self.family.cls.__name__} predict different values",
                hint="set batch.native to false, and report this with the artifact",
            )
        return predicted


def _compiled(model: FittedModel, width: int) -> Callable[[NDArray[Any]], Predictions | None]:
    native = native_model(model, width)
    trees = many_rows(native.forest, threads=_threads())
    read = reader(native.says, model.classes)

    def ask(matrix: NDArray[Any]) -> Predictions | None:
        out = trees(matrix)
        return None if out is None else read(out)

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
