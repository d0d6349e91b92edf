"""Parses what an online store holds for many rows, column by column, into plain tuples.

A few dozen rows at a time cost a third of what they cost one by one: the loops are the interpreter's.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from lodestar.adapters.online.rows import EVENT, Parsers
from lodestar.interface.features import SelectedFeatures

__all__ = ["ColumnParsers", "Stored", "StoredColumns", "StrangeValues"]

LOG = logging.getLogger(__name__)
# One column as it is stored, None where nothing was found.
Stored: TypeAlias = Sequence[Any]
# How a stored column becomes plain values, by type. What is not here is parsed value by value.
ColumnParsers: TypeAlias = Mapping[str, Callable[[Sequence[Any]], Sequence[Any]]]


class StoredColumns:
    """One selection's columns: per namespace its event time, then its features.

    A value that was not found, or is not of the declared type, makes its namespace unknown in its row.
    """

    def __init__(
        self, selection: Sequence[SelectedFeatures], parsers: Parsers, columns: ColumnParsers
    ) -> None:
        self._namespaces = [
            _Namespace(
                one.view.namespace,
                [EVENT, *[one.view.features[name].type for name in one.features]],
                parsers,
                columns,
            )
            for one in selection
        ]

    def rows(
        self, stored: Sequence[Sequence[Stored]]
    ) -> tuple[list[tuple[Any, ...]], tuple[str, ...]]:
        """The rows of each namespace's columns; and which namespaces hold a value of another type."""
        parsed: list[Sequence[Any]] = []
        strange: list[str] = []
        for namespace, columns in zip(self._namespaces, stored, strict=True):
            found, fits = namespace.parsed(columns)
            parsed += found
            if not fits:
                strange.append(namespace.name)
        return list(zip(*parsed, strict=True)), tuple(strange)


class StrangeValues:
    """Says once for each namespace that it holds values of another type: else every row would."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def log(self, namespaces: Sequence[str]) -> None:
        """Log those that were not told yet."""
        for name in namespaces:
            if name not in self._told:
                self._told.add(name)
                LOG.warning(
                    "the online store holds values of %s that are not of the declared type; they "
                    "count as missing: materialise again",
                    name,
                )


class _Namespace:
    def __init__(
        self, name: str, kinds: Sequence[str], parsers: Parsers, columns: ColumnParsers
    ) -> None:
        self.name = name
        self._parsers = [parsers[kind] for kind in kinds]
        self._columns = [columns.get(kind) or _each(parsers[kind]) for kind in kinds]
        self._unknown = (None,) * len(kinds)

    def parsed(self, stored: Sequence[Stored]) -> tuple[Sequence[Sequence[Any]], bool]:
        """The columns, and whether all values are of their types."""
        if len(stored[0]) == 1:
            return self._one_by_one(stored)
        try:
            for column in stored:
                if None in column:
                    return self._with_holes(stored), True
            return self._whole(stored), True
        except ValueError:
            return self._one_by_one(stored)

    def _whole(self, columns: Sequence[Any]) -> Sequence[Sequence[Any]]:
        return [parse(column) for parse, column in zip(self._columns, columns, strict=True)]

    def _with_holes(self, stored: Sequence[Stored]) -> Sequence[Sequence[Any]]:
        rows = list(zip(*stored, strict=True))
        whole = [at for at, row in enumerate(rows) if None not in row]
        found: list[list[Any]] = [[None] * len(rows) for _ in stored]
        if whole:
            parsed = self._whole(list(zip(*[rows[at] for at in whole], strict=True)))
            for column, values in zip(found, parsed, strict=True):
                for at, value in zip(whole, values, strict=True):
                    column[at] = value
        return found

    def _one_by_one(self, stored: Sequence[Stored]) -> tuple[Sequence[Sequence[Any]], bool]:
        fits = True
        rows: list[Sequence[Any]] = []
        for row in zip(*stored, strict=True):
            found: Sequence[Any] = self._unknown
            if None not in row:
                try:
                    found = [parse(v) for parse, v in zip(self._parsers, row, strict=True)]
                except ValueError:
                    fits = False
            rows.append(found)
        return list(zip(*rows, strict=True)), fits


def _each(parse: Callable[[Any], Any]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    return lambda column: [parse(value) for value in column]
