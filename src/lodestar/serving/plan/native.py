"""Scores rows of plain values in machine code: scaling, encoding and trees in one call."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lodestar.core.fitted import FittedModel
from lodestar.core.trees.libraries import NativeModel, native_model, reader
from lodestar.serving.plan.encoding import Encoder
from lodestar.serving.plan.kernel import Kernel
from lodestar.serving.plan.refusals import RowCheck
from lodestar.serving.scoring import Row, RowRefusal, RowScores

__all__ = ["NativeScorer"]


class NativeScorer:
    """A SimpleScaler and boosted trees as one compiled function.

    Raises:
        NotPlannedError: llvmlite is not installed.
    """

    name = "native"
    reason: str = ""

    def __init__(
        self, model: NativeModel, classes: tuple[Any, ...], encoder: Encoder, check: RowCheck
    ) -> None:
        self.model = model
        self._read = reader(model.says, classes)
        self.encoder = encoder
        self._check = check
        self._dtype = model.forest.base.dtype
        self._width = encoder.width + 1
        self._stride = len(model.forest.base)
        self._kernel = Kernel(model.forest, encoder.numbers, encoded=len(encoder.categories))

    @classmethod
    def of(cls, fitted: FittedModel, encoder: Encoder, check: RowCheck) -> "NativeScorer":
        """Plan a fitted estimator.

        Raises:
            NotPlannedError: it has no trees that are known, or llvmlite is not installed.
        """
        return cls(native_model(fitted, encoder.width), fitted.classes, encoder, check)

    def refusal(self, row: Row) -> RowRefusal | None:
        """As RowCheck."""
        return self._check.refusal(row)

    def score(self, rows: Sequence[Row]) -> RowScores:
        """Encode in Python, the rest in one call."""
        encoded = self.encoder.encode(rows)
        matrix = np.empty((encoded.rows, self._width), self._dtype)
        out = np.empty((encoded.rows, self._stride), self._dtype)
        self._kernel.call(
            encoded.rows,
            encoded.numbers.buffer_info()[0],
            encoded.groups.buffer_info()[0],
            encoded.ones.buffer_info()[0],
            _address(matrix),
            _address(out),
        )
        return RowScores(self._read(out), encoded.unknown)


def _address(array: NDArray[Any]) -> int:
    place: int = array.__array_interface__["data"][0]
    return place
