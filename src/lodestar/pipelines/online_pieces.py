"""What an environment takes from outside, each piece with what tries it out."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

from lodestar.errors import ExternalError
from lodestar.factory.environment import EnvironmentFactory
from lodestar.interface.data import SpineReader
from lodestar.interface.features import FeatureTables, OnlineStore
from lodestar.interface.parts import Division, PartitionedReader
from lodestar.interface.probing import ProbesNamespace, ProbesPlace
from lodestar.pipelines.check import check
from lodestar.pipelines.features import NEVER
from lodestar.settings.features import FeatureView
from lodestar.settings.loading import Environment, Settings
from lodestar.settings.permissions import check_exposure
from lodestar.sql import parse_query

__all__ = ["OnlinePieces", "Piece", "Said", "State"]

State = Literal["fine", "failed", "not in this config", "cannot be checked"]
_NO_STORE = "no feature store is declared"


@dataclass(frozen=True)
class Said:
    """How a piece is, and what is to be known about it."""

    state: State
    words: str


@dataclass(frozen=True)
class Piece:
    """One thing that has to work; `where` is the config's key that it comes from."""

    name: str
    where: str
    work: Callable[[], Said]


class OnlinePieces:
    """The pieces of one environment; those of namespaces are known once `declarations` was tried."""

    def __init__(self, environment: Environment, settings: Settings | None) -> None:
        self._environment = environment
        self._config = environment.config
        self._settings = settings
        self._factory = EnvironmentFactory(environment, work="check")
        self._views: Mapping[str, FeatureView] | None = None

    def of_stores(self) -> Iterator[Piece]:
        """Where runs, artifacts and the loader's rows are, and the recipe, if one was named."""
        store, adapter = self._factory.store(), self._config.data.adapter
        yield Piece(
            "tracking store", "mlflow.tracking_uri", lambda: _fine(store.probe("experiment"))
        )
        yield Piece("artifacts", "mlflow.artifact_root", lambda: _fine(store.probe("artifacts")))
        yield Piece(f"data in {adapter}", "data.adapter", self._data)
        bigquery = self._config.data.bigquery
        if adapter == "bigquery" and bigquery is not None and bigquery.export_root is not None:
            yield Piece("exports", "data.bigquery.export_root", self._exports)
        if (settings := self._settings) is not None:
            name = settings.loaded.name
            yield Piece(f"recipe {name}", f"recipes/{name}.yaml", partial(_recipe, settings))
        yield Piece("feature declarations", "features/", self._declarations)

    def of_features(self) -> Iterator[Piece]:
        """Each namespace's table, what is kept of the declarations, each namespace's online rows."""
        views = self._views
        if self._config.feature_store is None or not views:
            yield from self._without_namespaces()
            return
        for name, view in sorted(views.items()):
            yield Piece(f"table of {name}", "feature_store.offline", partial(self._table, view))
        yield Piece("feature registry", "feature_store", self._registry)
        for name, view in sorted(views.items()):
            yield Piece(f"online rows of {name}", "feature_store", partial(self._online, view))

    def of_results(self) -> Iterator[Piece]:
        """Where results, snapshots and searches go, and whom the API would answer."""
        for name, key, place in (
            ("results", "output.root", self._config.output.root),
            ("snapshots", "data.snapshots", self._config.data.snapshots),
        ):
            yield Piece(name, key, partial(self._place, place))
        yield Piece("studies", "hyperparameter_tuning.storage", self._studies)
        yield Piece("serving", "serving", self._serving)

    def _one_row(self) -> SpineReader:
        query = parse_query("SELECT 1 AS one", "postgres", where="check")
        return self._factory.sql_reader(query, {})

    def _exports(self) -> Said:
        """The same row, as workers read it."""
        reader = self._one_row()
        if not isinstance(reader, PartitionedReader):
            return Said("cannot be checked", f"{type(reader).__name__} gives no parts")
        with reader.parts(Division(chunk_rows=1, part_rows=1)) as divided:
            batches = [batch for part in divided.parts or () for batch in part.read()]
        rows = [list(row.values()) for batch in batches for row in batch.to_pylist()]
        if rows != [[1]]:
            raise ExternalError(f"SELECT 1 AS one, exported, gives {rows}")
        return _fine("a row was exported, read and removed")

    def _data(self) -> Said:
        reader = self._one_row()
        with reader.read(chunk_rows=1) as batches:
            rows = batches.read_all().to_pylist()
        if [list(row.values()) for row in rows] != [[1]]:
            raise ExternalError(f"SELECT 1 AS one gives {rows}")
        return _fine("answers SELECT 1")

    def _declarations(self) -> Said:
        self._views = self._factory.features.views
        return _fine(", ".join(sorted(self._views)) or "no namespace")

    def _without_namespaces(self) -> Iterator[Piece]:
        if self._config.feature_store is None:
            said = Said("not in this config", _NO_STORE)
        elif self._views is None:
            said = Said("cannot be checked", "the declarations cannot be read, see above")
        else:
            said = Said("cannot be checked", "no namespace is declared in features/")
        for name, key in (
            ("feature tables", "feature_store.offline"),
            ("online store", "feature_store"),
        ):
            yield Piece(name, key, lambda: said)

    @cached_property
    def _tables(self) -> FeatureTables:
        return self._factory.sources.tables()

    @cached_property
    def _store(self) -> OnlineStore | None:
        return self._factory.online_store()

    def _table(self, view: FeatureView) -> Said:
        """Ports of tables find table and columns before they give a row."""
        with self._tables.versions(view, tuple(view.features), NEVER):
            return _fine(f"{view.source.table}: the table and all columns declared are there")

    def _registry(self) -> Said:
        sources = self._factory.sources
        if sources.team is not None:
            return _fine("a team's own, which gave the declarations")
        kept = sources.feast or sources.declared_tables
        if kept is None:
            return Said("not in this config", "this online store keeps none")
        due = len(kept.diff().items)
        return _fine(f"{due} changes are due: lodestar features apply" if due else "as declared")

    def _online(self, view: FeatureView) -> Said:
        store = self._store
        if store is None:
            return Said("not in this config", "no online store is declared")
        if not isinstance(store, ProbesNamespace):
            return Said("cannot be checked", f"{type(store).__name__} has no probe")
        words, until = store.probe(view), store.watermark(view)
        if until is None:
            return _fine(f"{words}; never materialised: lodestar features materialize")
        return _fine(f"{words}; materialised until {until:%Y-%m-%d %H:%M:%S} UTC")

    def _place(self, place: str) -> Said:
        writer = self._factory.writer(place)
        if not isinstance(writer, ProbesPlace):
            return Said("cannot be checked", f"{type(writer).__name__} has no probe")
        return _fine(f"{place}: {writer.probe(place)}")

    def _studies(self) -> Said:
        words = self._factory.probe_studies()
        if words is None:
            return Said("not in this config", "the search is off, or keeps its studies in files")
        return _fine(words)

    def _serving(self) -> Said:
        serving = self._config.serving
        if self._config.environment.serving == "blocked":
            return Said("not in this config", "environment.serving is blocked")
        check_exposure(serving)
        who = "whoever says who they are" if serving.authentication.required else "this machine"
        return _fine(f"would answer {who} on {serving.host}")


def _recipe(settings: Settings) -> Said:
    checked = check(settings)
    return _fine(f"{checked.task}, {checked.columns} columns, {checked.features} features")


def _fine(words: str) -> Said:
    return Said("fine", words)
