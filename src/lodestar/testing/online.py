# ruff: noqa: D102 -- a test says in its name what it is about
"""Contract tests for the port `OnlineStore`, and a store in memory for tests of what stands on it.

An adapter's author subclasses the contract in a test file and says how to make a store:

```python
import pytest

from lodestar.testing.online import OnlineStoreContract


class TestMyStore(OnlineStoreContract):
    @pytest.fixture(autouse=True)
    def _server(self, my_server: MyServer) -> None:
        self.server = my_server

    def store(self) -> MyStore:
        return MyStore(self.server.uri, table=a_new_name())
```

A guarantee that a backend cannot keep is overridden with `pytest.skip(reason)`, in sight.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from lodestar.errors import SchemaError
from lodestar.interface.features import OnlineRows, OnlineStore, SelectedFeatures
from lodestar.interface.probing import ProbesNamespace
from lodestar.schema import ARROW_TYPES, TIMESTAMP
from lodestar.settings.features import FeatureView
from lodestar.testing.online_memory import MemoryOnlineStore

__all__ = [
    "CONTRACT_VIEWS",
    "MemoryOnlineStore",
    "OnlineStoreContract",
    "every_feature_of",
    "stored_rows",
]

NOON = datetime(2025, 3, 30, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def _view(namespace: str, keys: Mapping[str, str], features: Mapping[str, str]) -> FeatureView:
    source = {"table": namespace, "created_col": "arrived_at", "timestamp_col": "happened_at"}
    if namespace == "without_created":
        del source["created_col"]
    return FeatureView.model_validate(
        {
            "namespace": namespace,
            "entity_keys": dict(keys),
            "source": source,
            "features": dict(features),
        }
    )


KINDS = _view(
    "every_kind",
    {"code": "string"},
    {"flag": "bool", "whole": "int", "number": "float", "text": "string", "moment": "timestamp"},
)
PAIRS = _view("of_pairs", {"left": "int", "right": "int"}, {"product": "int"})
WORDS = _view("of_words", {"first": "string", "second": "string"}, {"joined": "string"})
WITHOUT_CREATED = _view("without_created", {"code": "string"}, {"size": "int"})
# For a store that must be told of namespaces before it keeps them.
CONTRACT_VIEWS = (KINDS, PAIRS, WORDS, WITHOUT_CREATED)


def stored_rows(view: FeatureView, rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Rows as `FeatureTables.latest` gives them; what a row leaves out is null.

    The time columns may be called `at` and `created`, whatever the view calls them.
    """
    source = view.source
    kinds: dict[str, Any] = {
        name: pa.int64() if kind == "int" else pa.string()
        for name, kind in view.entity_keys.items()
    }
    kinds[source.timestamp_col] = TIMESTAMP
    if source.created_col:
        kinds[source.created_col] = TIMESTAMP
    kinds |= {name: ARROW_TYPES[feature.type] for name, feature in view.features.items()}
    short = {source.timestamp_col: "at", source.created_col or "": "created"}
    return pa.record_batch(
        {
            name: pa.array([row.get(name, row.get(short.get(name, name))) for row in rows], kind)
            for name, kind in kinds.items()
        }
    )


def every_feature_of(*views: FeatureView) -> list[SelectedFeatures]:
    """Select all that the namespaces have."""
    return [SelectedFeatures(view, tuple(view.features)) for view in views]


def _keys(view: FeatureView, *entities: object) -> pa.RecordBatch:
    rows = [entity if isinstance(entity, tuple) else (entity,) for entity in entities]
    return pa.record_batch(
        {
            name: pa.array(
                [row[position] for row in rows],
                pa.int64() if view.entity_keys[name] == "int" else pa.string(),
            )
            for position, name in enumerate(view.keys)
        }
    )


class OnlineStoreContract:
    """What every `OnlineStore` keeps; a subclass gives `store`.

    `many`: so many entities are more than one request takes; fewer where the server is slow.
    """

    many = 2_500

    def store(self) -> OnlineStore:
        """Make a store that holds nothing yet, and that may be told of `CONTRACT_VIEWS`."""
        raise NotImplementedError

    def again(self, store: OnlineStore) -> OnlineStore:
        """Open the same store once more, as another process would; the same object by default."""
        return store

    @pytest.mark.parametrize(
        "values",
        [
            {"flag": True, "whole": 2**63 - 1, "number": 0.1 + 0.2, "text": "서울 🚀 \\n\n\t"},
            {"flag": False, "whole": -(2**63), "number": -5e-324, "text": ""},
            {"flag": True, "whole": 0, "number": float("inf"), "text": "\\"},
            {"flag": False, "whole": -1, "number": -1.7976931348623157e308, "text": "null"},
            {"flag": True, "whole": 2**53 + 1, "number": 1e22, "text": " 12 \x00"},
            {"moment": datetime(2025, 3, 30, 1, 59, 59, 999_999, tzinfo=UTC)},
            {"moment": datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC)},
            {"moment": datetime(1, 1, 1, tzinfo=UTC)},
            {"moment": datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)},
        ],
    )
    def test_every_kind_of_value_comes_back_exactly(self, values: dict[str, Any]) -> None:
        rows = self._kept(KINDS, [{"code": "a", "at": NOON, **values}], "a")
        assert rows.features.schema.types == [ARROW_TYPES[f.type] for f in KINDS.features.values()]
        (row,) = rows.features.to_pylist()
        assert {name: row[name] for name in values} == values
        assert {name: type(row[name]) for name in values} == {
            name: type(value) for name, value in values.items()
        }

    def test_minus_zero_and_nan_are_kept_apart_from_zero_and_null(self) -> None:
        numbers = [0.0, -0.0, float("nan"), None]
        rows = [{"code": str(n), "at": NOON, "number": x} for n, x in enumerate(numbers)]
        read = self._kept(KINDS, rows, "0", "1", "2", "3").features.column("number")
        assert [repr(value) for value in read.to_pylist()] == ["0.0", "-0.0", "nan", "None"]

    def test_a_namespace_that_is_probed_is_as_it_was(self) -> None:
        store = self.store()
        if not isinstance(store, ProbesNamespace):
            pytest.skip("it has no probe: check --online says that it cannot be checked")
        assert store.probe(PAIRS)
        assert store.watermark(PAIRS) is None
        rows = [{"left": 1, "right": 2, "at": NOON, "product": 2}]
        store.write(PAIRS, iter([stored_rows(PAIRS, rows)]))
        store.set_watermark(PAIRS, NOON)
        assert store.probe(PAIRS)
        assert store.watermark(PAIRS) == NOON
        read = store.read(_keys(PAIRS, (1, 2), (0, 0)), every_feature_of(PAIRS))
        assert read.features.column("product").to_pylist() == [2, None]

    def test_a_null_is_a_value_that_the_store_knows(self) -> None:
        rows = self._kept(KINDS, [{"code": "a", "at": NOON}], "a", "b")
        assert [set(row.values()) for row in rows.features.to_pylist()] == [{None}, {None}]
        assert rows.event_times["every_kind"].to_pylist() == [NOON, None]

    def test_an_unknown_entity_has_neither_features_nor_an_event_time(self) -> None:
        rows = self._kept(PAIRS, [{"left": 1, "right": 2, "at": NOON, "product": 2}], (2, 1))
        assert rows.features.to_pylist() == [{"product": None}]
        assert rows.event_times["of_pairs"].to_pylist() == [None]
        assert rows.event_times["of_pairs"].type == TIMESTAMP

    def test_a_row_with_a_null_key_is_unknown(self) -> None:
        kept = [{"left": 1, "right": 0, "at": NOON, "product": 7}]
        rows = self._kept(PAIRS, kept, (1, None), (None, None), (1, 0))
        assert rows.features.column("product").to_pylist() == [None, None, 7]

    def test_rows_come_in_the_order_of_the_keys_each_as_often_as_asked(self) -> None:
        kept = [
            {"left": n, "right": -n, "at": NOON + n * MICROSECOND, "product": n} for n in (1, 2)
        ]
        rows = self._kept(PAIRS, kept, (2, -2), (1, -1), (3, -3), (2, -2), (1, -1))
        assert rows.features.column("product").to_pylist() == [2, 1, None, 2, 1]
        wanted = [NOON + n * MICROSECOND if n else None for n in (2, 1, 0, 2, 1)]
        assert rows.event_times["of_pairs"].to_pylist() == wanted

    def test_entities_of_several_keys_are_never_mixed_up(self) -> None:
        pairs = [(1, 11), (11, 1), (-1, 1), (1, -1), (0, 0), (2**63 - 1, -(2**63))]
        kept = [
            {"left": left, "right": right, "at": NOON, "product": number}
            for number, (left, right) in enumerate(pairs)
        ]
        rows = self._kept(PAIRS, kept, *pairs)
        assert rows.features.column("product").to_pylist() == list(range(len(pairs)))

    def test_texts_as_keys_may_hold_anything(self) -> None:
        odd = [
            "",
            ":",
            "a:b",
            "a",
            "b:c",
            "c",
            "%",
            "%3A",
            "{",
            "}",
            "{}",
            "é",
            "e\u0301",
            "\x00",
            " ",
        ]
        pairs = [(first, second) for first in odd for second in odd]
        kept = [
            {"first": first, "second": second, "at": NOON, "joined": f"{first}|{second}"}
            for first, second in pairs
        ]
        rows = self._kept(WORDS, kept, *pairs)
        assert rows.features.column("joined").to_pylist() == [row["joined"] for row in kept]

    def test_an_older_version_never_replaces_a_newer_one(self) -> None:
        store = self.store()
        for at, whole in ((NOON, 1), (NOON - MICROSECOND, 2), (NOON - timedelta(days=999), 3)):
            self._write(store, KINDS, [{"code": "a", "at": at, "whole": whole, "created": NOON}])
        assert self._whole(store, "a") == [1]

    def test_of_equal_event_times_the_last_created_stays(self) -> None:
        store = self.store()
        for minutes, whole in ((5, 1), (9, 2), (7, 3)):
            created = NOON + timedelta(minutes=minutes)
            row = {"code": "a", "at": NOON, "whole": whole, "created": created}
            self._write(store, KINDS, [row])
        assert self._whole(store, "a") == [2]

    def test_a_newer_version_replaces_the_whole_older_one(self) -> None:
        store = self.store()
        self._write(store, KINDS, [{"code": "a", "at": NOON, "whole": 1, "text": "old"}])
        self._write(store, KINDS, [{"code": "a", "at": NOON + MICROSECOND, "whole": 2}])
        (row,) = self._read(store, KINDS, "a").features.to_pylist()
        assert (row["whole"], row["text"]) == (2, None)

    def test_versions_of_one_entity_may_come_in_any_order_in_one_write(self) -> None:
        store = self.store()
        rows = [
            {"code": "a", "at": NOON + n * MICROSECOND, "whole": n, "created": NOON}
            for n in (3, 1, 9, 2, 8)
        ]
        self._write(store, KINDS, rows)
        assert self._whole(store, "a") == [9]

    def test_event_times_before_1970_are_in_order_too(self) -> None:
        store = self.store()
        old = datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
        for at, whole in ((old, 1), (old - timedelta(days=400), 2), (old - MICROSECOND, 3)):
            self._write(store, KINDS, [{"code": "a", "at": at, "whole": whole}])
        assert self._whole(store, "a") == [1]
        assert self._read(store, KINDS, "a").event_times["every_kind"].to_pylist() == [old]

    def test_writing_twice_changes_nothing(self) -> None:
        store = self.store()
        rows = [{"code": str(n), "at": NOON, "whole": n, "created": NOON} for n in range(5)]
        counts = [self._write(store, KINDS, rows) for _ in range(2)]
        assert counts[0] == len(rows)
        assert self._whole(store, *map(str, range(5))) == list(range(5))

    def test_a_table_without_created_times_keeps_the_latest_event(self) -> None:
        store = self.store()
        for minutes, size in ((5, 1), (4, 2), (5, 3)):
            at = NOON + timedelta(minutes=minutes)
            self._write(store, WITHOUT_CREATED, [{"code": "a", "at": at, "size": size}])
        rows = self._read(store, WITHOUT_CREATED, "a")
        assert rows.features.to_pylist() == [{"size": 3}]

    def test_no_rows_are_written_as_none(self) -> None:
        store = self.store()
        assert store.write(KINDS, iter(())) == 0
        assert store.write(KINDS, iter([stored_rows(KINDS, [])])) == 0

    def test_the_watermark_is_none_until_it_is_set_and_then_stays(self) -> None:
        store = self.store()
        self._write(store, KINDS, [{"code": "a", "at": NOON}])
        assert store.watermark(KINDS) is None
        until = NOON + MICROSECOND
        store.set_watermark(KINDS, until)
        other = self.again(store)
        assert other.watermark(KINDS) == until
        assert other.watermark(PAIRS) is None
        store.set_watermark(KINDS, until + timedelta(days=1))
        assert other.watermark(KINDS) == until + timedelta(days=1)

    def test_another_process_reads_what_was_written(self) -> None:
        store = self.store()
        self._write(store, KINDS, [{"code": "a", "at": NOON, "whole": 5}])
        assert self._whole(self.again(store), "a") == [5]

    def test_several_namespaces_are_read_at_once_each_by_its_own_keys(self) -> None:
        store = self.store()
        self._write(store, PAIRS, [{"left": 1, "right": 2, "at": NOON, "product": 2}])
        self._write(store, WITHOUT_CREATED, [{"code": "x", "at": NOON + MICROSECOND, "size": 3}])
        keys = pa.record_batch({"code": ["x", "?"], "right": [2, 2], "left": [1, 1]})
        selection = [
            SelectedFeatures(WITHOUT_CREATED, ("size",)),
            SelectedFeatures(KINDS, ("text", "flag")),
            SelectedFeatures(PAIRS, ("product",)),
        ]
        rows = store.read(keys, selection)
        assert rows.features.to_pylist() == [
            {"size": 3, "text": None, "flag": None, "product": 2},
            {"size": None, "text": None, "flag": None, "product": 2},
        ]
        assert {name: times.to_pylist() for name, times in rows.event_times.items()} == {
            "without_created": [NOON + MICROSECOND, None],
            "every_kind": [None, None],
            "of_pairs": [NOON, NOON],
        }

    def test_features_come_in_the_order_of_the_selection(self) -> None:
        store = self.store()
        self._write(store, KINDS, [{"code": "a", "at": NOON, "text": "t", "whole": 1}])
        selection = [SelectedFeatures(KINDS, ("text", "number", "whole"))]
        rows = store.read(_keys(KINDS, "a"), selection)
        assert rows.features.schema.names == ["text", "number", "whole"]
        assert rows.features.to_pylist() == [{"text": "t", "number": None, "whole": 1}]

    @pytest.mark.parametrize("few", [0, 1, None])
    def test_any_number_of_entities_is_read_and_written(self, few: int | None) -> None:
        count = self.many if few is None else few
        store = self.store()
        rows = [{"code": f"c{n}", "at": NOON, "whole": n, "text": f"t{n}"} for n in range(count)]
        batch = stored_rows(KINDS, rows)
        batches = (batch.slice(start, 700) for start in range(0, count, 700))
        assert store.write(KINDS, batches) == count
        read = self._read(store, KINDS, *(row["code"] for row in rows))
        assert read.features.num_rows == count
        assert read.features.column("whole").to_pylist() == list(range(count))
        assert read.features.column("text").to_pylist() == [row["text"] for row in rows]
        assert len(read.event_times["every_kind"]) == count

    def test_writers_at_the_same_time_leave_the_newest_version(self) -> None:
        store = self.store()
        codes = [str(n) for n in range(10)]
        steps = [step * 37 % 80 for step in range(80)]  # each once, in no order

        def write(step: int) -> None:
            values = {"at": NOON + step * MICROSECOND, "whole": step, "text": f"{step}"}
            self._write(self.again(store), KINDS, [{"code": code, **values} for code in codes])

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(write, steps))
        rows = self._read(store, KINDS, *codes).features
        assert rows.column("whole").to_pylist() == [79] * 10
        assert rows.column("text").to_pylist() == ["79"] * 10

    def test_a_key_column_that_is_missing_or_of_another_type_is_named(self) -> None:
        store = self.store()
        selection = every_feature_of(PAIRS)
        with pytest.raises(SchemaError, match="'right'"):
            store.read(pa.record_batch({"left": [1]}), selection)
        with pytest.raises(SchemaError, match="'right'"):
            store.read(pa.record_batch({"left": [1], "right": ["1"]}), selection)

    def _kept(
        self, view: FeatureView, rows: Sequence[Mapping[str, Any]], *asked: object
    ) -> OnlineRows:
        store = self.store()
        self._write(store, view, rows)
        return self._read(store, view, *asked)

    @staticmethod
    def _write(store: OnlineStore, view: FeatureView, rows: Sequence[Mapping[str, Any]]) -> int:
        return store.write(view, iter([stored_rows(view, rows)]))

    @staticmethod
    def _read(store: OnlineStore, view: FeatureView, *asked: object) -> OnlineRows:
        return store.read(_keys(view, *asked), every_feature_of(view))

    def _whole(self, store: OnlineStore, *codes: str) -> list[int]:
        column = self._read(store, KINDS, *codes).features.column("whole")
        return [int(value) for value in column.to_pylist()]
