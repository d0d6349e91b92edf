"""What a recipe selects, looked up among the declared namespaces."""

from collections.abc import Collection, Sequence

from lodestar.errors import UsageError, choices
from lodestar.interface.features import SelectedFeatures
from lodestar.settings.features import FeatureCatalog, FeatureView
from lodestar.settings.recipe import FeatureSelection

__all__ = ["select_features"]


def select_features(
    catalog: FeatureCatalog,
    selection: Sequence[FeatureSelection],
    *,
    spine_columns: Collection[str] = (),
) -> tuple[SelectedFeatures, ...]:
    """Look up the recipe's `{feature_namespace, features}` items, keeping their order.

    Raises:
        UsageError: a namespace or feature is not declared, or a name would stand twice in the rows:
            two namespaces give it, or the spine (`spine_columns`) has it already.
    """
    givers: dict[str, str] = {}
    selected = []
    for item in selection:
        view = catalog.view(item.feature_namespace)
        for name in item.features:
            _refuse_unknown(view, name)
            _refuse_twice(view, name, givers, spine_columns)
            givers[name] = view.namespace
        selected.append(SelectedFeatures(view, tuple(item.features)))
    return tuple(selected)


def _refuse_unknown(view: FeatureView, name: str) -> None:
    if name not in view.features:
        raise UsageError(
            f"the feature namespace {view.namespace!r} has no feature {name!r}",
            hint=choices(name, sorted(view.features)),
        )


def _refuse_twice(
    view: FeatureView, name: str, givers: dict[str, str], spine_columns: Collection[str]
) -> None:
    if name in givers:
        both = (
            f"the namespace {view.namespace!r} gives the feature {name!r} twice"
            if givers[name] == view.namespace
            else f"the namespaces {givers[name]!r} and {view.namespace!r} both give {name!r}"
        )
        raise UsageError(f"augmenter.features: {both}", hint="select it once")
    if name in spine_columns:
        raise UsageError(
            f"the loader's rows have a column {name!r} already, and the namespace "
            f"{view.namespace!r} would add another",
            hint="leave it out of the loader's SQL, or out of augmenter.features",
        )
