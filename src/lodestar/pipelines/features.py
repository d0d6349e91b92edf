"""The online store's side of features: what is declared, and bringing the store up to date."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lodestar.errors import ExternalError, NotAllowedError
from lodestar.factory import EnvironmentFactory
from lodestar.interface.features import FeatureStoreAdapter
from lodestar.interface.progress import Progress
from lodestar.settings.features import FeatureView
from lodestar.settings.loading import Environment

__all__ = ["ListedView", "MaterializedView", "list_features", "materialize"]


@dataclass(frozen=True)
class ListedView:
    """A namespace, and until when the online store has it; `unknown` says why that cannot be told."""

    view: FeatureView
    watermark: datetime | None
    unknown: str = ""


@dataclass(frozen=True)
class MaterializedView:
    """How many entities of a namespace were written, and until when the store has it now."""

    namespace: str
    entities: int
    until: datetime


def list_features(environment: Environment) -> tuple[ListedView, ...]:
    """Every declared namespace, in the order of names."""
    factory = EnvironmentFactory(environment)
    store = factory.online_store()
    listed = []
    for _, view in sorted(factory.features.views.items()):
        if store is None:
            listed.append(ListedView(view, None, "no online store here"))
            continue
        try:
            listed.append(ListedView(view, store.watermark(view)))
        except ExternalError as error:
            listed.append(ListedView(view, None, error.what))
    return tuple(listed)


def materialize(
    environment: Environment,
    namespaces: Sequence[str],
    *,
    until: datetime,
    tell: Progress,
) -> tuple[MaterializedView, ...]:
    """Bring these namespaces (none given: all) up to `until`; killed half way, do it again.

    Raises:
        NotAllowedError: the environment has no feature store.
        UsageError: a namespace is not declared.
        ExternalError: the offline or the online store does not answer.
    """
    factory = EnvironmentFactory(environment)
    store = factory.feature_store
    if store is None or factory.online_store() is None:
        raise NotAllowedError(
            f"{environment.name} has no online store to materialise into",
            hint="APP_ENV=dev has one: lodestar infra up, then --env dev",
        )
    catalog = factory.features
    views = [catalog.view(name) for name in namespaces or sorted(catalog.views)]
    return tuple(_materialized(store, view, until, tell) for view in views)


def _materialized(
    store: FeatureStoreAdapter, view: FeatureView, until: datetime, tell: Progress
) -> MaterializedView:
    tell.stage(f"Materialising {view.namespace}")
    return MaterializedView(view.namespace, store.materialize(view, until=until, tell=tell), until)
