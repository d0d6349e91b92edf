"""Plans in processes of their own: with nothing compiled, and without the libraries that learn."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT, SMALL, Trained

HEAVY = ["pandas", "sklearn", "scipy", "xgboost", "lightgbm", "causalml", "mlflow"]
OPEN = """
import json, sys
from pathlib import Path
folder, path = map(Path, sys.argv[1:])
def open_artifact():
    from pyarrow import feather
    from lodestar.artifact.wrapper import load_wrapper
    wrapper, _ = load_wrapper(folder)
    return wrapper, feather.read_table(folder / "lodestar" / "probe_rows.arrow", memory_map=False)
"""
CHOOSE = """
sys.modules["llvmlite"] = None
from lodestar.serving.plan import row_scorer
scorer = row_scorer(*open_artifact(), native=True)
print(json.dumps([scorer.name, scorer.reason]))
"""
KEEP = """
from lodestar.serving.plan import keep_plan, rows_of
wrapper, probe = open_artifact()
scorer = keep_plan(wrapper, probe, path, digest="d", native=True)
rows = rows_of(wrapper.contents.feature_schema, probe)
made = scorer.score(rows).predictions
print(json.dumps([scorer.name, rows, made.values.tolist(), made.probabilities.tobytes().hex()]))
"""
READ = """
from lodestar.artifact.contents import read_contents
from lodestar.serving.plan import kept_scorer
contents = read_contents(folder / "lodestar" / "contents.json")
scorer = kept_scorer(contents, path, digest="d")
made = scorer.score(json.load(sys.stdin)).predictions
print(json.dumps([scorer.name, made.values.tolist(), made.probabilities.tobytes().hex(),
                  sorted(set(sys.modules) & set(%r))]))
"""
COUNT = """
from lodestar.artifact.sketches import read_sketches
from lodestar.core.drift.judge import judge
from lodestar.core.drift.sketches import Window
window = Window(read_sketches(folder))
features = [column.name for column in window.reference.columns if column.role == "feature"]
window.add({name: [1.0] * 300 for name in features}, 300)
print(json.dumps([len(judge(window).drifted), sorted(set(sys.modules) & set(%r))]))
"""


def child(script: str, artifact: Path, path: Path, given: object = None) -> Any:  # noqa: ANN401 -- JSON
    """Run a script with one thread; what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN + script, artifact, path],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def classifier(trained: Callable[..., Trained]) -> Path:
    """The artifact of the sample project's classifier: XGBoost behind a SimpleScaler."""
    return trained("breast_cancer", *SMALL).artifact


def test_without_llvmlite_numpy_serves_and_says_why(classifier: Path, tmp_path: Path) -> None:
    name, reason = child(CHOOSE, classifier, tmp_path / "plan")
    assert name == "numpy"
    assert reason == "native: llvmlite is not installed"


def test_a_kept_plan_needs_none_of_what_learns(classifier: Path, tmp_path: Path) -> None:
    name, rows, values, bits = child(KEEP, classifier, tmp_path / "plan")
    assert name == "native"
    read = child(READ % HEAVY, classifier, tmp_path / "plan", given=rows)
    assert read == ["native", values, bits, []]


def test_what_a_server_counts_for_drift_needs_none_of_it_either(
    classifier: Path, tmp_path: Path
) -> None:
    drifted, imported = child(COUNT % HEAVY, classifier, tmp_path)
    assert drifted > 0
    assert imported == []
