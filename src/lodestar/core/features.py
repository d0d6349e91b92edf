"""What a recipe selects, looked up among the declared namespaces."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lodestar.errors import UsageError, choices
from lodestar.interface.features import SelectedFeatures
from lodestar.settings.features import FeatureCatalog
from lodestar.settings.recipe import FeatureSelection

__all__ = ["SelectionProblem", "select_features", "selection_problems"]


@dataclass(frozen=True)
class SelectionProblem:
    """What is wrong with one item of `augmenter.features`, and in which of its two keys."""

    item: int
    key: Literal["feature_namespace", "features"]
    what: str
    hint: str


def select_features(
    catalog: FeatureCatalog,
    selection: Sequence[FeatureSelection],
    *,
    spine_columns: Collection[str] = (),
) -> tuple[SelectedFeatures, ...]:
    """Look up the recipe's `{feature_namespace, features}` items, keeping their order.

    Raises:
        UsageError: the first of `selection_problems`.
    """
    problem = next(selection_problems(catalog, selection, spine_columns=spine_columns), None)
    if problem is not None:
        where = f"augmenter.features[{problem.item}].{problem.key}"
        raise UsageError(problem.what, where=where, hint=problem.hint)
    return tuple(
        SelectedFeatures(catalog.view(item.feature_namespace), tuple(item.features))
        for item in selection
    )


def selection_problems(
    catalog: FeatureCatalog,
    selection: Sequence[FeatureSelection],
    *,
    spine_columns: Collection[str] = (),
) -> Iterator[SelectionProblem]:
    """Namespaces and features that are not declared, and names that would stand twice in the rows.

    They would where two namespaces give one name, or the spine (`spine_columns`) has it already.
    """
    givers: dict[str, str] = {}
    for place, item in enumerate(selection):
        namespace = item.feature_namespace
        view = catalog.views.get(namespace)
        if view is None:
            what = f"no feature namespace {namespace!r} is declared in features/"
            hint = choices(namespace, sorted(catalog.views)) if catalog.views else "write its file"
            yield SelectionProblem(place, "feature_namespace", what, hint)
            continue
        for name in item.features:
            if name not in view.features:
                what = f"the feature namespace {namespace!r} has no feature {name!r}"
                hint = choices(name, sorted(view.features))
                yield SelectionProblem(place, "features", what, hint)
            elif name in givers:
                both = (
                    f"the namespace {namespace!r} gives the feature {name!r} twice"
                    if givers[name] == namespace
                    else f"the namespaces {givers[name]!r} and {namespace!r} both give {name!r}"
                )
                yield SelectionProblem(place, "features", both, "select it once")
            elif name in spine_columns:
                what = (
                    f"the loader's rows have a column {name!r} already, and the namespace "
                    f"{namespace!r} would add another"
                )
                hint = "leave it out of the loader's SQL, or out of augmenter.features"
                yield SelectionProblem(place, "features", what, hint)
            givers.setdefault(name, namespace)
