"""Scores rows of plain values without Arrow and without frames: numpy, and the estimator in place."""

from collections.abc import Sequence

from lodestar.core.fitted import FittedModel
from lodestar.core.trees.libraries import matrix_model
from lodestar.serving.plan.encoding import Encoder
from lodestar.serving.plan.refusals import RowCheck
from lodestar.serving.scoring import Row, RowRefusal, RowScores

__all__ = ["ArrayScorer"]


class ArrayScorer:
    """A SimpleScaler's numbers in one matrix, of which the estimator is asked in one thread."""

    name = "numpy"
    reason: str = ""

    def __init__(self, fitted: FittedModel, encoder: Encoder, check: RowCheck) -> None:
        self._encoder = encoder
        self._check = check
        self._ask = matrix_model(fitted, encoder.names)

    def refusal(self, row: Row) -> RowRefusal | None:
        """As RowCheck."""
        return self._check.refusal(row)

    def score(self, rows: Sequence[Row]) -> RowScores:
        """Encode, then ask."""
        matrix, unknown = self._encoder.matrix(rows)
        return RowScores(self._ask(matrix), unknown)
