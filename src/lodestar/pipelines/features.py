"""What is declared: whether it fits its tables, the registry, bringing the online store up to date."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Protocol

from lodestar.adapters.changes import Changes
from lodestar.errors import DataError, ExternalError, NotAllowedError, SchemaError
from lodestar.factory.environment import EnvironmentFactory
from lodestar.interface.features import FeatureTables, TimeRange
from lodestar.interface.progress import Progress
from lodestar.settings.features import FeatureView
from lodestar.settings.loading import Environment

__all__ = [
    "ListedFeatures",
    "ListedView",
    "MaterializedView",
    "PlannedFeatures",
    "apply_features",
    "list_features",
    "materialize",
    "plan_features",
]

# No row is read to see a table's columns.
NEVER = TimeRange(None, datetime(1, 1, 1, tzinfo=UTC))


class Declared(Protocol):
    """What is kept as the declarations say: a Feast registry, or the online store's own tables."""

    @property
    def project(self) -> str:
        """Which one, in words."""
        ...

    def diff(self) -> Changes:
        """What `apply` would do; nothing is changed."""
        ...

    def apply(self, agreed: Changes) -> object:
        """Do what was agreed."""
        ...


@dataclass(frozen=True)
class ListedView:
    """A namespace, and until when the online store has it; `unknown` says why that cannot be told."""

    view: FeatureView
    watermark: datetime | None
    unknown: str = ""


@dataclass(frozen=True)
class ListedFeatures:
    """All namespaces; of a team's own Feast repository also the views that are not, and why."""

    views: tuple[ListedView, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedFeatures:
    """Declarations that fit their tables, and what `apply_features` would tell the registry.

    `keeps` may be the online store's own tables instead. `project` is None where there is neither: the
    declarations are all there is then.
    """

    project: str | None
    namespaces: int
    changes: Changes
    declared: Declared | None = field(repr=False)
    keeps: Literal["registry", "tables"] = "registry"


@dataclass(frozen=True)
class MaterializedView:
    """How many entities of a namespace were written, and until when the store has it now."""

    namespace: str
    entities: int
    until: datetime


def list_features(environment: Environment) -> ListedFeatures:
    """Every namespace, in the order of names."""
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
    team = factory.sources.team
    return ListedFeatures(tuple(listed), {} if team is None else team.left_out)


def plan_features(environment: Environment, *, tell: Progress) -> PlannedFeatures:
    """Hold declarations to their tables, and what is kept for them to them; nothing is written.

    Raises:
        NotAllowedError: the environment has no feature store, a team's own repository, or may not make
            the tables that are missing.
        SchemaError: declarations do not fit their tables, every one of them.
        UsageError: something in the registry is somebody else's.
        ExternalError: the tables or the registry cannot be reached.
    """
    factory = EnvironmentFactory(environment, work="features apply")
    if factory.feature_store is None:
        raise NotAllowedError(
            f"{environment.name} has no feature store to apply to",
            hint="APP_ENV=dev has one: lodestar infra up, then --env dev",
        )
    sources = factory.sources
    if sources.team is not None:
        raise NotAllowedError(
            "this Feast repository is kept by its own definitions",
            hint=f"run feast apply in {sources.team.folder}",
        )
    views = [view for _, view in sorted(factory.features.views.items())]
    tell.stage("Holding the declarations to their tables")
    _require_fit(sources.tables(), views)
    declared: Declared | None = sources.feast or sources.declared_tables
    if declared is None:
        return PlannedFeatures(None, len(views), Changes(), None)
    keeps: Literal["registry", "tables"] = "tables" if sources.feast is None else "registry"
    tell.stage(f"Comparing the {keeps} with them")
    return PlannedFeatures(declared.project, len(views), declared.diff(), declared, keeps)


def apply_features(plan: PlannedFeatures, *, tell: Progress) -> None:
    """Do what was planned.

    Raises:
        UsageError: the registry has changed meanwhile.
        ExternalError: the registry or the online store cannot be reached.
    """
    if plan.declared is None or not plan.changes.items:
        return
    tell.stage(f"Writing the {plan.keeps}")
    plan.declared.apply(plan.changes)


def _require_fit(tables: FeatureTables, views: Sequence[FeatureView]) -> None:
    problems = []
    for view in views:
        try:
            tables.versions(view, tuple(view.features), NEVER)
        except DataError as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        listed = "\n  ".join(str(problem).replace("\n", "\n  ") for problem in problems)
        raise SchemaError(
            f"{len(problems)} of {len(views)} declarations do not fit their tables:\n  {listed}",
            hint="correct features/*.yaml or the tables; nothing was applied",
        )


def materialize(
    environment: Environment,
    namespaces: Sequence[str],
    *,
    until: datetime,
    since: datetime | None = None,
    tell: Progress,
) -> tuple[MaterializedView, ...]:
    """Bring these namespaces (none given: all) up to `until`; killed half way, do it again.

    With `since` only versions from then on are looked at.

    Raises:
        NotAllowedError: the environment has no feature store.
        UsageError: a namespace is not declared, or `since` leaves out what the store does not have.
        ExternalError: the offline or the online store does not answer.
    """
    factory = EnvironmentFactory(environment, work="features materialize")
    store = factory.feature_store
    if store is None or factory.online_store() is None:
        raise NotAllowedError(
            f"{environment.name} has no online store to materialise into",
            hint="APP_ENV=dev has one: lodestar infra up, then --env dev",
        )
    catalog = factory.features
    views = [catalog.view(name) for name in namespaces or sorted(catalog.views)]
    done = []
    for place, view in enumerate(views, start=1):
        tell.stage(f"Materialising {view.namespace} ({place} of {len(views)})")
        entities = store.materialize(view, until=until, since=since, tell=tell)
        done.append(MaterializedView(view.namespace, entities, until))
    return tuple(done)
