"""The prediction log of `serve-api`, read back: which hours there are, and their rows of one artifact.

<folder>/<recipe>/date=2026-11-25/hour=19/<artifact digest>-<process>-<number>.parquet
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lodestar.adapters.files.rows import translated
from lodestar.errors import DataError
from lodestar.schema import TIMESTAMP

__all__ = ["LogHour", "PredictionLogFiles"]

HOUR = timedelta(hours=1)
DIGITS = 12
BATCH_ROWS = 65_536
_PLACE = re.compile(r"^date=(\d{4}-\d{2}-\d{2})/hour=(\d{2})$")


@dataclass(frozen=True)
class LogHour:
    """One hour of the log, from `begins` (UTC) on, and the files that it has of the artifact."""

    begins: datetime
    files: tuple[Path, ...]


class PredictionLogFiles:
    """One recipe's part of a log, seen by one artifact."""

    def __init__(self, folder: Path, recipe: str, digest: str) -> None:
        """`folder` is the log's, or the recipe's own in it.

        Raises:
            DataError: there is no such folder, or no log of the recipe in it.
        """
        if not folder.is_dir():
            raise DataError(
                f"there is no folder {folder}",
                hint="serving.prediction_log.folder says where it is",
            )
        self._folder = folder / recipe if (folder / recipe).is_dir() else folder
        self._digest = digest
        self._hours = self._listed()
        if not self._hours:
            found = sorted(path.name for path in folder.iterdir() if path.is_dir())
            raise DataError(
                f"{folder} holds no prediction log of {recipe}",
                hint=f"its folders: {', '.join(found[:12]) or 'none'}",
            )

    def hours(self, since: datetime | None, until: datetime | None) -> tuple[LogHour, ...]:
        """The hours of the artifact that reach into the time asked for, in order.

        Raises:
            DataError: there is none, and what there is instead.
        """
        found = []
        for begins, files in sorted(self._hours.items()):
            own = tuple(sorted(file for file in files if self._is_own(file)))
            before = until is not None and begins >= until
            after = since is not None and begins + HOUR <= since
            if own and not before and not after:
                found.append(LogHour(begins, own))
        if not found:
            raise self.empty(since, until)
        return tuple(found)

    def empty(self, since: datetime | None, until: datetime | None) -> DataError:
        """Say that the window has no row, and what there is instead."""
        own = sorted(
            begins for begins, files in self._hours.items() if any(map(self._is_own, files))
        )
        asked = f" from {_said(since)} to {_said(until)}" if since or until else ""
        others = ", ".join(
            f"{name} ({count} files)" for name, count in self._others().most_common(5)
        )
        if own:
            last = own[-1] + HOUR
            hint = f"its rows are from {_said(own[0])} to {_said(last)} (UTC); see --since, --until"
        else:
            hint = f"rows there are of other artifacts: {others or 'none'}"
        return DataError(
            f"{self._folder} has no row of artifact {self._digest[:DIGITS]}{asked}", hint=hint
        )

    def others(self) -> int:
        """How many files are other artifacts'."""
        return self._others().total()

    def rows(
        self,
        hour: LogHour,
        columns: Sequence[str],
        since: datetime | None,
        until: datetime | None,
    ) -> Iterator[pa.RecordBatch]:
        """The hour's rows in batches, as far as they have these columns; the end is not included.

        Raises:
            DataError: a file cannot be read.
        """
        wanted = dict.fromkeys([*columns, "logged_at", "artifact_digest"])
        for path in hour.files:
            with translated(path), pq.ParquetFile(path) as file:
                there = set(file.schema_arrow.names)
                names = [name for name in wanted if name in there]
                for batch in file.iter_batches(BATCH_ROWS, columns=names, use_threads=False):
                    yield self._own_rows(batch, since, until)

    def columns(self, hour: LogHour) -> pa.Schema:
        """What the hour's first file has."""
        with translated(hour.files[0]):
            return pq.read_schema(hour.files[0])

    def _own_rows(
        self, batch: pa.RecordBatch, since: datetime | None, until: datetime | None
    ) -> pa.RecordBatch:
        keep = pc.equal(batch.column("artifact_digest"), self._digest)
        at = batch.column("logged_at")
        if since is not None:
            keep = pc.and_(keep, pc.greater_equal(at, pa.scalar(since, TIMESTAMP)))
        if until is not None:
            keep = pc.and_(keep, pc.less(at, pa.scalar(until, TIMESTAMP)))
        return batch.filter(keep)

    def _listed(self) -> dict[datetime, list[Path]]:
        found: dict[datetime, list[Path]] = {}
        for path in self._folder.glob("date=*/hour=*/*.parquet"):
            place = _PLACE.match(path.parent.relative_to(self._folder).as_posix())
            if place is not None and not path.name.startswith("."):
                begins = _hour(place[1], place[2])
                if begins is not None:
                    found.setdefault(begins, []).append(path)
        return found

    def _is_own(self, file: Path) -> bool:
        return file.name.partition("-")[0] == self._digest[:DIGITS]

    def _others(self) -> "Counter[str]":
        return Counter(
            file.name.partition("-")[0]
            for files in self._hours.values()
            for file in files
            if not self._is_own(file)
        )


def _hour(date: str, hour: str) -> datetime | None:
    """None for a folder that names no hour, such as month 13: nobody wrote a log there."""
    try:
        return datetime.fromisoformat(f"{date}T{hour}:00:00").replace(tzinfo=UTC)
    except ValueError:
        return None


def _said(moment: datetime | None) -> str:
    return "…" if moment is None else f"{moment:%Y-%m-%dT%H:%M}"
