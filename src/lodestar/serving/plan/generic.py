"""Scores rows of plain values as the artifact itself does: through an Arrow batch and its own model."""

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from lodestar.artifact.wrapper import PyfuncWrapper
from lodestar.schema import FrameSchema
from lodestar.serving.plan.refusals import RowCheck
from lodestar.serving.scoring import Row, RowRefusal, RowScores

__all__ = ["GenericScorer", "batch_of"]


class GenericScorer:
    """Right by construction, for every artifact, and slow: it is what the others are compared with."""

    name = "generic"

    def __init__(self, wrapper: PyfuncWrapper, check: RowCheck, *, reason: str = "") -> None:
        self.reason = reason
        self._schema = wrapper.contents.feature_schema
        self._model = wrapper.fitted
        self._check = check

    def refusal(self, row: Row) -> RowRefusal | None:
        """As RowCheck."""
        return self._check.refusal(row)

    def score(self, rows: Sequence[Row]) -> RowScores:
        """Through `FrameSchema.conform`, the preprocessor and the estimator's family."""
        scored = self._model.score(self._schema.conform(batch_of(self._schema, rows)))
        return RowScores(scored.predictions, dict(scored.features.unknown))


def batch_of(schema: FrameSchema, rows: Sequence[Row]) -> pa.RecordBatch:
    """Rows that were not refused, with the schema's types."""
    arrow = schema.arrow()
    arrays = []
    for field, column, values in zip(arrow, schema.columns, zip(*rows, strict=True), strict=True):
        convert = _NUMBERS.get(column.type)
        given = values if convert is None else [_unless_none(convert, value) for value in values]
        arrays.append(pa.array(given, field.type))
    return pa.record_batch(arrays, schema=arrow)


# Arrow takes no 3.0 for an integer and no True for a number.
_NUMBERS: dict[str, Callable[[Any], Any]] = {"float": float, "int": int}


def _unless_none(convert: Callable[[Any], Any], value: Any) -> Any:  # noqa: ANN401 -- a plain value
    return None if value is None else convert(value)
