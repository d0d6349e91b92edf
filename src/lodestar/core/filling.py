"""The policies for missing features over whole batches: what is filled, what is refused, how often."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestar.core.policies import Policy, plain_value, policies_of
from lodestar.errors import DataError, SchemaError
from lodestar.schema import TIMESTAMP, FrameSchema

__all__ = ["BatchPolicies", "moment_before"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
LEAST = -(2**63)

KINDS = (
    (pa.types.is_boolean, "bool"),
    (pa.types.is_integer, "int"),
    (pa.types.is_floating, "float"),
    (pa.types.is_timestamp, "timestamp"),
)


class BatchPolicies:
    """What `RowPolicies` says of rows, said of Arrow batches with the features among their columns.

    What is too old is null in them already. `keys` are the columns that name an entity, by namespace.
    """

    def __init__(
        self,
        selection: Sequence[Mapping[str, Any]],
        trained: FrameSchema | None,
        keys: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self._keys = keys or {}
        self._policies = tuple(
            (policy, policy.refuses(trained))
            for policy in policies_of(selection)
            if policy.rule == "value" or policy.refuses(trained)
        )

    @property
    def idle(self) -> bool:
        """Whether every missing value stays null."""
        return not self._policies

    def settled(
        self,
        batch: pa.RecordBatch,
        *,
        stage: str,
        first_row: int = 0,
        filled: MutableMapping[str, int] | None = None,
    ) -> pa.RecordBatch:
        """The same rows without missing values but nulls that the model takes.

        `filled` counts per feature the values that stand in; `first_row` and `stage` are for errors.

        Raises:
            DataError: a value is missing, and its policy is an error.
            SchemaError: a value cannot stand in, as the column has another type.
        """
        if self.idle:
            return batch
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        for policy, refuses in self._policies:
            column = columns[policy.feature]
            missing = _missing(column)
            if missing is None:
                continue
            if refuses:
                raise self._error(policy, batch, missing, stage, first_row)
            columns[policy.feature] = pc.if_else(missing, _stand_in(policy, column.type), column)
            if filled is not None:
                count = pc.sum(missing).as_py()
                filled[policy.feature] = filled.get(policy.feature, 0) + count
        return pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema)

    def _error(
        self, policy: Policy, batch: pa.RecordBatch, missing: pa.Array, stage: str, first_row: int
    ) -> DataError:
        places = np.flatnonzero(missing.to_numpy(zero_copy_only=False))
        row = int(places[0])
        keys = self._keys.get(policy.namespace, ())
        named = ", ".join(
            f"{key}={batch.column(key)[row].as_py()!r}" for key in keys if key in batch.schema.names
        )
        why = (
            "its policy is an error"
            if policy.rule == "error"
            else "training saw no null in it, so the model takes none"
        )
        return DataError(
            f"the feature {policy.feature!r} of {policy.namespace} is missing in {len(places):,} of "
            f"{batch.num_rows:,} rows, first in row {first_row + row}"
            f"{f' ({named})' if named else ''}: {why}",
            where=stage,
            hint="see to the feature's table, leave such rows out in the SQL, or train with another "
            "on_missing in the recipe",
        )


def moment_before(now: datetime, age: timedelta) -> pa.Scalar:
    """The time that lies `age` before; the first that there is where it would lie before that."""
    micros = (now - EPOCH) // MICROSECOND - age // MICROSECOND
    return pa.scalar(max(micros, LEAST), pa.int64()).cast(TIMESTAMP)


def _missing(column: pa.Array) -> pa.Array | None:
    """Where a column has no value; None where it has them all."""
    missing = None
    if pa.types.is_floating(column.type):
        missing = pc.is_null(column, nan_is_null=True)
    elif column.null_count:
        missing = column.is_null()
    return missing if missing is not None and missing.true_count else None


def _stand_in(policy: Policy, kind: pa.DataType) -> pa.Scalar:
    name = next((name for fits, name in KINDS if fits(kind)), "string")
    try:
        return pa.scalar(plain_value(policy.value, name), kind)
    except (ValueError, pa.ArrowException) as error:
        raise SchemaError(
            f"{policy.value!r} cannot stand in for {policy.feature!r}, which is {kind}",
            hint="correct on_missing in the recipe, and train again",
        ) from error
