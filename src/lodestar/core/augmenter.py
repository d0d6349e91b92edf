"""Adds features to the spine; one class, the run mode decides where they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from lodestar.errors import SchemaError
from lodestar.schema import Column, FrameSchema

# The artifact carries this file, and no settings: it passes rows through.
if TYPE_CHECKING:
    from lodestar.interface.features import FeatureStoreAdapter, SelectedFeatures
    from lodestar.settings.features import FeatureCatalog

__all__ = ["Augmenter", "RunMode"]

RunMode = Literal["batch", "serving"]


@dataclass(frozen=True)
class _Binding:
    """A feature store, and what is asked of it."""

    store: FeatureStoreAdapter
    selected: tuple[SelectedFeatures, ...]
    timestamp: str


class Augmenter:
    """The recipe's choice of features: `{feature_namespace, features}` per namespace.

    Without a feature store rows pass through: they are expected to have the features already, from
    `data/snapshots/` or from whoever calls the artifact.
    """

    def __init__(self, selection: Sequence[Mapping[str, Any]] = ()) -> None:
        self.selection = tuple(selection)
        self._binding: _Binding | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """The names of all selected features, in order."""
        return tuple(name for item in self.selection for name in item["features"])

    def bound(
        self, store: FeatureStoreAdapter, catalog: FeatureCatalog, *, timestamp: str
    ) -> Augmenter:
        """The same choice, taken from an environment's feature store.

        Raises:
            UsageError: a namespace or feature that is not declared.
        """
        from lodestar.core.features import select_features
        from lodestar.settings.recipe import FeatureSelection

        selection = [FeatureSelection.model_validate(dict(item)) for item in self.selection]
        other = Augmenter(self.selection)
        other._binding = _Binding(store, select_features(catalog, selection), timestamp)
        return other

    @contextmanager
    def augment(
        self,
        rows: pa.RecordBatchReader,
        *,
        run_mode: RunMode = "batch",
        now: datetime | None = None,
    ) -> Iterator[pa.RecordBatchReader]:
        """Rows out = rows in, in order, with the features behind their columns.

        `batch` joins them as they were known at each row's timestamp; `serving` takes those of
        `now`. Rows that have every selected feature already pass through.

        Raises:
            SchemaError: the rows lack features that nothing adds, or keys to add them by.
        """
        binding = self._binding
        if binding is None or set(self.features) <= set(rows.schema.names):
            self.check(rows.schema, run_mode=run_mode)
            yield rows
        elif run_mode == "batch":
            with binding.store.historical(
                rows, binding.selected, timestamp=binding.timestamp
            ) as joined:
                yield joined
        else:
            yield _present(rows, binding, now)

    def check(self, schema: pa.Schema, *, run_mode: RunMode = "batch") -> None:
        """See that the selected features are among the columns.

        Raises:
            SchemaError: naming those that are not.
        """
        missing = [name for name in self.features if name not in schema.names]
        if missing:
            raise SchemaError(
                f"the rows lack the features {', '.join(missing)}, and this environment has no "
                f"feature store to take them from ({run_mode})",
                hint="LOCAL takes them from data/snapshots/<recipe>.parquet",
            )


def _present(
    rows: pa.RecordBatchReader, binding: _Binding, now: datetime | None
) -> pa.RecordBatchReader:
    columns = tuple(
        Column(name, selected.view.features[name].type, nullable=True)
        for selected in binding.selected
        for name in selected.features
    )
    schema = pa.schema([*rows.schema, *FrameSchema(columns).arrow()])

    def answered() -> Iterator[pa.RecordBatch]:
        for batch in rows:
            found = binding.store.online(batch, binding.selected, now=now).features
            arrays = [*batch.columns, *(found.column(column.name) for column in columns)]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, answered())
