"""How fresh every namespace of an environment is: offline, online, and between the two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from lodestar.core.alerts.readings import Measured, of_features
from lodestar.core.staleness import StalenessLimits, ViewStatus, ages_of, status_of
from lodestar.errors import DataError, ExternalError, NotAllowedError, first_line
from lodestar.factory.environment import EnvironmentFactory
from lodestar.interface.features import FeatureTables, OnlineStore, TimeRange
from lodestar.interface.progress import Progress
from lodestar.schema import TIMESTAMP
from lodestar.settings.features import FeatureView
from lodestar.settings.loading import Environment
from lodestar.settings.selection import FeatureSelection

__all__ = ["FeatureStatus", "feature_status"]

MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class FeatureStatus:
    """Every namespace asked for, at a moment, and what was held against them."""

    as_of: datetime
    views: tuple[ViewStatus, ...]
    limits: StalenessLimits

    @property
    def stale(self) -> tuple[ViewStatus, ...]:
        """Those that are not fresh."""
        return tuple(view for view in self.views if view.state != "fresh")

    def measured(self) -> tuple[Measured, ...]:
        """How every namespace stands, for alert rules; it belongs to no recipe and no run."""
        return (Measured("features", "", "", of_features(self.views)),)


def feature_status(
    environment: Environment,
    namespaces: Sequence[str],
    *,
    as_of: datetime,
    limits: StalenessLimits,
    selection: Sequence[FeatureSelection] = (),
    tell: Progress,
) -> FeatureStatus:
    """Look at these namespaces (none given: all). `selection` is a recipe's, for its `max_age`.

    What cannot be reached is `unknown`, and says why.

    Raises:
        NotAllowedError: the environment has no feature store.
        UsageError: a namespace is not declared.
    """
    if environment.config.feature_store is None:
        raise NotAllowedError(
            f"{environment.name} has no feature store to look at",
            hint="APP_ENV=dev has one: lodestar infra up, then --env dev",
        )
    factory = EnvironmentFactory(environment, work="features status")
    catalog = factory.features
    views = [catalog.view(name) for name in namespaces or sorted(catalog.views)]
    ages = {one.feature_namespace: min(one.ages.values()) for one in selection if one.ages}
    look = _Look(factory.sources.tables(), factory.online_store(), as_of, ages)
    found = []
    for place, view in enumerate(views, start=1):
        tell.stage(f"Looking at {view.namespace} ({place} of {len(views)})")
        try:
            status = look.at(view)
        except (ExternalError, DataError) as error:
            found.append(ViewStatus(view.namespace, "unknown", first_line(error)))
            continue
        found.append(status_of(status, limits, served=look.store is not None))
    return FeatureStatus(as_of, tuple(found), limits)


@dataclass(frozen=True)
class _Look:
    """Reads what tells how fresh a view is."""

    tables: FeatureTables
    store: OnlineStore | None
    as_of: datetime
    max_ages: Mapping[str, timedelta]

    def at(self, view: FeatureView) -> ViewStatus:
        until = None if self.store is None else self.store.watermark(view)
        # Keys and times are what counts; one feature comes with them.
        first = next(iter(view.features))
        narrow = view.model_copy(update={"features": {first: view.features[first]}})
        served = self.as_of if self.store is None else until
        max_age = self.max_ages.get(view.namespace)
        status = ViewStatus(
            view.namespace,
            "unknown",
            "",
            materialised_until=until,
            ttl=None if view.ttl is None else view.ttl.total_seconds(),
            max_age=None if max_age is None else max_age.total_seconds(),
        )
        events: pa.ChunkedArray = pa.chunked_array([], TIMESTAMP)
        if served is not None:
            known = min(served, self.as_of)
            with self.tables.latest(narrow, TimeRange(None, known), known_by=known) as rows:
                events = rows.read_all().column(view.source.timestamp_col)
            ages = ages_of(events, self.as_of, ttl=view.ttl, max_age=max_age)
            newest = pc.max(events).as_py() if len(events) else None
            status = replace(status, ages=ages, newest_event=newest)
        if self.store is None:
            return status
        return self._with_waiting(status, narrow, until)

    def _with_waiting(
        self, status: ViewStatus, view: FeatureView, until: datetime | None
    ) -> ViewStatus:
        """Count the versions behind the watermark, and see how long the first of them has waited."""
        since = None if until is None else until + MICROSECOND
        if since is not None and since > self.as_of:
            return status
        waiting, first, newest = 0, None, status.newest_event
        with self.tables.versions(view, tuple(view.features), TimeRange(since, self.as_of)) as rows:
            for batch in rows:
                events = self._arrived(view, batch)
                if len(events):
                    ends = pc.min_max(events)
                    waiting += len(events)
                    first = min(filter(None, (first, ends["min"].as_py())))
                    newest = max(filter(None, (newest, ends["max"].as_py())))
        lag = 0.0 if first is None else (self.as_of - first).total_seconds()
        return replace(status, waiting=waiting, newest_event=newest, lag=lag)

    def _arrived(self, view: FeatureView, batch: pa.RecordBatch) -> pa.Array:
        """The event times of versions that had arrived."""
        source = view.source
        events = batch.column(source.timestamp_col)
        if source.created_col is None:
            return events.drop_null()
        known = pc.less_equal(batch.column(source.created_col), pa.scalar(self.as_of, TIMESTAMP))
        return events.filter(known).drop_null()
