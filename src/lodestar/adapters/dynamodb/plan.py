"""One selection, worked out once: which items are asked for, a hundred at a time, and what they hold."""

from collections.abc import Sequence
from typing import Any

from lodestar.adapters.dynamodb.calls import Item, Requests
from lodestar.adapters.dynamodb.layout import MOST_KEY_BYTES, ItemLayout
from lodestar.adapters.online.columns import Stored, StoredColumns
from lodestar.adapters.online.rows import Entity
from lodestar.interface.features import SelectedFeatures

__all__ = ["ItemsPlan"]

AT_ONCE = 100  # items of a BatchGetItem


class ItemsPlan:
    """Entities come namespace by namespace, one per row, None for nobody's."""

    def __init__(
        self, selection: Sequence[SelectedFeatures], layout: ItemLayout, *, consistent: bool
    ) -> None:
        self._layout = layout
        self._columns = StoredColumns(selection, layout.parsers, {})
        self._asked = [
            (
                layout.table(one.view.namespace),
                layout.name_of(one.view),
                one.features,
                {**_projection(layout, one), "ConsistentRead": consistent},
            )
            for one in selection
        ]

    def names(self, entities: Sequence[Sequence[Entity | None]]) -> list[list[str | None]]:
        """The entities' keys; a key that is too long for DynamoDB is nobody's."""
        return [
            [None if one is None else _kept(name_of(one)) for one in whose]
            for (_, name_of, _, _), whose in zip(self._asked, entities, strict=True)
        ]

    def requests(self, names: Sequence[Sequence[str | None]]) -> list[Requests]:
        """Batches that ask for each item once, over all tables."""
        key = self._layout.key
        wanted = [
            (place, name)
            for place, whose in enumerate(names)
            for name in dict.fromkeys(whose)
            if name is not None
        ]
        batches: list[Requests] = []
        for start in range(0, len(wanted), AT_ONCE):
            batch: dict[str, Any] = {}
            for place, name in wanted[start : start + AT_ONCE]:
                table, _, _, how = self._asked[place]
                batch.setdefault(table, {"Keys": [], **how})["Keys"].append({key: {"S": name}})
            batches.append(batch)
        return batches

    def rows(
        self, names: Sequence[Sequence[str | None]], items: Sequence[tuple[str, Item]]
    ) -> tuple[list[tuple[Any, ...]], tuple[str, ...]]:
        """Each row's values; and which namespaces hold a value of another type."""
        key = self._layout.key
        found = {(table, item[key]["S"]): item for table, item in items}
        stored: list[Sequence[Stored]] = []
        for (table, _, features, _), whose in zip(self._asked, names, strict=True):
            nothing = [None] * (1 + len(features))
            values = []
            for name in whose:
                item = found.get((table, name)) if name is not None else None
                values.append(nothing if item is None else self._layout.stored(features, item))
            stored.append(list(zip(*values, strict=True)))
        return self._columns.rows(stored)


def _projection(layout: ItemLayout, selected: SelectedFeatures) -> dict[str, Any]:
    """What of the items is asked for; to ask for all of it by name costs more than it saves."""
    every = len(selected.features) == len(selected.view.features)
    return {} if every else layout.projection(selected.features)


def _kept(name: str) -> str | None:
    """A name as long as DynamoDB takes; a longer one would make it refuse all of a batch."""
    fits = len(name) * 4 <= MOST_KEY_BYTES or len(name.encode()) <= MOST_KEY_BYTES
    return name if fits else None
