"""A Feast registry held against the declarations: what `apply` would add, change and remove."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feast import Entity, FeatureView, FileSource

from lodestar.adapters.changes import Change, Changes, Sign
from lodestar.adapters.feast.objects import FeastObjects, ours, type_of
from lodestar.errors import UsageError
from lodestar.settings.features import in_units

__all__ = ["Comparison", "compared"]

# Parts of a view after whose change the online rows are no longer what they say they are.
MEANING = ("keys", "table", "timestamp column", "created column")
FEATURE = "feature "


@dataclass(frozen=True)
class Comparison:
    """Registry and declarations side by side, by the names of views and entities.

    `gone` are removed with their online rows; `replaced` are removed so and made again; `reset` only
    lose until when they were materialised. `strays` are entities that no view has any more.
    """

    changes: Changes
    gone: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    reset: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()


def compared(before: FeastObjects, after: FeastObjects) -> Comparison:
    """Say what turns what is registered into what is declared; what others registered stays.

    Raises:
        UsageError: a declared name is registered already, by somebody else.
    """
    known = {view.name: view for view in before.views}
    items: list[Change] = []
    replaced: list[str] = []
    reset: list[str] = []
    for view in after.views:
        found = list(_changes_of(known.get(view.name), view))
        items += found
        if any(change.sign == "-/+" for change in found):
            replaced.append(view.name)
        elif any(change.what.startswith(FEATURE) for change in found):
            reset.append(view.name)
    stay = {view.name for view in after.views}
    gone = [view for view in before.views if ours(view) and view.name not in stay]
    items += [
        Change("-", view.name, "no longer declared; its online rows are removed", breaks=True)
        for view in gone
    ]
    strays = _strays(before, after, gone)
    items += _entity_changes(before, after, strays)
    names = tuple(view.name for view in gone)
    return Comparison(Changes(tuple(items)), names, tuple(replaced), tuple(reset), strays)


def _changes_of(old: FeatureView | None, new: FeatureView) -> Iterator[Change]:
    if old is None:
        names = ", ".join(feature.name for feature in new.features)
        yield Change("+", new.name, f"new, by {', '.join(new.join_keys)}: {names}")
        return
    if not ours(old):
        raise UsageError(
            f"somebody else has registered a view {new.name!r} in this Feast project",
            hint="give the namespace, or feature_store.feast.project, another name",
        )
    was, will = _said(old), _said(new)
    for name in will:
        if name not in was:
            yield Change("~", new.name, f"{name}: {will[name]}, new")
    for name in was:
        if name not in will:
            feature = _is_feature(name)
            yield Change("-" if feature else "~", new.name, f"{name}: gone", breaks=feature)
    for name in will:
        if name in was and was[name] != will[name]:
            anew = name in MEANING or _is_feature(name)
            sign: Sign = "-/+" if anew else "~"
            what = f"{name}: {will[name]}, was {was[name]}"
            yield Change(sign, new.name, what, breaks=anew)


def _is_feature(part: str) -> bool:
    return part.startswith(FEATURE)


def _said(view: FeatureView) -> dict[str, str]:
    """All that a declaration says of a view, part by part."""
    said = {f"{FEATURE}{feature.name}": type_of(feature) for feature in view.features}
    said |= {
        f"description of {feature.name}": feature.description
        for feature in view.features
        if feature.description
    }
    said |= {
        f"sensitivity of {feature.name}": "sensitive"
        for feature in view.features
        if feature.tags.get("sensitive")
    }
    said["keys"] = ", ".join(sorted(f"{key.name} {type_of(key)}" for key in view.entity_columns))
    said["ttl"] = in_units(view.ttl) if view.ttl else "none"
    source: Any = view.batch_source
    is_file = isinstance(source, FileSource)
    said["table"] = source.path if is_file else source.get_table_query_string()
    said["timestamp column"] = source.timestamp_field
    said["created column"] = source.created_timestamp_column or "none"
    return said | {"owner": view.owner or "none", "description": view.description or "none"}


def _strays(
    before: FeastObjects, after: FeastObjects, gone: Sequence[FeatureView]
) -> tuple[str, ...]:
    """Entities of ours that neither a declaration nor a view of somebody else has."""
    leaving = {view.name for view in gone} | {view.name for view in after.views}
    used = {entity.name for entity in after.entities}
    for view in before.views:
        if view.name not in leaving:
            used |= set(view.entities)
    return tuple(
        entity.name for entity in before.entities if ours(entity) and entity.name not in used
    )


def _entity_changes(
    before: FeastObjects, after: FeastObjects, strays: Sequence[str]
) -> Iterator[Change]:
    known: Mapping[str, Entity] = {entity.name: entity for entity in before.entities}
    for entity in after.entities:
        old, kind = known.get(entity.name), _kind(entity)
        if old is None:
            yield Change("+", f"entity {entity.name}", f"new, {kind}")
        elif not ours(old) and _kind(old) != kind:
            raise UsageError(
                f"somebody else has registered an entity {entity.name!r} that is {_kind(old)}, and "
                f"features/ declares it as {kind}",
                hint="give the key column, or feature_store.feast.project, another name",
            )
        elif _kind(old) != kind:
            yield Change("~", f"entity {entity.name}", f"{kind}, was {_kind(old)}")
    for name in strays:
        yield Change("-", f"entity {name}", "no namespace has it any more")


def _kind(entity: Entity) -> str:
    return {"INT64": "int", "STRING": "string"}.get(entity.value_type.name, entity.value_type.name)
