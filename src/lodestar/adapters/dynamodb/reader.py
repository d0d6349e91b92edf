"""Reads one selection from DynamoDB over and over from an event loop, in a few threads."""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from time import monotonic
from typing import Any

from lodestar.adapters.dynamodb.calls import DynamoDBCalls
from lodestar.adapters.dynamodb.plan import ItemsPlan
from lodestar.adapters.online.columns import StrangeValues
from lodestar.adapters.online.entities import Asked
from lodestar.interface.features import SelectedFeatures

__all__ = ["DynamoDBReader"]

Row = tuple[Any, ...]


class DynamoDBReader:
    """An `OnlineReader`; a call is one round trip for every hundred items, and takes at most `timeout`.

    A value that is not of the declared type makes its namespace unknown in that row, and is logged.
    """

    def __init__(
        self, calls: DynamoDBCalls, selection: Sequence[SelectedFeatures], plan: ItemsPlan
    ) -> None:
        self._asked = Asked(selection)
        self.keys = self._asked.keys
        self._places = [self._asked.place(one.view) for one in selection]
        self._calls = calls
        self._plan = plan
        self._strange = StrangeValues()

    async def read(self, rows: Sequence[Row]) -> list[Row]:
        """Answer n rows.

        Raises:
            ExternalError: DynamoDB does not answer within the timeout, throttles or refuses.
        """
        if not rows or not self.keys:
            return [()] * len(rows)
        entities = self._asked.entities(rows)
        names = self._plan.names([entities[place] for place in self._places])
        requests = self._plan.requests(names)
        seconds = self._calls.timeout
        ends = monotonic() + seconds
        asking = [partial(self._calls.items, batch, ends) for batch in requests]
        answers = await self._calls.all_from_loop(asking, seconds) if asking else []
        found, strange = self._plan.rows(names, list(chain.from_iterable(answers)))
        if strange:
            self._strange.log(strange)
        return found

    async def close(self) -> None:
        """Close the connections."""
        self._calls.close()
