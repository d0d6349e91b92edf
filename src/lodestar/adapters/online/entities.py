"""Whose features are asked for: each row's entities, and what an entity is called in an online store.

An entity's text is its key values joined by ":"; within a value `%`, `:`, `{` and `}` stand as `%25` …,
and an empty text as a single `%`, so that no two entities share one.
"""

import re
from collections.abc import Sequence
from typing import Any

from lodestar.adapters.online.rows import Entity
from lodestar.interface.features import SelectedFeatures
from lodestar.settings.features import FeatureView

__all__ = ["NOBODY", "Asked", "entity_text", "entity_texts"]

NOBODY = "%null"  # what stands for an entity of which a key is null: nobody's name
SPECIAL = re.compile("[%:{}]").search
ESCAPES = str.maketrans({"%": "%25", ":": "%3A", "{": "%7B", "}": "%7D"})


def entity_text(entity: Entity) -> str:
    """An entity's name."""
    return ":".join([str(value).translate(ESCAPES) or "%" for value in entity])


def entity_texts(entities: Sequence[Entity | None]) -> list[bytes]:
    """The names of many entities; nobody's has no values."""
    if all(entity is not None and len(entity) == 1 for entity in entities):
        plain = [str(value) for (value,) in entities]  # type: ignore[misc]  # none of them is None
        if "" not in plain and SPECIAL("".join(plain)) is None:
            return [text.encode() for text in plain]
    return [(NOBODY if one is None else entity_text(one)).encode() for one in entities]


class Asked:
    """Which keys a selection is asked by; namespaces of the same keys share their entities."""

    def __init__(self, selection: Sequence[SelectedFeatures]) -> None:
        self.keys = tuple(dict.fromkeys(key for one in selection for key in one.view.keys))
        distinct = dict.fromkeys(one.view.keys for one in selection)
        self._places = {keys: place for place, keys in enumerate(distinct)}
        self._columns = [[self.keys.index(key) for key in keys] for keys in distinct]

    def place(self, view: FeatureView) -> int:
        """Which of `entities` are the view's."""
        return self._places[view.keys]

    def entities(self, rows: Sequence[tuple[Any, ...]]) -> list[list[Entity | None]]:
        """Per distinct keys each row's entity; None where a part of it is null."""
        columns = list(zip(*rows, strict=True))
        found = [zip(*[columns[at] for at in places], strict=True) for places in self._columns]
        return [[None if None in entity else entity for entity in whose] for whose in found]
