"""Port to whatever scores a batch part by part: this process, or the workers of a cluster."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from lodestar.settings.loading import ConfigPlace

__all__ = [
    "Batches",
    "Divided",
    "Division",
    "FailedPart",
    "PartExecutor",
    "PartRows",
    "PartScorer",
    "PartTask",
    "PartitionedReader",
    "RowsAtHand",
    "ScoredPart",
    "ScorerSource",
    "ScoresSideBySide",
    "Watched",
    "WrittenFile",
]


class Batches(Sequence[pa.RecordBatch]):
    """One or more batches of one schema; between processes they travel as one Arrow stream.

    Pickling them as they are would send the whole table along with each slice of it.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = tuple(batches)

    def __getitem__(self, place: Any) -> Any:  # noqa: ANN401 -- an index or a slice
        return self._batches[place]

    def __len__(self) -> int:
        return len(self._batches)

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (self.encoded(),)

    @property
    def rows(self) -> int:
        """How many there are in all batches."""
        return sum(batch.num_rows for batch in self._batches)

    def encoded(self) -> pa.Buffer:
        """The Arrow stream."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._batches[0].schema) as writer:
            for batch in self._batches:
                writer.write_batch(batch)
        return sink.getvalue()

    @classmethod
    def decoded(cls, stream: Any) -> "Batches":  # noqa: ANN401 -- whatever Arrow reads from
        """Batches of an Arrow stream, without a copy where it lies in memory."""
        with pa.ipc.open_stream(stream) as reader:
            return cls(reader)


def _received(stream: pa.Buffer) -> Batches:
    return Batches.decoded(stream)


class PartRows(Protocol):
    """The rows of a part, or where they lie; can be pickled."""

    @property
    def rows(self) -> int:
        """How many there are."""
        ...

    def digest(self) -> str:
        """A digest of their content: the same rows have the same one, others another."""
        ...

    def read(self) -> Iterator[pa.RecordBatch]:
        """The rows, in the batches in which they would come were there no parts."""
        ...


@dataclass(frozen=True)
class RowsAtHand:
    """Rows that whoever asks has read, and goes along with; `mark` is their digest."""

    batches: Batches
    mark: str = ""

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.batches.rows

    def digest(self) -> str:
        """As given."""
        return self.mark

    def read(self) -> Iterator[pa.RecordBatch]:
        """Give the batches."""
        return iter(self.batches)


@dataclass(frozen=True)
class Division:
    """How rows are to be divided: parts of about `part_rows` each, read in batches of `chunk_rows`.

    Rows that have no places of their own are divided by the values of a column: the first of `by` that
    there is, else the first of `keys`. `numbered`: what comes out has rows' numbers, so that it matters
    how many come before a part. `place` is the config by which a worker connects for itself: no
    secret travels with a part.
    """

    chunk_rows: int
    part_rows: int
    by: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    place: ConfigPlace | None = None
    numbered: bool = True


@dataclass(frozen=True)
class Divided:
    """All rows in order, in parts; None where they cannot be read in parts.

    `why`: what the user should know of it: why they cannot, or what it costs that they can.
    `moving`: the rows may be others at the next go, while each part's digest still tells which they are.
    `schema`: the columns, where dividing has shown them.
    """

    parts: Sequence[PartRows] | None
    why: str = ""
    moving: bool = False
    schema: pa.Schema | None = None


@runtime_checkable
class PartitionedReader(Protocol):
    """A reader whose rows lie where several can read them at once."""

    def parts(self, division: Division) -> AbstractContextManager[Divided]:
        """All rows of one moment, which can be read as often as need be until the block ends."""
        ...


@dataclass(frozen=True)
class PartTask:
    """One part to score; `first_row` is where it begins among all rows."""

    number: int
    first_row: int
    rows: PartRows

    def __str__(self) -> str:
        last = self.first_row + self.rows.rows - 1
        return f"part {self.number} (rows {self.first_row:,} to {last:,})"


class Watched(Protocol):
    """Rows that are watched for drift; counted at the latest when it is pickled."""

    def counted(self) -> Mapping[str, Any]:
        """The counts, as plain values."""
        ...


@dataclass(frozen=True)
class WrittenFile:
    """A file that holds a part's frame where the batch's results go, and how many rows are in it."""

    name: str
    rows: int


@dataclass(frozen=True)
class ScoredPart:
    """What came out: per kind of frame, its batches, in order; or the file that they were written to.

    `digest` is that of the rows that were scored. `unknown` and `filled` count, per column and per
    feature, the rows with an unseen category and those that a policy filled. `watched` is None where
    nobody wants to know of drift. `note`: what the user should know of how it was scored.
    """

    number: int
    rows: int
    digest: str
    frames: Mapping[str, Batches]
    unknown: Mapping[str, int] = field(default_factory=dict)
    filled: Mapping[str, int] = field(default_factory=dict)
    watched: Watched | None = None
    written: Mapping[str, WrittenFile] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class FailedPart:
    """A part that cannot be scored, and why; `attempts` is how often it was tried."""

    task: PartTask
    error: Exception
    attempts: int = 1


PartScorer = Callable[[PartTask], ScoredPart]


@runtime_checkable
class ScoresSideBySide(Protocol):
    """A scorer that may be asked by two threads at once, as soon as it says so."""

    @property
    def side_by_side(self) -> bool:
        """Whether it may from now on."""
        ...


class ScorerSource(Protocol):
    """What a worker makes its scorer from, once; can be pickled."""

    def open(self) -> PartScorer:
        """Load it.

        Raises:
            LodestarError: it is not what was asked for, or cannot be loaded here.
        """
        ...


class PartExecutor(Protocol):
    """Scores parts, each exactly once; one that fails does so alone.

    Parts come back in whatever order they end. `tasks` is asked for the next one only when somebody is
    free to score it, or nearly: memory holds a few parts, however many there are. A part whose rows
    raise one of our errors about data comes back as failed at once; one that ends its worker, or raises
    anything else, is tried a bounded number of times.
    """

    workers: int

    def scored(self, tasks: Iterator[PartTask]) -> Iterator[ScoredPart | FailedPart]:
        """Score all of them.

        Raises:
            LodestarError: nobody can score anything any more.
        """
        ...
