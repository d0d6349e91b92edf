"""Feature tables that only Feast can read, such as a bucket's or a warehouse's; the join stays ours.

Feast's own joins lose rows, mix up entities or take values that had not arrived (see
docs/point-in-time.md), so it is asked for versions alone. It gives a window's rows as one table.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa

from lodestar.core.known_versions import latest_versions
from lodestar.core.version_columns import VersionColumns
from lodestar.interface.features import TimeRange
from lodestar.settings.features import FeatureView

if TYPE_CHECKING:
    from lodestar.adapters.feast.project import FeastProject

__all__ = ["FeastTables"]

READ_ROWS = 65_536
# Clocks were never further from UTC; what is too much is left out here.
MARGIN = timedelta(days=1)
FIRST = datetime(1, 1, 1, tzinfo=UTC)


class FeastTables:
    """Reads the sources of a Feast project's views; memory grows with the versions in the window."""

    def __init__(self, repository: "FeastProject") -> None:
        self._repository = repository

    def versions(
        self, view: FeatureView, features: Sequence[str], times: TimeRange
    ) -> pa.RecordBatchReader:
        """All versions whose event time lies in the range, in any order."""
        columns = VersionColumns.of(view, features)
        table = self._pulled(view, features, times)
        columns.check(table.schema)
        batches = (
            columns.within(columns.made_canonical(batch), times)
            for batch in table.to_batches(max_chunksize=READ_ROWS)
        )
        return pa.RecordBatchReader.from_batches(columns.schema, batches)

    def latest(
        self, view: FeatureView, times: TimeRange, *, known_by: datetime
    ) -> pa.RecordBatchReader:
        """The latest version per entity."""
        with self.versions(view, tuple(view.features), times) as versions:
            return latest_versions(view, versions, known_by=known_by).to_reader(READ_ROWS)

    def _pulled(self, view: FeatureView, features: Sequence[str], times: TimeRange) -> pa.Table:
        repository = self._repository
        since = FIRST if times.since is None else times.since
        with repository.translated():
            store = repository.store
            source = repository.registered(view).batch_source
            column_of = {name: column for column, name in source.field_mapping.items()}
            job = store.provider.offline_store.pull_all_from_table_or_query(
                config=store.config,
                data_source=source,
                join_key_columns=[column_of.get(key, key) for key in view.keys],
                feature_name_columns=[column_of.get(name, name) for name in features],
                timestamp_field=source.timestamp_field,
                created_timestamp_column=source.created_timestamp_column or None,
                start_date=since if since - FIRST < MARGIN else since - MARGIN,
                end_date=times.until + MARGIN,
            )
            table: pa.Table = job.to_arrow()
        names = [source.field_mapping.get(name, name) for name in table.column_names]
        return table.rename_columns(names)
