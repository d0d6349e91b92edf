"""What every engine that scores the parts of a batch must keep, and every reader that divides rows."""

import os
import pickle
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lodestar.errors import ArtifactError, DataError
from lodestar.interface.parts import (
    Batches,
    Divided,
    Division,
    FailedPart,
    PartExecutor,
    PartitionedReader,
    PartRows,
    PartTask,
    RowsAtHand,
    ScoredPart,
    ScorerSource,
)

__all__ = [
    "DeedSource",
    "PartExecutorContract",
    "PartitionedReaderContract",
    "deeds",
    "numbered_rows",
    "tasks_of",
]


@dataclass(frozen=True)
class DeedSource:
    """Scores a row as twice its `x`; some values of `deed` do something else, `folder` remembers."""

    folder: Path | None = None
    broken: bool = False

    def open(self) -> "DeedSource":
        """Give itself.

        Raises:
            ArtifactError: where it is broken.
        """
        if self.broken:
            raise ArtifactError("the artifact is broken", hint="mend it")
        return self

    def __call__(self, task: PartTask) -> ScoredPart:
        """Score a part.

        Raises:
            DataError: the deed is `refused`.
            ValueError: the deed is `raise`.
        """
        found = []
        for batch in task.rows.read():
            for deed in batch.column("deed").to_pylist():
                self._do(deed)
            doubled = [2 * value for value in batch.column("x").to_pylist()]
            found.append(pa.RecordBatch.from_pydict({"y": pa.array(doubled, pa.int64())}))
        frames = {"predictions": Batches(found)}
        return ScoredPart(task.number, task.rows.rows, task.rows.digest(), frames)

    def _do(self, deed: str) -> None:
        if deed == "refused":
            raise DataError("column 'x' has a NaN in row 7", hint="fill it")
        if deed == "raise":
            raise ValueError("no such thing")
        if deed == "killed" or (deed == "killed once" and self._first_time()):
            os.kill(os.getpid(), signal.SIGKILL)
        if deed.startswith("wait "):
            time.sleep(float(deed.removeprefix("wait ")))

    def _first_time(self) -> bool:
        if self.folder is None:
            return False
        try:
            (self.folder / "killed").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def deeds(*each: str, rows: int = 3) -> list[PartTask]:
    """One part for each deed: so many rows in two batches, the first of which does it."""
    tasks = []
    for number, deed in enumerate(each):
        first = number * rows
        values = list(range(first, first + rows))
        batch = pa.RecordBatch.from_pydict({"x": values, "deed": [deed, *[""] * (rows - 1)]})
        pieces = Batches([batch.slice(0, 1), batch.slice(1)])
        tasks.append(PartTask(number, first, RowsAtHand(pieces, f"digest {number}")))
    return tasks


def tasks_of(count: int) -> list[PartTask]:
    """Parts that do nothing but be scored."""
    return deeds(*[""] * count)


class PartExecutorContract:
    """Subclass it and give the fixture `executor_of`: source → a context that gives the executor."""

    def test_each_part_comes_back_once_with_its_rows(self, executor_of: Any) -> None:  # noqa: ANN401 -- a fixture
        """In whatever order; batches stay as they were."""
        outcomes = self._scored(executor_of, tasks_of(9))
        scored = [part for part in outcomes if isinstance(part, ScoredPart)]
        assert sorted(part.number for part in scored) == list(range(9))
        assert len(outcomes) == len(scored)
        for part in scored:
            assert (part.rows, part.digest) == (3, f"digest {part.number}")
            first = 3 * part.number
            assert [batch.column("y").to_pylist() for batch in part.frames["predictions"]] == [
                [2 * first],
                [2 * first + 2, 2 * first + 4],
            ]

    def test_nothing_to_score_is_no_error(self, executor_of: Any) -> None:  # noqa: ANN401 -- a fixture
        """An empty batch is the pipeline's business."""
        assert self._scored(executor_of, []) == []

    @pytest.mark.parametrize(
        ("deed", "words"),
        [("refused", "column 'x' has a NaN in row 7"), ("raise", "no such thing")],
    )
    def test_a_part_that_raises_fails_alone(
        self,
        executor_of: Any,  # noqa: ANN401 -- a fixture
        deed: str,
        words: str,
    ) -> None:
        """It is named, with its rows; all others are scored."""
        outcomes = self._scored(executor_of, deeds("", "", deed, "", ""))
        (failed,) = [item for item in outcomes if isinstance(item, FailedPart)]
        assert str(failed.task) == "part 2 (rows 6 to 8)"
        assert words in str(failed.error)
        if deed == "refused":
            assert isinstance(failed.error, DataError)
            assert failed.error.hint == "fill it"
            assert failed.attempts == 1
        scored = [item.number for item in outcomes if isinstance(item, ScoredPart)]
        assert sorted(scored) == [0, 1, 3, 4]

    def test_parts_are_asked_for_when_somebody_is_free(self, executor_of: Any) -> None:  # noqa: ANN401 -- a fixture
        """However many there are, few of them are held at a time."""
        taken: list[int] = []

        def counted() -> Iterator[PartTask]:
            for task in tasks_of(40):
                taken.append(task.number)
                yield task

        with self._opened(executor_of, DeedSource()) as executor:
            most = 0
            for done, _ in enumerate(executor.scored(counted()), start=1):
                most = max(most, len(taken) - done)
        assert most <= 3 * executor.workers

    def test_what_cannot_be_loaded_says_why(self, executor_of: Any) -> None:  # noqa: ANN401 -- a fixture
        """The error is the one that loading raised."""
        with (
            pytest.raises(ArtifactError, match="the artifact is broken") as caught,
            self._opened(executor_of, DeedSource(broken=True)) as executor,
        ):
            list(executor.scored(iter(tasks_of(1))))
        assert caught.value.hint == "mend it"

    def _scored(self, executor_of: Any, tasks: list[PartTask]) -> list[ScoredPart | FailedPart]:  # noqa: ANN401 -- a fixture
        with self._opened(executor_of, DeedSource()) as executor:
            return list(executor.scored(iter(tasks)))

    @staticmethod
    def _opened(
        executor_of: Any,  # noqa: ANN401 -- a fixture
        source: ScorerSource,
    ) -> AbstractContextManager[PartExecutor]:
        opened: AbstractContextManager[PartExecutor] = executor_of(source)
        return opened


def numbered_rows(count: int, *, first: int = 0) -> pa.Table:
    """Rows with a key of their own, in order: `id`, a number and a text."""
    numbers = range(first, first + count)
    return pa.table(
        {
            "id": pa.array(numbers, pa.int64()),
            "x": pa.array([number / 8 for number in numbers], pa.float64()),
            "name": pa.array([None if n % 7 == 0 else f"row {n}" for n in numbers]),
        }
    )


class PartitionedReaderContract:
    """What every `PartitionedReader` keeps; a subclass gives `divided`, and `secrets` where it has some.

    Its parts must be pickled and read as a worker on another machine would, which `division` allows
    for: its `place` must lead to a config.
    """

    part_rows = 100
    secrets: tuple[str, ...] = ()

    def reader(self, table: pa.Table) -> PartitionedReader:
        """Make a reader whose source holds exactly these rows, in this order, in many pieces."""
        raise NotImplementedError

    def division(self) -> Division:
        """Say how to divide them; parts of `part_rows`."""
        return Division(chunk_rows=16, part_rows=self.part_rows, keys=("id",))

    @staticmethod
    def _parts(divided: Divided) -> list[PartRows]:
        assert divided.parts is not None, divided.why
        return list(divided.parts)

    @staticmethod
    def _read(parts: list[PartRows]) -> pa.Table:
        return pa.Table.from_batches([batch for part in parts for batch in part.read()])

    def test_parts_together_are_all_rows_once_and_in_order(self) -> None:
        """Each knows how many it has before it is read."""
        table = numbered_rows(1_234)
        with self.reader(table).parts(self.division()) as divided:
            parts = self._parts(divided)
            assert len(parts) > 1
            for part in parts:
                assert sum(batch.num_rows for batch in part.read()) == part.rows > 0
            assert self._read(parts).equals(table)

    def test_parts_have_about_the_rows_asked_for(self) -> None:
        """None has more than twice as many, where rows lie in small pieces."""
        with self.reader(numbered_rows(1_234)).parts(self.division()) as divided:
            rows = [part.rows for part in self._parts(divided)]
        assert max(rows) <= 2 * self.part_rows
        assert sum(rows) / len(rows) >= self.part_rows / 4

    def test_batches_hold_at_most_the_rows_asked_for(self) -> None:
        """As they would where nothing is divided."""
        with self.reader(numbered_rows(300)).parts(self.division()) as divided:
            sizes = [batch.num_rows for part in self._parts(divided) for batch in part.read()]
        assert max(sizes) <= self.division().chunk_rows

    def test_a_part_that_has_travelled_gives_the_same_rows(self) -> None:
        """As often as it is read; its digest is the same everywhere."""
        with self.reader(numbered_rows(350)).parts(self.division()) as divided:
            parts = self._parts(divided)
            there = [pickle.loads(pickle.dumps(part)) for part in parts]  # noqa: S301 -- ours
            assert self._read(there).equals(self._read(parts))
            assert self._read(there).equals(numbered_rows(350))
            assert [part.digest() for part in there] == [part.digest() for part in parts]

    def test_no_secret_travels_with_a_part(self) -> None:
        """Whoever reads it looks for credentials where it is."""
        with self.reader(numbered_rows(10)).parts(self.division()) as divided:
            for part in self._parts(divided):
                sent = pickle.dumps(part)
                assert not [secret for secret in self.secrets if secret.encode() in sent]

    def test_the_same_rows_have_the_same_digests_and_others_have_others(self) -> None:
        """Of another reading, too."""
        with self.reader(numbered_rows(350)).parts(self.division()) as divided:
            first = [part.digest() for part in self._parts(divided)]
        assert len(set(first)) == len(first)
        table = numbered_rows(350)
        x = table.column("x").to_pylist()
        x[5] = -1.0
        changed = table.set_column(1, "x", pa.array(x))
        with self.reader(changed).parts(self.division()) as divided:
            second = [part.digest() for part in self._parts(divided)]
        assert second != first

    def test_no_rows_are_no_parts(self) -> None:
        """An empty batch is the pipeline's business."""
        with self.reader(numbered_rows(0)).parts(self.division()) as divided:
            assert self._parts(divided) == []
