"""What a recipe selects, looked up among the declared namespaces."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lodestar.core.policies import RULES, plain_value
from lodestar.errors import UsageError, choices
from lodestar.interface.features import SelectedFeatures
from lodestar.settings.features import FeatureCatalog, FeatureView
from lodestar.settings.selection import FeatureChoice, FeatureSelection

__all__ = ["SelectionProblem", "select_features", "selection_problems"]

WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "string": "a text",
    "timestamp": "a time with its zone, such as 2025-01-31T00:00:00Z",
}


@dataclass(frozen=True)
class SelectionProblem:
    """What is wrong with one item of `augmenter.features`, and in which of its two keys.

    `inside` leads on from there: the place of a feature, and its key.
    """

    item: int
    key: Literal["feature_namespace", "features"]
    what: str
    hint: str
    inside: tuple[str | int, ...] = field(default=())


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
        SelectedFeatures(catalog.view(item.feature_namespace), item.names) for item in selection
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
        for position, choice in enumerate(item.features):
            name = choice.name
            if name not in view.features:
                what = f"the feature namespace {namespace!r} has no feature {name!r}"
                hint = choices(name, sorted(view.features))
                yield SelectionProblem(place, "features", what, hint, (position,))
            elif name in givers:
                both = (
                    f"the namespace {namespace!r} gives the feature {name!r} twice"
                    if givers[name] == namespace
                    else f"the namespaces {givers[name]!r} and {namespace!r} both give {name!r}"
                )
                yield SelectionProblem(place, "features", both, "select it once", (position,))
            elif name in spine_columns:
                what = (
                    f"the loader's rows have a column {name!r} already, and the namespace "
                    f"{namespace!r} would add another"
                )
                hint = "leave it out of the loader's SQL, or out of augmenter.features"
                yield SelectionProblem(place, "features", what, hint, (position,))
            else:
                misfit = _misfit(view, choice)
                if misfit is not None:
                    inside = (position, "on_missing")
                    yield SelectionProblem(place, "features", *misfit, inside)
            givers.setdefault(name, namespace)


def _misfit(view: FeatureView, choice: FeatureChoice) -> tuple[str, str] | None:
    """What is wrong with a value that is to stand in for a missing one, and what would be right."""
    given, kind = choice.on_missing, view.features[choice.name].type
    if given in RULES:
        return None
    try:
        plain_value(given, kind)
    except ValueError as error:
        what = f"{given!r} cannot stand in for {choice.name!r}, which is {kind}: {error}"
        near = choices(given, RULES) if isinstance(given, str) and kind != "string" else ""
        hint = near if near.startswith("did") else f"valid: {', '.join(RULES)}, or {WORDS[kind]}"
        return what, hint
    return None
