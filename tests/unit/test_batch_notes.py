"""What a batch tells of how its rows were scored."""

import importlib
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from tests.forests import with_other_leaves
from tests.planning import XGB_BINARY, artifact, training_rows

from lodestar.core.trees.compiled import DIFFERENT, LEAST_ROWS
from lodestar.execution.local_parts import LocalParts
from lodestar.interface.parts import Batches, PartTask, RowsAtHand, ScoredPart
from lodestar.interface.progress import Silent
from lodestar.pipelines.scoring import ArtifactSource, FramePlan
from lodestar.pipelines.telling import MANY_ROWS, TellingExecutor, slower_than_need_be
from lodestar.settings.config import Batch


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        """Keep a note."""
        self.told.append(text)


def test_trees_that_predict_something_else_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    served = artifact(*XGB_BINARY, None)
    rows = training_rows(LEAST_ROWS).combine_chunks().to_batches()
    plan = FramePlan("run", "digest", {"predictions": {}})
    source = ArtifactSource(Path(), "digest", plan, loaded=served.wrapper)
    tasks = [PartTask(number, number * LEAST_ROWS, RowsAtHand(Batches(rows))) for number in (0, 1)]

    def scored() -> tuple[list[pa.Table], list[str]]:
        notes = Notes()
        parts = list(TellingExecutor(LocalParts(source), notes).scored(iter(tasks)))
        assert all(isinstance(part, ScoredPart) for part in parts), parts
        frames = [part.frames["predictions"] for part in parts if isinstance(part, ScoredPart)]
        return [pa.Table.from_batches(list(each)) for each in frames], notes.told

    right, said = scored()
    assert said == []
    module = importlib.import_module("lodestar.core.trees.compiled")
    monkeypatch.setattr(module, "native_model", with_other_leaves)
    again, said = scored()
    assert said == [DIFFERENT]
    assert again == right


def test_a_large_batch_without_llvmlite_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = artifact(*XGB_BINARY, None).wrapper.fitted
    assert slower_than_need_be(model, MANY_ROWS, Batch()) == ()
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    (said,) = slower_than_need_be(model, MANY_ROWS, Batch())
    assert "lodestar-ml[native]" in said
    assert slower_than_need_be(model, MANY_ROWS - 1, Batch()) == ()
    assert slower_than_need_be(model, MANY_ROWS, Batch(native=False)) == ()
