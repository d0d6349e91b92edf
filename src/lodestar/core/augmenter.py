"""Adds features to the spine; one class, the run mode decides where they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from lodestar.core.filling import BatchPolicies, moment_before
from lodestar.errors import SchemaError
from lodestar.schema import Column, FrameSchema

# The artifact carries this file, and no settings: it passes rows through.
if TYPE_CHECKING:
    from lodestar.interface.features import FeatureStoreAdapter, OnlineRows, SelectedFeatures
    from lodestar.settings.features import FeatureCatalog

__all__ = ["Augmenter", "RunMode"]

RunMode = Literal["batch", "serving"]


@dataclass(frozen=True)
class _Binding:
    """A feature store, and what is asked of it; `ages` are how old features may be."""

    store: FeatureStoreAdapter
    selected: tuple[SelectedFeatures, ...]
    timestamp: str
    ages: Mapping[str, timedelta]


class Augmenter:
    """The recipe's choice of features: `{feature_namespace, features, policies}` per namespace.

    Without a feature store rows pass through: they are expected to have the features already, from
    `data/snapshots/` or from whoever calls the artifact. What stands in for a missing feature, or that
    it is an error, is the same everywhere: see `core/policies.py`. `trained` is the schema of the
    model's inputs; without it, as in training, nulls stay that no policy fills or refuses.
    """

    def __init__(
        self, selection: Sequence[Mapping[str, Any]] = (), trained: FrameSchema | None = None
    ) -> None:
        self.selection = tuple(selection)
        self._trained = trained
        self._policies = BatchPolicies(self.selection, trained)
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
        from lodestar.settings.selection import FeatureSelection

        selection = [FeatureSelection.model_validate(dict(item)) for item in self.selection]
        selected = select_features(catalog, selection)
        ages = {name: age for item in selection for name, age in item.ages.items()}
        other = Augmenter(self.selection, self._trained)
        keys = {one.view.namespace: one.view.keys for one in selected}
        other._policies = BatchPolicies(self.selection, self._trained, keys)
        other._binding = _Binding(store, selected, timestamp, ages)
        return other

    @contextmanager
    def augment(
        self,
        rows: pa.RecordBatchReader,
        *,
        run_mode: RunMode = "batch",
        now: datetime | None = None,
        filled: MutableMapping[str, int] | None = None,
        first_row: int = 0,
    ) -> Iterator[pa.RecordBatchReader]:
        """Rows out = rows in, in order, with the features behind their columns.

        `batch` joins them as they were known at each row's timestamp; `serving` takes those of
        `now`. Rows that have every selected feature already pass through. `filled` counts, per feature,
        the rows in which a policy's value stands in. `first_row` numbers passing rows in errors.

        Raises:
            SchemaError: the rows lack features that nothing adds, or keys to add them by.
            DataError: a feature is missing, and its policy is an error.
        """
        binding = self._binding
        if binding is None or set(self.features) <= set(rows.schema.names):
            self.check(rows.schema, run_mode=run_mode)
            yield self._settled(rows, run_mode, filled, first_row)
        elif run_mode == "batch":
            with binding.store.historical(
                rows, _aged(binding), timestamp=binding.timestamp
            ) as joined:
                names = [*rows.schema.names, *self.features]
                yield self._settled(_in_order(joined, names), run_mode, filled)
        else:
            present = _present(rows, binding, now or datetime.now(UTC))
            yield self._settled(present, run_mode, filled)

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

    def bytes_read(self, schema: pa.Schema) -> int | None:
        """What a warehouse reads at most to add the features; None where none does, or for nothing."""
        from lodestar.interface.features import SaysJoinsCost

        binding = self._binding
        if binding is None or set(self.features) <= set(schema.names):
            return None
        store = binding.store
        return (
            store.bytes_read(_aged(binding), schema) if isinstance(store, SaysJoinsCost) else None
        )

    def settled(self, batch: pa.RecordBatch, *, run_mode: RunMode = "batch") -> pa.RecordBatch:
        """A batch that has its features, after the policies for missing ones.

        Raises:
            DataError: a feature is missing, and its policy is an error.
        """
        return self._policies.settled(self._typed(batch), stage=_stage(run_mode))

    def _typed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Columns of nothing but nulls get training's type: a frame of one row knows no better."""
        trained = {} if self._trained is None else {f.name: f for f in self._trained.arrow()}
        for name in self.features:
            column, field = batch.column(name), trained.get(name)
            if field is not None and column.null_count == len(column):
                at = batch.schema.get_field_index(name)
                batch = batch.set_column(at, field, pa.nulls(len(column), field.type))
        return batch

    def _settled(
        self,
        rows: pa.RecordBatchReader,
        run_mode: RunMode,
        filled: MutableMapping[str, int] | None,
        first_row: int = 0,
    ) -> pa.RecordBatchReader:
        if self._policies.idle:
            return rows

        def batches() -> Iterator[pa.RecordBatch]:
            first = first_row
            for batch in rows:
                yield self._policies.settled(
                    batch, stage=_stage(run_mode), first_row=first, filled=filled
                )
                first += batch.num_rows

        return pa.RecordBatchReader.from_batches(rows.schema, batches())


def _stage(run_mode: RunMode) -> str:
    return f"augmenting ({run_mode})"


def _aged(binding: _Binding) -> tuple[SelectedFeatures, ...]:
    """What to join: a feature that may be less old than its view's ttl is asked for with that one."""
    found: list[SelectedFeatures] = []
    for one in binding.selected:
        by_age: dict[timedelta | None, list[str]] = {}
        for name in one.features:
            limits = [age for age in (one.view.ttl, binding.ages.get(name)) if age is not None]
            by_age.setdefault(min(limits, default=None), []).append(name)
        for age, names in by_age.items():
            view = one.view if age == one.view.ttl else one.view.model_copy(update={"ttl": age})
            found.append(replace(one, view=view, features=tuple(names)))
    return tuple(found)


def _in_order(rows: pa.RecordBatchReader, names: Sequence[str]) -> pa.RecordBatchReader:
    if rows.schema.names == names:
        return rows
    schema = pa.schema([rows.schema.field(name) for name in names])
    return pa.RecordBatchReader.from_batches(schema, (batch.select(names) for batch in rows))


def _present(rows: pa.RecordBatchReader, binding: _Binding, now: datetime) -> pa.RecordBatchReader:
    columns = tuple(
        Column(name, selected.view.features[name].type, nullable=True)
        for selected in binding.selected
        for name in selected.features
    )
    schema = pa.schema([*rows.schema, *FrameSchema(columns).arrow()])

    def answered() -> Iterator[pa.RecordBatch]:
        for batch in rows:
            found = binding.store.online(batch, binding.selected, now=now)
            arrays = [*batch.columns, *_fresh(found, binding, now)]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, answered())


def _fresh(found: OnlineRows, binding: _Binding, now: datetime) -> Iterator[pa.Array]:
    """The features' columns; null where a value is older than it may be."""
    for selected in binding.selected:
        for name in selected.features:
            column, age = found.features.column(name), binding.ages.get(name)
            if age is not None:
                times = found.event_times[selected.view.namespace]
                late = pc.less(times, moment_before(now, age))
                column = pc.if_else(late, pa.scalar(None, column.type), column)
            yield column
