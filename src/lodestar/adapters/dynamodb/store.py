"""What every online store in DynamoDB does alike, however its items are laid out."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import chain
from secrets import token_hex
from time import monotonic
from typing import Any

import pyarrow as pa

from lodestar.adapters.dynamodb.calls import DynamoDBCalls, Item
from lodestar.adapters.dynamodb.errors import RefusedError
from lodestar.adapters.dynamodb.layout import ItemLayout, require_size, text
from lodestar.adapters.dynamodb.plan import ItemsPlan
from lodestar.adapters.dynamodb.reader import DynamoDBReader
from lodestar.adapters.dynamodb.tables import Tables
from lodestar.adapters.online.rows import (
    Questions,
    Version,
    newest_by_chunk,
    watermark_of,
    watermark_text,
)
from lodestar.errors import ExternalError
from lodestar.interface.features import OnlineReader, OnlineRows, SelectedFeatures
from lodestar.settings.dynamodb import DynamoDBStore
from lodestar.settings.features import FeatureView

__all__ = ["ItemStore"]

ROWS_AT_ONCE = 1_000
WRITTEN_AT_ONCE = 25  # items of a BatchWriteItem


class ItemStore:
    """Reads up to a hundred items per request; writes a version unless a newer one is there."""

    def __init__(self, config: DynamoDBStore, layout: ItemLayout) -> None:
        self._config = config
        self._layout = layout
        self._calls = DynamoDBCalls(config)
        self.tables = Tables(self._calls, config, layout)
        self._known: tuple[Questions, ItemsPlan] | None = None

    def read(self, keys: pa.RecordBatch, selection: Sequence[SelectedFeatures]) -> OnlineRows:
        """The values of n entities; the deadline is that of a thousand rows."""
        known = self._known
        if known is None or not known[0].same(selection):
            questions = Questions(selection, self._layout.parsers)
            self._known = known = questions, self._plan(selection)
        questions, plan = known
        whose = questions.entities(keys)
        rows: list[tuple[Any, ...]] = []
        for start in range(0, len(whose) if selection else 0, ROWS_AT_ONCE):
            part = list(zip(*whose[start : start + ROWS_AT_ONCE], strict=True))
            names = plan.names(part)
            found, strange = plan.rows(names, self._items(plan, names))
            if strange:
                raise questions.strange()
            rows += found
        return questions.answered(rows if selection else [()] * len(whose))

    def write(self, view: FeatureView, rows: Iterator[pa.RecordBatch]) -> int:
        """Keep these versions, unless newer ones are there; how many were written.

        Raises:
            NotAllowedError: there is no table, and the config does not allow to make it.
            DataError: an item is larger than DynamoDB takes.
        """
        self.tables.require(view)
        put = self._put_each if self._config.writes == "conditional" else self._put_together
        return sum(put(view, chunk) for chunk in newest_by_chunk(view, rows))

    def watermark(self, view: FeatureView) -> datetime | None:
        """Until when it was materialised; None if never, or emptied since, or declared otherwise."""
        request = {
            "TableName": self._layout.table(view.namespace),
            "Key": {self._layout.key: text(self._layout.watermark_key)},
            "ConsistentRead": True,
        }
        try:
            item = self._calls.within("get_item", request).get("Item", {})
        except RefusedError as error:
            if error.table_is_missing and self._config.tables.create:
                return None
            raise
        said = item.get(self._layout.watermark, {}).get("S", "")
        return watermark_of(view, said.encode())

    def set_watermark(self, view: FeatureView, until: datetime) -> None:
        """Say so."""
        layout = self._layout
        item = {
            layout.key: text(layout.watermark_key),
            layout.watermark: text(watermark_text(view, until)),
        }
        self._calls.within("put_item", {"TableName": layout.table(view.namespace), "Item": item})

    def probe(self, view: FeatureView) -> str:
        """Put an item beside the namespace's watermark, get it, delete it."""
        layout, value = self._layout, token_hex(8)
        table = layout.table(view.namespace)
        key = {layout.key: text(f"{layout.watermark_key}:check:{token_hex(8)}")}
        item = {**key, layout.watermark: text(value)}
        self._calls.within("put_item", {"TableName": table, "Item": item})
        one = {"TableName": table, "Key": key}
        try:
            found = self._calls.within("get_item", {**one, "ConsistentRead": True}).get("Item")
        finally:
            self._calls.within("delete_item", one)
        if found != item:
            raise ExternalError(f"the table {table} does not give back what was written to it")
        return f"an item of {table} was put, read and removed"

    def forget(self, namespaces: Sequence[str]) -> None:
        """Drop the watermarks of namespaces whose rows are no longer what they were."""
        layout = self._layout
        for name in namespaces:
            key = {layout.key: text(layout.watermark_key)}
            try:
                self._calls.within("delete_item", {"TableName": layout.table(name), "Key": key})
            except RefusedError as error:
                if not error.table_is_missing:
                    raise

    def reader(self, selection: Sequence[SelectedFeatures]) -> OnlineReader:
        """Reads one selection from an event loop, in a few threads: boto3 blocks."""
        self._calls.opened  # noqa: B018 -- importing boto3 takes longer than a request may
        return DynamoDBReader(self._calls, selection, self._plan(selection))

    def close(self) -> None:
        """Close idle connections."""
        self._calls.close()
        self.tables.close()

    def _plan(self, selection: Sequence[SelectedFeatures]) -> ItemsPlan:
        return ItemsPlan(selection, self._layout, consistent=self._config.consistent_reads)

    def _items(
        self, plan: ItemsPlan, names: Sequence[Sequence[str | None]]
    ) -> list[tuple[str, Item]]:
        ends = monotonic() + self._config.timeout
        asking = [partial(self._calls.items, batch, ends) for batch in plan.requests(names)]
        return list(chain.from_iterable(self._calls.all(asking, self._config.timeout)))

    def _put_each(self, view: FeatureView, rows: Sequence[Version]) -> int:
        """Compare and set in one step on the server, item by item: BatchWriteItem takes no condition."""
        table, name_of = self._layout.table(view.namespace), self._layout.name_of(view)
        writing = []
        for row in rows:
            name = name_of(row.entity)
            item = self._layout.item(view, row, name)
            require_size(view, name, item)
            request = {"TableName": table, "Item": item, **self._layout.unless_newer(row)}
            writing.append(partial(self._put_unless_newer, request))
        return sum(self._calls.all(writing, self._longest, each=True))

    def _put_unless_newer(self, request: dict[str, Any]) -> bool:
        try:
            self._calls.ask("put_item", request, monotonic() + self._config.write_timeout)
        except RefusedError as error:
            if error.code != "ConditionalCheckFailedException":
                raise
            return False
        return True

    def _put_together(self, view: FeatureView, rows: Sequence[Version]) -> int:
        """Compare, then write 25 items per request."""
        table, name_of = self._layout.table(view.namespace), self._layout.name_of(view)
        named = {name_of(row.entity): row for row in rows}
        items = {name: self._layout.item(view, row, name) for name, row in named.items()}
        for name, item in items.items():
            require_size(view, name, item)
        plan = ItemsPlan([SelectedFeatures(view, ())], self._layout, consistent=True)
        there = {
            item[self._layout.key]["S"]: self._layout.times(item)
            for _, item in self._items(plan, [list(named)])
        }
        due = [
            {"PutRequest": {"Item": items[name]}}
            for name, row in named.items()
            if name not in there or not row.is_older_than(*there[name])
        ]
        parts = [due[at : at + WRITTEN_AT_ONCE] for at in range(0, len(due), WRITTEN_AT_ONCE)]
        writing = [partial(self._put_batch, {table: part}) for part in parts]
        self._calls.all(writing, self._longest, each=True)
        return len(due)

    def _put_batch(self, requests: dict[str, Any]) -> None:
        self._calls.put(requests, monotonic() + self._config.write_timeout)

    @property
    def _longest(self) -> float:
        """A write is tried again for so long, and its last attempt takes as long as any."""
        return self._config.write_timeout + self._config.timeout
