"""`evaluate` tells what it doubts of how the rows were predicted, and judges what the library says."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import SMALL, Trained
from tests.forests import with_other_leaves

from lodestar.core.trees.compiled import DIFFERENT, LEAST_ROWS
from lodestar.interface.progress import Silent
from lodestar.pipelines.evaluate import evaluate
from lodestar.settings.loading import load_config

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred")  # MLflow's import


class Notes(Silent):
    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, message: str) -> None:
        self.told.append(message)


def test_trees_that_predict_something_else_are_told_and_not_judged(
    trained: Callable[..., Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained("breast_cancer", *SMALL)
    table = pq.read_table(run.project / "data/breast_cancer.parquet")
    many = tmp_path / "many.parquet"
    pq.write_table(pa.concat_tables([table] * (LEAST_ROWS // table.num_rows + 1)), many)
    environment = load_config(run.project, None, variables={})

    def judged() -> tuple[dict[str, float], list[str]]:
        notes = Notes()
        found = evaluate(environment, run.run_id, {}, data=str(many), progress=notes)
        return found.evaluation.values(), notes.told

    right, told = judged()
    assert told == []
    module = importlib.import_module("lodestar.core.trees.compiled")
    monkeypatch.setattr(module, "native_model", with_other_leaves)
    again, told = judged()
    assert told == [DIFFERENT]
    assert again == right
