"""Rows of predictions and labels, coded for their join; what is left out is counted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestar.adapters.joins.labels import LabelJoin
from lodestar.core.labels.codes import Codes
from lodestar.core.labels.results import JoinCounts
from lodestar.core.labels.segments import Segmenter
from lodestar.errors import DataError
from lodestar.interface.data import SpineReader
from lodestar.interface.progress import Progress
from lodestar.schema import TIMESTAMP

__all__ = ["LabelColumns", "PredictionRows", "TakenRows"]

CHUNK_ROWS = 65_536
DIGEST = "artifact_digest"
MICROS_OF_A_DAY = 86_400_000_000
Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)


@dataclass(frozen=True)
class PredictionRows:
    """Predictions to be joined: their columns, the one that says when, and the rows."""

    schema: pa.Schema
    time: str | None
    read: Callable[[Sequence[str]], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class LabelColumns:
    """What plays which part: the keys in both; target, treatment and time in the labels."""

    keys: tuple[str, ...]
    target: str
    treatment: str | None
    time: str | None


class TakenRows:
    """Hands rows to the join, coded, and counts those that are left out."""

    def __init__(
        self,
        join: LabelJoin,
        columns: LabelColumns,
        codes: Codes,
        segmenters: Mapping[str, Segmenter],
        *,
        digest: str,
        now: datetime,
        tell: Progress,
    ) -> None:
        self._join = join
        self._columns = columns
        self._codes = codes
        self._segmenters = segmenters
        self._digest = digest
        self._now = int(now.timestamp() * 1_000_000)
        self._tell = tell
        self.counts = JoinCounts()

    def predictions(self, given: PredictionRows) -> None:
        """Read all predictions.

        Raises:
            DataError: some are none that the artifact makes, or there is none.
        """
        there = given.schema.names
        shares = [name for name in self._codes.shares if name in there]
        wanted = [*self._columns.keys, *self._segmenters, "prediction", *shares]
        wanted += [given.time] if given.time is not None else []
        wanted += [DIGEST] if DIGEST in there else []
        wanted = list(dict.fromkeys(wanted))
        rows = 0
        for batch in given.read(wanted):
            rows += self._add_predictions(_complete(batch, given.schema, wanted), given.time)
            self._tell.rows(rows, None)
        if not rows:
            foreign = (
                f"; {self.counts.foreign:,} are of other artifacts" if self.counts.foreign else ""
            )
            raise DataError(
                f"there is no prediction of this artifact with {', '.join(self._columns.keys)}{foreign}",
                hint="give the predictions of the run that --run-id names",
            )

    def labels(self, reader: SpineReader) -> None:
        """Read all labels."""
        with reader.read(chunk_rows=CHUNK_ROWS) as stream:
            for batch in stream:
                self._add_labels(batch)

    def _add_predictions(self, batch: pa.RecordBatch, time: str | None) -> int:
        """Hand on those of this artifact that can have a label; how many."""
        if DIGEST in batch.schema.names:
            own = pc.equal(batch.column(DIGEST), self._digest).fill_null(fill_value=False)
            batch = self._only(batch, own, "foreign")
        keyed = [batch.column(name).is_valid() for name in self._columns.keys]
        keyed += [batch.column(time).is_valid()] if time is not None else []
        batch = self._only(batch, _all(keyed), "keyless")
        if not batch.num_rows:
            return 0
        columns = self._keys_of(batch)
        columns["moment"] = pa.nulls(batch.num_rows, pa.int64())
        if time is not None:
            columns["moment"] = _micros(batch.column(time))
            self._count(ahead=pc.sum(pc.greater(columns["moment"], self._now)).as_py() or 0)
        columns |= self._said(batch)
        for place, (name, each) in enumerate(self._segmenters.items()):
            columns[f"segment_{place}"] = each.codes(batch.column(name))
        self._join.add_predictions(pa.table(columns))
        return int(batch.num_rows)

    def _said(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        codes = self._codes
        said = codes.coded(batch.column("prediction"))
        unknown = codes.target.task == "classification" and pc.any(pc.less(said, 0)).as_py()
        if said.null_count or unknown:
            raise DataError(
                "some predictions are none that this artifact makes",
                hint="give the predictions as batch-inference or serve-api wrote them",
            )
        columns = {"prediction": said}
        for ours, theirs in zip(codes.coded_shares, codes.shares, strict=True):
            if theirs in batch.schema.names:
                columns[ours] = batch.column(theirs).cast(pa.float64())
        return columns

    def _add_labels(self, batch: pa.RecordBatch) -> None:
        columns, codes = self._columns, self._codes
        self._count(labels=batch.num_rows)
        coded = self._keys_of(batch)
        nothing = pa.nulls(batch.num_rows, pa.int64())
        coded["moment"] = nothing if columns.time is None else _micros(batch.column(columns.time))
        coded["target"] = codes.coded(batch.column(columns.target))
        coded["treatment"] = (
            pa.array(np.zeros(batch.num_rows, np.int32))
            if columns.treatment is None
            else codes.treated(batch.column(columns.treatment))
        )
        rows = pa.table(coded)
        keyed = [rows.column(f"key_{place}").is_valid() for place in range(len(columns.keys))]
        rows = self._only(rows, _all(keyed), "keyless")
        there = [rows.column("target").is_valid(), rows.column("treatment").is_valid()]
        there += [rows.column("moment").is_valid()] if columns.time is not None else []
        rows = self._only(rows, _all(there), "empty")
        if codes.target.task == "classification":
            rows = self._only(rows, pc.greater_equal(rows.column("target"), 0), "unknown")
        if columns.time is not None:
            rows = self._only(rows, pc.less_equal(rows.column("moment"), self._now), "future")
        self._join.add_labels(rows)

    def _keys_of(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        return {f"key_{at}": batch.column(name) for at, name in enumerate(self._columns.keys)}

    def _only(self, rows: Rows, keep: pa.Array | pa.ChunkedArray, left_out: str) -> Rows:
        kept: Rows = rows.filter(keep)
        self._count(**{left_out: rows.num_rows - kept.num_rows})
        return kept

    def _count(self, **more: int) -> None:
        added = {name: getattr(self.counts, name) + count for name, count in more.items()}
        self.counts = replace(self.counts, **added)


def _complete(batch: pa.RecordBatch, schema: pa.Schema, names: Sequence[str]) -> pa.RecordBatch:
    """All these columns: what files of an older log lack is null; a key that is null joins nothing."""
    there = set(batch.schema.names)
    columns = {}
    for name in dict.fromkeys(names):
        kind = schema.field(name).type
        columns[name] = batch.column(name) if name in there else pa.nulls(batch.num_rows, kind)
        if pa.types.is_dictionary(columns[name].type):
            columns[name] = columns[name].dictionary_decode()
    return pa.record_batch(columns)


def _micros(times: pa.Array) -> pa.Array:
    """µs since 1970; a date is its end, as what happened on it was known by then."""
    if pa.types.is_date(times.type):
        days = times.cast(pa.date32()).cast(pa.int32()).cast(pa.int64())
        return pc.subtract(pc.multiply(pc.add(days, 1), MICROS_OF_A_DAY), 1)
    return times.cast(TIMESTAMP).cast(pa.int64())


def _all(masks: Sequence[pa.Array]) -> pa.Array:
    found = masks[0]
    for mask in masks[1:]:
        found = pc.and_(found, mask)
    return found
