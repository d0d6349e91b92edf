# ruff: noqa: D102 -- a test says in its name what it is about
"""Contract tests for the port `OnlineReader`: it says what `OnlineStore.read` says, from an event loop.

An adapter's author subclasses the contract in a test file and says how to make a store and a reader:

```python
from lodestar.testing.online_reader import OnlineReaderContract


class TestMyReader(OnlineReaderContract):
    def store(self) -> MyStore:
        return MyStore(a_new_name())

    def reader(self, store: OnlineStore, selection: Sequence[SelectedFeatures]) -> MyReader:
        return MyReader(store.name, selection)
```
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pyarrow as pa
import pytest

from lodestar.interface.features import OnlineReader, OnlineStore, SelectedFeatures
from lodestar.testing.online import CONTRACT_VIEWS, every_feature_of, stored_rows

__all__ = ["OnlineReaderContract", "as_rows"]

KINDS, PAIRS, WORDS, WITHOUT_CREATED = CONTRACT_VIEWS
NOON = datetime(2025, 3, 30, 12, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
ODD = ("", ":", "a:b", "%", "%3A", "{}", "é", "\x00", "서울 🚀", "x" * 300, "\r\n$3\r\n")
T = TypeVar("T")
Row = tuple[Any, ...]


class OnlineReaderContract:
    """What every `OnlineReader` keeps; a subclass gives `store` and `reader`."""

    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None

    def store(self) -> OnlineStore:
        """Make a store that holds nothing yet, and that may be told of `CONTRACT_VIEWS`."""
        raise NotImplementedError

    def reader(self, store: OnlineStore, selection: Sequence[SelectedFeatures]) -> OnlineReader:
        """Make a reader of what the store holds."""
        raise NotImplementedError

    def test_it_is_asked_by_each_key_column_once_in_the_order_of_the_selection(self) -> None:
        selection = every_feature_of(WITHOUT_CREATED, PAIRS, KINDS)
        assert self.reader(self.store(), selection).keys == ("code", "left", "right")

    def test_every_kind_of_value_is_what_the_store_says(self) -> None:
        kept = [
            {"flag": True, "whole": 2**63 - 1, "number": 0.1 + 0.2, "text": "서울 🚀 \\n\n\t"},
            {"flag": False, "whole": -(2**63), "number": -5e-324, "text": ""},
            {"whole": 0, "number": float("inf"), "text": "\\", "moment": EPOCH - MICROSECOND},
            {"whole": 127, "number": -0.0, "text": "\\\\x", "moment": NOON + MICROSECOND},
            {"whole": 128, "text": "x" * 127, "moment": EPOCH},
            {"whole": -1, "text": "y" * 128, "moment": datetime(9999, 12, 31, tzinfo=UTC)},
            {},
        ]
        times = (NOON, EPOCH, EPOCH - MICROSECOND, NOON + 7 * MICROSECOND)
        rows = [
            {"code": f"c{n}", "at": times[n % len(times)], **values}
            for n, values in enumerate(kept)
        ]
        asked = [(row["code"],) for row in rows]
        store = self._holding({KINDS.namespace: rows})
        self._agree(store, every_feature_of(KINDS), asked)
        for one in asked:
            self._agree(store, every_feature_of(KINDS), [one])

    def test_nan_stays_nan(self) -> None:
        rows = [{"code": "a", "at": NOON, "number": float("nan")}]
        store = self._holding({KINDS.namespace: rows})
        ((_, number),) = self._read(store, [SelectedFeatures(KINDS, ("number",))], [("a",)])
        assert repr(number) == "nan"

    def test_who_is_unknown_or_nobody_has_nothing_and_others_have_theirs(self) -> None:
        rows = [{"left": 1, "right": 2, "at": NOON, "product": 2}]
        store = self._holding({PAIRS.namespace: rows})
        asked = [(1, 2), (2, 1), (None, 2), (1, None), (None, None), (1, 2)]
        self._agree(store, every_feature_of(PAIRS), asked)
        for one in asked:
            self._agree(store, every_feature_of(PAIRS), [one])

    def test_several_namespaces_are_read_at_once_each_by_its_own_keys(self) -> None:
        store = self._holding(
            {
                PAIRS.namespace: [{"left": 1, "right": -2, "at": NOON, "product": 2}],
                KINDS.namespace: [{"code": "x", "at": NOON, "text": "t", "whole": 300}],
                WITHOUT_CREATED.namespace: [
                    {"code": "x", "at": NOON + MICROSECOND, "size": 3},
                    {"code": "y", "at": NOON, "size": 4},
                ],
            }
        )
        selection = [
            SelectedFeatures(WITHOUT_CREATED, ("size",)),
            SelectedFeatures(PAIRS, ("product",)),
            SelectedFeatures(KINDS, ("whole", "text")),
        ]
        asked = [("x", 1, -2), ("y", 1, -2), ("?", -2, 1), (None, 1, -2), ("x", None, -2)]
        self._agree(store, selection, asked)
        by_reversed = [(code, left, right) for code, left, right in asked]
        self._agree(store, list(reversed(selection)), by_reversed)

    def test_texts_as_keys_may_hold_anything(self) -> None:
        pairs = [(first, second) for first in ODD for second in ODD]
        rows = [
            {"first": first, "second": second, "at": NOON, "joined": f"{first}|{second}"}
            for first, second in pairs
        ]
        store = self._holding({WORDS.namespace: rows})
        self._agree(store, every_feature_of(WORDS), pairs)
        sizes = [
            {"code": code, "at": NOON, "size": size}
            for size, code in enumerate((*ODD, "plain", "plainer"))
        ]
        store = self._holding({WITHOUT_CREATED.namespace: sizes})
        self._agree(store, every_feature_of(WITHOUT_CREATED), [(row["code"],) for row in sizes])

    @pytest.mark.parametrize("count", [0, 1, 64, 1_500])
    def test_any_number_of_rows_comes_in_the_order_asked(self, count: int) -> None:
        rows = [{"code": f"c{n}", "at": NOON, "whole": n, "text": f"t{n}"} for n in range(700)]
        store = self._holding({KINDS.namespace: rows})
        draw = random.Random(count)  # noqa: S311 -- which rows are asked for
        asked = [(f"c{draw.randrange(900)}",) for _ in range(count)]
        self._agree(store, every_feature_of(KINDS), asked)

    def test_a_selection_of_nothing_asks_nobody(self) -> None:
        reader = self.reader(self.store(), [])
        assert reader.keys == ()
        assert self._run(lambda: reader.read([(), ()]), reader) == [(), ()]

    def test_reads_at_the_same_time_get_each_their_own_answers(self) -> None:
        rows = [{"code": f"c{n}", "at": NOON, "whole": n} for n in range(300)]
        store = self._holding({KINDS.namespace: rows})
        reader = self.reader(store, [SelectedFeatures(KINDS, ("whole",))])

        async def ask(number: int) -> list[Any]:
            several = [(f"c{at % 300}",) for at in range(number, number + number % 7)]
            return [row[1] for row in await reader.read(several)]

        async def all_at_once() -> list[list[Any]]:
            return await asyncio.gather(*(ask(number) for number in range(200)))

        found = self._run(all_at_once, reader)
        assert found == [[at % 300 for at in range(n, n + n % 7)] for n in range(200)]

    def test_a_caller_that_goes_away_disturbs_nobody(self) -> None:
        rows = [{"code": f"c{n}", "at": NOON, "whole": n} for n in range(300)]
        store = self._holding({KINDS.namespace: rows})
        reader = self.reader(store, [SelectedFeatures(KINDS, ("whole",))])

        async def some_go_away() -> None:
            for turn in range(20):
                reads = [asyncio.ensure_future(reader.read([(f"c{n}",)])) for n in range(16)]
                if turn % 2:
                    await asyncio.sleep(0)  # so that they have been sent
                for gone in reads[turn % 3 :: 3]:
                    gone.cancel()
                found = await asyncio.gather(*reads, return_exceptions=True)
                for number, answer in enumerate(found):
                    if number % 3 == turn % 3:
                        assert isinstance(answer, asyncio.CancelledError)
                    else:
                        assert not isinstance(answer, BaseException), answer
                        assert answer[0][1] == number

        self._run(some_go_away, reader)

    def test_it_can_be_closed_twice_and_unused(self) -> None:
        reader = self.reader(self.store(), every_feature_of(KINDS))

        async def close() -> None:
            await reader.close()
            await reader.close()

        with asyncio.Runner(loop_factory=self.loop_factory) as runner:
            runner.run(close())

    def _holding(self, kept: dict[str, list[dict[str, Any]]]) -> OnlineStore:
        store = self.store()
        for view in CONTRACT_VIEWS:
            rows = kept.get(view.namespace)
            if rows:
                store.write(view, iter([stored_rows(view, rows)]))
        return store

    def _agree(
        self, store: OnlineStore, selection: Sequence[SelectedFeatures], asked: Sequence[Row]
    ) -> None:
        reader = self.reader(store, selection)
        found = self._run(lambda: reader.read(asked), reader)
        assert found == as_rows(store, selection, reader.keys, asked)

    def _read(
        self, store: OnlineStore, selection: Sequence[SelectedFeatures], asked: Sequence[Row]
    ) -> list[Row]:
        reader = self.reader(store, selection)
        return self._run(lambda: reader.read(asked), reader)

    def _run(self, use: Callable[[], Awaitable[T]], reader: OnlineReader) -> T:
        async def used() -> T:
            try:
                return await use()
            finally:
                await reader.close()

        coroutine: Coroutine[Any, Any, T] = used()
        with asyncio.Runner(loop_factory=self.loop_factory) as runner:
            return runner.run(coroutine)


def as_rows(
    store: OnlineStore,
    selection: Sequence[SelectedFeatures],
    keys: Sequence[str],
    asked: Sequence[Row],
) -> list[Row]:
    """What `OnlineStore.read` says, in the shape that a reader answers in."""
    kinds = {name: kind for one in selection for name, kind in one.view.entity_keys.items()}
    types = {"int": pa.int64(), "string": pa.string()}
    batch = pa.record_batch(
        {
            name: pa.array([row[at] for row in asked], types[kinds[name]])
            for at, name in enumerate(keys)
        }
    )
    said = store.read(batch, selection)
    columns: list[pa.Array] = []
    for one in selection:
        columns.append(said.event_times[one.view.namespace])
        columns += [said.features.column(name) for name in one.features]
    plain = [
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
        for column in columns
    ]
    return list(zip(*[column.to_pylist() for column in plain], strict=True))
