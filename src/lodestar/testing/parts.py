"""What every engine that scores the parts of a batch must keep, on rows that do as they say."""

import os
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
    FailedPart,
    PartExecutor,
    PartTask,
    RowsAtHand,
    ScoredPart,
    ScorerSource,
)

__all__ = ["DeedSource", "PartExecutorContract", "deeds", "tasks_of"]


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
