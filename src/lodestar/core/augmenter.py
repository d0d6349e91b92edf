"""Adds features to the spine; one class, the run mode decides where they come from."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from lodestar.errors import SchemaError

__all__ = ["Augmenter", "RunMode"]

RunMode = Literal["batch", "serving"]


class Augmenter:
    """The recipe's choice of features: `{feature_namespace, features}` per namespace.

    Rows pass through: an environment without a feature store expects the features in the rows
    themselves, from `data/snapshots/` or from whoever calls the artifact.
    """

    def __init__(self, selection: Sequence[Mapping[str, Any]] = ()) -> None:
        self.selection = tuple(selection)

    def augment(self, rows: pa.RecordBatch, *, run_mode: RunMode = "batch") -> pa.RecordBatch:
        """Rows out = rows in, in order.

        Raises:
            SchemaError: the rows lack selected features.
        """
        self.check(rows.schema, run_mode=run_mode)
        return rows

    def check(self, schema: pa.Schema, *, run_mode: RunMode = "batch") -> None:
        """See that the selected features are among the columns.

        Raises:
            SchemaError: naming those that are not.
        """
        selected = [name for item in self.selection for name in item["features"]]
        missing = [name for name in selected if name not in schema.names]
        if missing:
            raise SchemaError(
                f"the rows lack the features {', '.join(missing)}, and this environment has no "
                f"feature store to take them from ({run_mode})",
                hint="LOCAL takes them from data/snapshots/<recipe>.parquet",
            )
