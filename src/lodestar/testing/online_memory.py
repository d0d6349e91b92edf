"""An online store in memory, for tests of what stands on the port."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from lodestar.errors import SchemaError
from lodestar.interface.features import OnlineRows, SelectedFeatures
from lodestar.schema import ARROW_TYPES, TIMESTAMP
from lodestar.settings.features import FeatureView

__all__ = ["MemoryOnlineStore"]


class MemoryOnlineStore:
    """Keeps everything in this process."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, tuple[Any, ...]], dict[str, Any]] = {}
        self._watermarks: dict[str, datetime] = {}

    def read(self, keys: pa.RecordBatch, selection: Sequence[SelectedFeatures]) -> OnlineRows:
        """The values of n entities."""
        columns: dict[str, pa.Array] = {}
        times: dict[str, pa.Array] = {}
        for selected in selection:
            view = selected.view
            found = [self._rows.get((view.namespace, key), {}) for key in _entities(keys, view)]
            for name in selected.features:
                kind = ARROW_TYPES[view.features[name].type]
                columns[name] = pa.array([row.get(name) for row in found], kind)
            at = [row.get(view.source.timestamp_col) for row in found]
            times[view.namespace] = pa.array(at, TIMESTAMP)
        return OnlineRows(pa.record_batch(columns), times)

    def write(self, view: FeatureView, rows: Iterator[pa.RecordBatch]) -> int:
        """Keep these versions, unless newer ones are there."""
        written = 0
        for batch in rows:
            whose = _entities(batch, view)
            for entity, row in zip(whose, batch.to_pylist(), strict=True):
                if None not in entity:
                    written += self._replace((view.namespace, entity), row, view)
        return written

    def watermark(self, view: FeatureView) -> datetime | None:
        """Until when the namespace was materialised."""
        return self._watermarks.get(view.namespace)

    def set_watermark(self, view: FeatureView, until: datetime) -> None:
        """Say so."""
        self._watermarks[view.namespace] = until

    def _replace(
        self, place: tuple[str, tuple[Any, ...]], row: dict[str, Any], view: FeatureView
    ) -> bool:
        def age(row: dict[str, Any]) -> tuple[datetime, datetime]:
            created = row.get(view.source.created_col or "")
            return row[view.source.timestamp_col], created or datetime.min.replace(tzinfo=UTC)

        old = self._rows.get(place)
        if old is not None and age(row) < age(old):
            return False
        self._rows[place] = row
        return True


def _entities(rows: pa.RecordBatch, view: FeatureView) -> list[tuple[Any, ...]]:
    for name, kind in view.entity_keys.items():
        if name not in rows.schema.names:
            raise SchemaError(f"there is no column {name!r}")
        given = rows.schema.field(name).type
        if given != (pa.int64() if kind == "int" else pa.string()):
            raise SchemaError(f"column {name!r} has the type {given} and not {kind}")
    return list(zip(*(rows.column(name).to_pylist() for name in view.keys), strict=True))
