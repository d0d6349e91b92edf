"""Reads one selection from Feast's layout in Redis, from an event loop: see `redis_reader`."""

from collections.abc import Callable, Sequence
from typing import Any

from lodestar.adapters.feast.layout import (
    COLUMN_PARSERS,
    PARSERS,
    entity_key_writer,
    event_field,
    feature_field,
)
from lodestar.adapters.online.columns import Stored, StoredColumns
from lodestar.adapters.online.entities import Asked
from lodestar.adapters.online.rows import Entity
from lodestar.interface.features import SelectedFeatures

__all__ = ["FeastLayout"]

Row = tuple[Any, ...]


class FeastLayout:
    """One hash per entity, asked for by HMGET, whatever the namespaces; nobody is not asked for."""

    def __init__(self, selection: Sequence[SelectedFeatures], project: str) -> None:
        self._asked = Asked(selection)
        self.keys = self._asked.keys
        self.columns = StoredColumns(selection, PARSERS, COLUMN_PARSERS)
        writers: dict[int, Callable[[Entity], bytes]] = {}
        fields: dict[int, list[bytes]] = {}
        self._places: list[tuple[int, slice]] = []  # of each namespace: its hash, its fields in it
        for one in selection:
            place = self._asked.place(one.view)
            writers.setdefault(place, entity_key_writer(one.view, project))
            own = [event_field(one.view), *[feature_field(one.view, f) for f in one.features]]
            asked = fields.setdefault(place, [])
            self._places.append((place, slice(len(asked), len(asked) + len(own))))
            asked += own
        self._hashes = [
            (
                writers[place],
                b"*%d\r\n$5\r\nHMGET\r\n" % (2 + len(fields[place])),
                b"".join([b"$%d\r\n%b\r\n" % (len(field), field) for field in fields[place]]),
                [None] * len(fields[place]),
            )
            for place in range(len(writers))
        ]

    def packed(self, rows: Sequence[Row]) -> tuple[bytes, int]:
        """Hash by hash, row by row."""
        pieces: list[bytes] = []
        for entities, (write, head, fields, _) in zip(
            self._asked.entities(rows), self._hashes, strict=True
        ):
            keys = [write(entity) for entity in entities if entity is not None]
            pieces += [b"%b$%d\r\n%b\r\n%b" % (head, len(key), key, fields) for key in keys]
        return b"".join(pieces), len(pieces)

    def stored(self, rows: Sequence[Row], answers: Sequence[Any]) -> Sequence[Sequence[Stored]]:
        """Cut what the hashes brought into columns."""
        coming = iter(answers)
        by_hash: list[list[Stored]] = []
        for entities, (_, _, _, nothing) in zip(
            self._asked.entities(rows), self._hashes, strict=True
        ):
            found = [nothing if entity is None else next(coming) for entity in entities]
            by_hash.append(list(zip(*found, strict=True)))
        return [by_hash[place][span] for place, span in self._places]
