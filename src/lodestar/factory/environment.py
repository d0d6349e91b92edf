"""From config to objects: all that an environment gives, whatever the recipe."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lodestar.adapters.files.rows import path_of
from lodestar.adapters.registry import (
    SQL_READERS,
    URI_READERS,
    WRITERS,
    adapter,
    scheme_of,
)
from lodestar.artifact.contents import ArtifactContents
from lodestar.artifact.store import RunStore
from lodestar.artifact.wrapper import PyfuncWrapper
from lodestar.core.augmenter import Augmenter
from lodestar.core.feature_store import ComposedFeatureStore
from lodestar.core.roles import Roles
from lodestar.errors import UsageError
from lodestar.execution.local_parts import LocalParts
from lodestar.factory.features import FeatureSources, joining
from lodestar.interface.data import FrameWriter, MayBeMissing, SpineReader
from lodestar.interface.features import (
    FeatureStoreAdapter,
    MakesReaders,
    OnlineReader,
    OnlineStore,
    SelectedFeatures,
)
from lodestar.interface.parts import Division, PartExecutor, ScorerSource
from lodestar.settings.config import Batch, Data
from lodestar.settings.features import FeatureCatalog, FeatureView
from lodestar.settings.loading import ConfigPlace, Environment
from lodestar.sql import Query

__all__ = ["EnvironmentFactory", "Loader", "Spine"]


@dataclass(frozen=True)
class Loader:
    """What makes the spine: a query, or a data URI. One of the two is given."""

    recipe: str
    query: Query | None
    uri: str | None


@dataclass(frozen=True)
class Spine:
    """Where the rows come from, and what the user should know about that."""

    reader: SpineReader
    notes: tuple[str, ...] = ()


class EnvironmentFactory:
    """Objects that depend on the environment alone: all that running an artifact needs."""

    def __init__(self, environment: Environment, *, work: str = "") -> None:
        """`work` is what servers list our sessions under, such as `train uplift_model_exp3`."""
        self._environment = environment
        self._config = environment.config
        self._project = environment.project
        self._data = _named(environment.config.data, work)

    def store(self) -> RunStore:
        """Runs and artifacts."""
        return RunStore(self._config.mlflow, self._project, self._environment.name)

    def spine(self, loader: Loader, params: Mapping[str, str]) -> Spine:
        """A snapshot stands in for loader and features where one exists, as rows pass through.

        Raises:
            UsageError: parameters that nothing could apply.
        """
        snapshot = self._snapshot_of(loader)
        if snapshot is not None:
            if params:
                raise UsageError(
                    f"{snapshot} stands in for the loader, so --context-params cannot select rows",
                    hint="leave them out, or move the snapshot away to run the recipe's SQL",
                )
            note = f"{snapshot} stands in for the recipe's loader and features"
            return Spine(self.reader(snapshot), (note,))
        if loader.query is not None:
            return Spine(self.sql_reader(loader.query, params))
        if params:
            raise UsageError("a data URI takes no --context-params", hint="leave them out")
        return Spine(self.reader(loader.uri or ""))

    def sql_reader(self, query: Query, params: Mapping[str, str]) -> SpineReader:
        """Rows of a query, run by whatever runs SQL here."""
        reader = adapter(SQL_READERS, self._config.data.adapter, what="data.adapter")
        found: SpineReader = reader(self._data, self._project, query, query.bind(params))
        return found

    def spine_columns(self, loader: Loader) -> Spine:
        """The same spine for its columns alone, which need no parameters."""
        hidden = self._snapshot_of(loader) is not None or loader.query is None
        names = () if hidden or loader.query is None else loader.query.parameters
        return self.spine(loader, dict.fromkeys(names, ""))

    def _snapshot_of(self, loader: Loader) -> str | None:
        """The snapshot that stands in for the loader, where features are not joined here."""
        if self._config.environment.augmenter == "feature_store":
            return None
        snapshot = f"{self._config.data.snapshots.rstrip('/')}/{loader.recipe}.parquet"
        return snapshot if self._is_there(snapshot) else None

    def _is_there(self, uri: str) -> bool:
        if scheme_of(uri) in {"", "file"}:
            return path_of(uri, self._project).is_file()
        reader = self.reader(uri)
        if not isinstance(reader, MayBeMissing):
            raise UsageError(
                f"data.snapshots: there is no telling whether {uri} is there",
                hint="keep snapshots in files or in an object store",
            )
        return reader.exists()

    def reader(self, uri: str) -> SpineReader:
        """Rows of a data URI."""
        found: SpineReader = adapter(URI_READERS, scheme_of(uri), what="the URI scheme")(
            self._data, self._project, uri
        )
        return found

    def writer(self, destination: str) -> FrameWriter:
        """Whatever writes to destinations of this kind; relative ones are below the project."""
        writer = adapter(WRITERS, scheme_of(destination), what="the URI scheme")
        found: FrameWriter = writer(self._data, self._project)
        return found

    def probe_studies(self) -> str | None:
        """Try out the database of searches, in words; None where they are kept in files, or off.

        Raises:
            UsageError: its URL cannot be read.
            ExternalError: it cannot be used.
        """
        section = self._config.hyperparameter_tuning
        storage = section.storage.get_secret_value()
        if not (section.enabled and "://" in storage):
            return None
        from lodestar.adapters.studies.keeper import probe_database

        return probe_database(storage, self._project)

    @property
    def distributes(self) -> bool:
        """Whether work is done by others than this process."""
        return self._config.execution.engine != "local"

    def division(self, size: Batch, roles: Roles) -> Division:
        """How a batch's rows are divided among those who score them."""
        by = self._config.execution.partition_by
        place = ConfigPlace(self._project, self._environment.name)
        return Division(
            size.chunk_rows,
            size.part_rows,
            by=by,
            keys=roles.entity_keys,
            place=place,
            numbered=not roles.carried,
        )

    @contextmanager
    def part_executor(self, source: ScorerSource) -> Iterator[PartExecutor]:
        """Whatever scores the parts of a batch.

        Raises:
            ExternalError: what should do it is not there.
        """
        if not self.distributes:
            yield LocalParts(source)
            return
        from lodestar.execution.ray_parts import ray_parts

        with ray_parts(source, self._config.execution.ray) as executor:
            yield executor

    @property
    def features(self) -> FeatureCatalog:
        """The namespaces that recipes can take from."""
        return self.sources.catalog

    @cached_property
    def sources(self) -> FeatureSources:
        """What the config's feature store stands for."""
        return FeatureSources(self._config.feature_store, self._data, self._project)

    @cached_property
    def feature_store(self) -> FeatureStoreAdapter | None:
        """This environment's feature store; None where rows pass through."""
        section = self._config.feature_store
        if self._config.environment.augmenter == "pass_through" or section is None:
            return None
        tables = self.sources.tables()
        return ComposedFeatureStore(tables, joining(tables), self.online_store())

    @property
    def joined_by(self) -> str:
        """What joins features to rows of the past here."""
        store = self.feature_store
        if store is None:
            return "nobody: the rows came with them"
        return f"{type(joining(self.sources.tables())).__module__} over {self.sources.engine}"

    def online_store(self) -> OnlineStore | None:
        """What the environment serves features from; None where it declares nothing."""
        return self.sources.online_store()

    def online_reader(self, selection: Sequence[SelectedFeatures]) -> OnlineReader | None:
        """What reads a selection from an event loop; None where there is no online store."""
        store = self.online_store()
        if store is None or isinstance(store, MakesReaders):
            return None if store is None else store.reader(selection)
        from lodestar.adapters.online.threaded_reader import ThreadedReader

        return ThreadedReader(store, selection)

    def bound(self, wrapper: PyfuncWrapper) -> Augmenter:
        """The artifact's augmenter, taking its features from this environment's store.

        It goes by the declarations that the artifact was trained with; one trained where nothing was
        declared goes by the project's.
        """
        augmenter, store = wrapper.trained_augmenter, self.feature_store
        if store is None or not augmenter.selection:
            return augmenter
        timestamp = wrapper.contents.training_methodology["event_timestamp_col"]
        return augmenter.bound(store, self.catalog_of(wrapper.contents), timestamp=timestamp)

    def catalog_of(self, contents: ArtifactContents) -> FeatureCatalog:
        """The declarations that an artifact goes by."""
        views = contents.augmenter_config_snapshot.get("views")
        return self.features if views is None else _catalog(views)


def _named(data: Data, work: str) -> Data:
    """The section, the name of its servers' sessions with what they are for."""
    servers = {"postgres": data.postgres, "snowflake": data.snowflake, "bigquery": data.bigquery}
    named = {
        key: one.model_copy(update={"application_name": f"{one.application_name} {work}"})
        for key, one in servers.items()
        if one is not None and work
    }
    return data.model_copy(update=named)


def _catalog(views: Mapping[str, Any]) -> FeatureCatalog:
    return FeatureCatalog({name: FeatureView.model_validate(view) for name, view in views.items()})
