"""Feast's online stores other than Redis, such as PostgreSQL, through Feast's own code.

Feast knows no deadline, so its calls run on a thread of their own that is given up when it is late,
with everything it held. It replaces newer versions by older ones, so event times are compared before
a write; when a version was created cannot be read back, so of equal event times the last written stays.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateError
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, TypeVar

import pyarrow as pa

from lodestar.adapters.feast.layout import PARSERS, time_bytes, value_bytes
from lodestar.adapters.feast.project import FeastProject, close_connections
from lodestar.adapters.online.rows import Entity, Questions, Version, newest_by_chunk
from lodestar.adapters.online.threaded_reader import ThreadedReader
from lodestar.errors import ExternalError
from lodestar.interface.features import OnlineReader, OnlineRows, SelectedFeatures
from lodestar.settings.features import FeatureView

__all__ = ["FeastProviderStore"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
T = TypeVar("T")


class FeastProviderStore:
    """One caller at a time: Feast's stores share one connection."""

    def __init__(self, repository: FeastProject) -> None:
        # Feast hands PostgreSQL times without a zone, which are read in the session's.
        os.environ.setdefault("PGTZ", "UTC")
        self._repository = repository
        self._turn = threading.Lock()

    def read(self, keys: pa.RecordBatch, selection: Sequence[SelectedFeatures]) -> OnlineRows:
        """The values of n entities, a query per namespace."""
        questions = Questions(selection, PARSERS)
        whose = questions.entities(keys)
        columns = [
            self._found(one.view, one.features, [row[position] for row in whose])
            for position, one in enumerate(questions.asked)
        ]
        rows = [
            questions.parsed(list(chain.from_iterable(row))) for row in zip(*columns, strict=True)
        ]
        return questions.answered(rows)

    def write(self, view: FeatureView, rows: Iterator[pa.RecordBatch]) -> int:
        """Keep these versions, unless newer ones are there; how many were written."""
        return sum(self._write(view, chunk) for chunk in newest_by_chunk(view, rows))

    def watermark(self, view: FeatureView) -> datetime | None:
        """Until when the namespace was materialised, as the registry knows."""
        return self._in_time(lambda: self._repository.recorded(view))

    def set_watermark(self, view: FeatureView, until: datetime) -> None:
        """Nothing is left to do: the registry was told."""

    def reader(self, selection: Sequence[SelectedFeatures]) -> OnlineReader:
        """Reads one selection in a thread: there is one turn at a time."""
        repository = self._repository
        self._warm()
        return ThreadedReader(
            self, selection, timeout=repository.timeout, threads=1, closing=repository.close
        )

    def probe(self, view: FeatureView) -> str:
        """Ask for an entity that nobody is; what Feast's own stores are given, they cannot remove.

        Raises:
            UsageError: the namespace is not in the registry.
        """
        nobody = tuple("" if kind == "string" else 0 for kind in view.entity_keys.values())
        self._found(view, tuple(view.features)[:1], [nobody])
        return "answers through Feast, which has no way to try writing"

    def close(self) -> None:
        """Nothing is left to do: the repository closes the connections."""

    def _found(
        self, view: FeatureView, features: Sequence[str], whose: Sequence[Entity | None]
    ) -> list[list[bytes | None]]:
        known = list(dict.fromkeys(entity for entity in whose if entity is not None))
        answers = self._in_time(lambda: self._ask(view, features, known)) if known else []
        found = dict(zip(known, answers, strict=True))
        nothing: list[bytes | None] = [None] * (len(features) + 1)
        return [nothing if entity is None else found[entity] for entity in whose]

    def _ask(
        self, view: FeatureView, features: Sequence[str], entities: Sequence[Entity]
    ) -> list[list[bytes | None]]:
        store = self._repository.store
        keys = [_key(view, entity) for entity in entities]
        feast_view = self._repository.registered(view)
        answers = store.provider.online_read(store.config, feast_view, keys, list(features))
        return [_row(features, at, values) for at, values in answers]

    def _write(self, view: FeatureView, rows: Sequence[Version]) -> int:
        there = self._found(view, tuple(view.features)[:1], [row.entity for row in rows])
        due = [
            row
            for row, (event, _) in zip(rows, there, strict=True)
            if event is None or not row.is_older_than(PARSERS["event time"](event), None)
        ]
        self._in_time(lambda: self._put(view, due))
        return len(due)

    def _put(self, view: FeatureView, rows: Sequence[Version]) -> None:
        from feast.protos.feast.types.Value_pb2 import Value

        store = self._repository.store
        data = [
            (
                _key(view, row.entity),
                {
                    name: Value.FromString(value_bytes(feature.type, value))
                    for (name, feature), value in zip(
                        view.features.items(), row.values, strict=True
                    )
                },
                EPOCH + timedelta(microseconds=row.event),
                None if row.created is None else EPOCH + timedelta(microseconds=row.created),
            )
            for row in rows
        ]
        if data:
            feast_view = self._repository.registered(view)
            store.provider.online_write_batch(store.config, feast_view, data, None)

    def _warm(self) -> None:
        """Import Feast and open its registry, which has a deadline of its own: both take seconds."""
        with self._repository.translated():
            self._repository.store  # noqa: B018 -- it is made when it is asked for

    def _in_time(self, work: Callable[[], T]) -> T:
        repository = self._repository
        self._warm()
        ends = time.monotonic() + repository.timeout
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 -- it is raised where the result is awaited
                future.set_exception(error)

        with repository.translated():
            if not self._turn.acquire(timeout=repository.timeout):
                raise _late(repository)
            try:
                # A thread that hangs must not keep the process from ending.
                threading.Thread(target=run, daemon=True).start()
                return future.result(max(0.0, ends - time.monotonic()))
            except LateError as error:
                given_up = repository.reopen()
                future.add_done_callback(lambda _: close_connections(given_up))
                raise _late(repository) from error
            finally:
                self._turn.release()


def _late(repository: FeastProject) -> ExternalError:
    return ExternalError(
        f"Feast's online store of {repository.project!r} did not answer within "
        f"{repository.timeout:g} s",
        hint="is it overloaded, stopped or behind a firewall?",
    )


def _key(view: FeatureView, entity: Entity) -> Any:  # noqa: ANN401 -- Feast's protobuf
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    values = [
        Value(int64_val=value) if isinstance(value, int) else Value(string_val=value)
        for value in entity
    ]
    return EntityKey(join_keys=list(view.keys), entity_values=values)


def _row(features: Sequence[str], at: datetime | None, values: Any) -> list[bytes | None]:  # noqa: ANN401 -- Feast's own
    if at is None or values is None:
        return [None] * (len(features) + 1)
    known = at if at.tzinfo else at.replace(tzinfo=UTC)
    micros = (known - EPOCH) // timedelta(microseconds=1)
    found = [values[name].SerializeToString() if name in values else None for name in features]
    return [time_bytes(micros), *found]
