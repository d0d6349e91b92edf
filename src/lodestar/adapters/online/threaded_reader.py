"""Any online store behind the port `OnlineReader`: its own blocking read, in a few threads."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from lodestar.errors import DataError, ExternalError, SchemaError
from lodestar.interface.features import OnlineStore, SelectedFeatures

__all__ = ["ThreadedReader"]

THREADS = 4
KEY_TYPES = {"int": pa.int64(), "string": pa.string()}


class ThreadedReader:
    """Reads one selection by the store's `read`, which may be called by several threads at once.

    A read ends after `timeout` seconds, also where all threads are taken; the thread's own read ends by
    the store's deadline, and nobody waits for it. `closing` closes the store.
    """

    def __init__(
        self,
        store: OnlineStore,
        selection: Sequence[SelectedFeatures],
        *,
        timeout: float = 1.0,
        threads: int = THREADS,
        closing: Callable[[], None] | None = None,
    ) -> None:
        kinds = {
            name: KEY_TYPES[kind]
            for one in selection
            for name, kind in one.view.entity_keys.items()
        }
        self.keys = tuple(kinds)
        self._schema = pa.schema(list(kinds.items()))
        self._store = store
        self._selection = tuple(selection)
        self._width = sum(1 + len(one.features) for one in selection)
        self._timeout = timeout
        self._closing = closing
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="online-store")

    async def read(self, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Answer n rows.

        Raises:
            ExternalError: the store does not answer in time, or refuses.
        """
        if not rows or not self.keys:
            return [()] * len(rows)
        reading = asyncio.get_running_loop().run_in_executor(self._pool, self._answers, rows)
        try:
            await asyncio.wait((reading,), timeout=self._timeout)
            if not reading.done():
                raise ExternalError(
                    f"the online store did not answer within {self._timeout:g} s",
                    hint="is it overloaded, stopped or firewalled?",
                )
            return reading.result()
        finally:
            reading.cancel()

    async def close(self) -> None:
        """Close the store; reads that are still waiting for a thread are cancelled."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._closing is not None:
            self._closing()

    def _answers(self, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """What the store says; a row with a value that is not of the declared type is unknown."""
        try:
            return self._asked(rows)
        except SchemaError:
            raise
        except DataError:
            if len(rows) == 1:
                return [(None,) * self._width]
        return [self._answers([row])[0] for row in rows]

    def _asked(self, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        columns = [
            pa.array(values, field.type)
            for values, field in zip(zip(*rows, strict=True), self._schema, strict=True)
        ]
        found = self._store.read(
            pa.RecordBatch.from_arrays(columns, schema=self._schema), self._selection
        )
        plain: list[list[Any]] = []
        for one in self._selection:
            plain.append(_plain(found.event_times[one.view.namespace]))
            plain += [_plain(found.features.column(name)) for name in one.features]
        return list(zip(*plain, strict=True))


def _plain(column: pa.Array) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return list(column.to_pylist())
